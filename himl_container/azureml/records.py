"""What was submitted from this machine: where each run went, so that later commands find it by its id alone.

A record is a small file in the cache. Nothing of a run is in it that AzureML does not have, but for the way there; a
cache that was emptied costs the flag that names the workspace, and nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himl_container.azureml.constants import EXPERIMENT_RUN_SEPARATOR, RUN_RECOVERY_FILE
from himl_container.azureml.failures import MissingRun
from himl_container.cache import Cache

LATEST = "latest"
_RUN_ID = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,255}"
"""What AzureML takes as a run's id; it becomes a part of addresses and the name of a folder."""
_OF_A_SEARCH = r"(HD_[A-Za-z0-9-]+)_[0-9]+"
"""One run of a search, which is where the search is; the search's own id comes first."""
_FOLDER = "submitted"


@dataclass(frozen=True)
class Record:
    """A run that was submitted from this machine.

    :param run: its id.
    :param subscription_id, resource_group, workspace: the names of its workspace.
    :param emulator: the folder of the emulator that it went to; empty for Azure.
    :param folder: the current folder at that time.
    :param script: what was run, with its arguments left out: they may be secrets.
    :param image: repository and digest of its image; empty where AzureML builds one.
    :param fingerprint, lock: of the image and of the lock file that chose it.
    :param portal: the address of its page.
    :param submitted: seconds since 1970.
    """

    run: str
    experiment: str
    subscription_id: str
    resource_group: str
    workspace: str
    emulator: str = ""
    folder: str = ""
    script: str = ""
    image: str = ""
    fingerprint: str = ""
    lock: str = ""
    portal: str = ""
    submitted: float = 0.0

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return dataclasses.asdict(self)


def is_run_id(text: str) -> bool:
    """Whether a text can be the id of a run."""
    return re.fullmatch(_RUN_ID, text) is not None


class Records:
    """The records of this machine."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def add(self, record: Record) -> None:
        """Keep a record.

        :raises StorageError: the cache cannot be written.
        """
        self._cache.write_json(record.to_json(), _FOLDER, _file(record.run))

    def find(self, run: str) -> Record | None:
        """Return the record of a run; None where there is none, or it cannot be read."""
        return _record(self._cache.read_json(_FOLDER, _file(run)))

    def newest(self, count: int) -> tuple[Record, ...]:
        """Return the latest records, newest first."""
        found = []
        for path in (self._cache.root / _FOLDER).glob("*.json"):  # looking makes no folder
            try:
                record = _record(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError):
                continue
            if record is not None:
                found.append(record)
        return tuple(sorted(found, key=lambda one: (-one.submitted, one.run))[:count])


@dataclass(frozen=True)
class Chosen:
    """A run that a user means.

    :param experiment: empty where it was not said. :param record: None where the run was not submitted from here; that
        of the search for one of its runs.
    """

    run: str
    experiment: str = ""
    record: Record | None = None


def choose_run(text: str, records: Records, *, cwd: Path) -> Chosen:
    """Return the run that a user means.

    :param text: a run's id, ``experiment:id`` or ``latest``. Empty: that of ``most_recent_run.txt`` in the current
        folder, else the latest one that was submitted from this machine.
    :raises MissingRun: nothing was submitted yet, or the text is no run's name.
    """
    if not text:
        text = _most_recent(cwd) or LATEST
    if text == LATEST:
        newest = records.newest(1)
        if not newest:
            raise MissingRun(
                "nothing was submitted from this machine yet",
                where=str(cwd / RUN_RECOVERY_FILE),
                hint="Name the run by its id, or submit one: himl-container submit --azureml SCRIPT.",
            )
        return Chosen(newest[0].run, newest[0].experiment, newest[0])
    experiment, separator, run = text.rpartition(EXPERIMENT_RUN_SEPARATOR)
    if (separator and not experiment) or ":" in experiment or not is_run_id(run):
        raise MissingRun(f"{text!r} is not the name of a run", hint="Write its id, EXPERIMENT:ID, or 'latest'.")
    record = records.find(run)
    if record is None and (part := re.fullmatch(_OF_A_SEARCH, run)):
        record = records.find(part[1])
    return Chosen(run, experiment or (record.experiment if record else ""), record)


def _most_recent(cwd: Path) -> str:
    try:
        return (cwd / RUN_RECOVERY_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def now() -> float:
    """Return the time of a record."""
    return round(time.time(), 3)


def _file(run: str) -> str:
    return hashlib.sha256(run.encode()).hexdigest()[:32] + ".json"


def _record(value: Any) -> Record | None:
    if not isinstance(value, Mapping):
        return None
    fields = {field.name: field.type for field in dataclasses.fields(Record)}
    known = {name: item for name, item in value.items() if name in fields}
    if not all(isinstance(item, (int, float) if fields[name] == "float" else str) for name, item in known.items()):
        return None
    try:
        return Record(**known)
    except TypeError:
        return None
