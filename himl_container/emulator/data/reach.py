"""Which of the workspace's files the emulator lays out for a run that a job has submitted.

The emulator reads and writes with the account's own key. A job's signature opens neither the container of all runs'
files nor that of snapshots; a run that a job submits must not be a way around that.
"""

from __future__ import annotations

import re

from himl_container.emulator.access import forbidden
from himl_container.emulator.blobs import RUNS_CONTAINER, SNAPSHOTS_CONTAINER
from himl_container.emulator.http import Refusal
from himl_container.emulator.state.paths import checked_path
from himl_container.emulator.state.runs import Runs

CLOSED_TO_JOBS = frozenset({RUNS_CONTAINER, SNAPSHOTS_CONTAINER})
"""Containers with files of more than one run."""

_OF_A_RUN = re.compile(r"ExperimentRun/dcid\.(?P<run>[^/*]+)(?:/.*)?", re.DOTALL)


class Reach:
    """Decides by the run whose job has submitted a run; empty for one that a user has submitted."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def check(self, submitter: str, container: str, path: str) -> None:
        """Let everything pass that a user names, and of a job what lies outside of the closed containers, or is a file
        of the submitter's own run or of a descendant.

        :param path: a blob, a folder or a pattern, as it is given to the storage.
        :raises Refusal: 403, it may have files of another run. Whether there are any is not told.
        """
        if not submitter or container not in CLOSED_TO_JOBS:
            return
        found = _OF_A_RUN.fullmatch(path) if container == RUNS_CONTAINER and _plain(path) else None
        if found is None or not self._runs.related(submitter, found["run"]):
            raise forbidden(f"The job of run {submitter} may give a run no files but those of its own run.")


def _plain(path: str) -> bool:
    """Whether a path is what it seems to be: storage clients resolve ``..`` before they ask."""
    try:
        return checked_path(path.rstrip("/")) == path.rstrip("/")
    except Refusal:
        return False
