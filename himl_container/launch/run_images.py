"""Which image a local run used, from its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from himl_container.errors import InputError
from himl_container.launch.run_folder import LATEST, RECORD, read_record
from himl_container.publish.verify_model import RunImage


@dataclass(frozen=True)
class LocalRuns:
    """The run folders of this machine.

    :param runs: the folder that holds them; a run is also found by the path of its own folder.
    """

    runs: Path

    def image_of(self, run: str) -> RunImage | None:
        """Return the image of a run: by its folder, its id, or ``latest``; None where there is no such run.

        :raises InputError: the run's record is damaged.
        """
        for folder in (Path(run), self.runs / run):
            if (folder / RECORD).is_file():
                path = folder.resolve()  # 'latest' is a link
                return _image(path.parent, path.name)
        if run == LATEST:
            raise InputError("there is no run yet", where=str(self.runs))
        return None


def _image(runs: Path, run_id: str) -> RunImage:
    record = read_record(runs, run_id)
    image = record.launch.get("image")
    values = image if isinstance(image, dict) else {}
    texts = {name: value if isinstance(value := values.get(name), str) else "" for name in _FIELDS}
    return RunImage(run=record.id, **texts)


_FIELDS = ("tag", "id", "digest", "fingerprint", "lock")
