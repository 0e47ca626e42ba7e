"""Which image a run in AzureML used, from its own environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himl_container.azureml.environments import NAME
from himl_container.azureml.failures import MissingRun
from himl_container.errors import InputError
from himl_container.publish.verify_model import RunImage

if TYPE_CHECKING:
    from azureml.core import Run

    from himl_container.azureml.records import Chosen, Records

_RUN = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_-]*:)?[A-Za-z0-9][A-Za-z0-9_-]{0,255}", re.ASCII)
_OURS = re.compile(rf"{NAME}([0-9a-f]{{32}})")


@dataclass(frozen=True)
class CloudRuns:
    """The runs of a workspace, for :func:`himl_container.publish.verify.verify`.

    :param records: of what was submitted from this machine.
    :param read: gets a run from its workspace. :param asked: whether a workspace was named by a flag, so that a name
        that is not known here is taken for a run all the same.
    """

    records: Records
    read: Callable[[Chosen], Run]
    asked: bool = False

    def image_of(self, run: str) -> RunImage | None:
        """Return the image of a run by its id or ``experiment:id``; None where it is none that is known here.

        :raises MissingRun: the workspace has no such run.
        :raises InputError: AzureML made the run's image itself, so there is nothing that could be compared.
        """
        from himl_container.azureml.records import choose_run

        if not _RUN.fullmatch(run):
            return None
        try:
            chosen = choose_run(run, self.records, cwd=Path.cwd())
        except MissingRun:
            return None
        if chosen.record is None and not self.asked:
            return None
        found = self.read(chosen)
        image = image_of_details(found.id, found.get_details())
        if chosen.record is None or chosen.record.image != image.digest:
            return image
        # What the run's own definition does not say: the whole of the fingerprint, and the lock.
        return replace(image, fingerprint=chosen.record.fingerprint, lock=chosen.record.lock)


def image_of_details(run_id: str, details: Mapping[str, Any]) -> RunImage:
    """Return the image that a run's definition names.

    :raises InputError: AzureML made the image itself, or the definition does not say which one was used.
    """
    definition = details.get("runDefinition") or {}
    environment = definition.get("environment") or {}
    docker = environment.get("docker") or {}
    base, address = (
        str(docker.get("baseImage") or ""),
        str((docker.get("baseImageRegistry") or {}).get("address") or ""),
    )
    python = environment.get("python") or {}
    if not base or not python.get("userManagedDependencies"):
        raise InputError(
            f"AzureML made the image of run {run_id} itself, so it is in no registry that could be compared",
            hint="Runs that were submitted without --build-in-azureml use the image of the lock.",
        )
    name = f"{address}/{base}" if address and not base.startswith(f"{address}/") else base
    repository, at, digest = name.partition("@")
    ours = _OURS.fullmatch(str(environment.get("name") or ""))
    # The tag of our images is the first half of the fingerprint, and so is the environment's name.
    tag = f"{repository}:{ours[1]}" if at and ours else name
    return RunImage(run_id, tag, digest=f"{repository}@{digest}" if at else "")
