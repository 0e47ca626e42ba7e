"""The folder of one job on this machine.

::

    <jobs>/<job>/node-0/        working folder of a node: the snapshot
    <jobs>/<job>/outputs, logs  what the script writes there
    <jobs>/<job>/in/<name>      an input's files
    <jobs>/<job>/out/<name>     an output's files
    <jobs>/<job>/image          id of the image, for tidying up after a kill
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from himl_container.emulator.compute.description import job_name
from himl_container.errors import InputError, StorageError

KEPT = ("outputs", "logs")
"""Folders that AzureML keeps of a working directory."""


class JobFolder:
    """The folder of a run's job.

    :param root: of all jobs.
    """

    def __init__(self, root: Path, run_id: str) -> None:
        self.path = root.absolute() / job_name(run_id)

    def make(self, nodes: int, outputs: Iterable[str], keep: Iterable[str] = ()) -> None:
        """Make it afresh.

        :param outputs: names of folders that come out; :param keep: those that stay as an earlier start left them.
        :raises StorageError: it cannot be written.
        """
        kept = frozenset(keep)
        try:
            for part in (*KEPT, "in", *(f"node-{node}" for node in range(nodes))):
                _remove(self.path / part)
                (self.path / part).mkdir(parents=True)
            for name in outputs:
                if name not in kept:
                    _remove(self.output(name))
                self.output(name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", where=str(self.path)) from error

    def node(self, number: int) -> Path:
        """Return the working folder of a node."""
        return self.path / f"node-{number}"

    def input(self, name: str) -> Path:
        """Return the folder of an input; the caller has checked its name."""
        return self.path / "in" / name

    def output(self, name: str) -> Path:
        """Return the folder of an output; the caller has checked its name."""
        return self.path / "out" / name

    def make_mount_points(self, nodes: int) -> None:
        """Make the places where the kept folders are mounted.

        :raises InputError: the snapshot has a file of that name.
        """
        for node in range(nodes):
            for part in KEPT:
                place = self.node(node) / part
                if place.is_symlink() or (place.exists() and not place.is_dir()):
                    raise InputError(f"the snapshot has a file where AzureML makes the folder {part!r}")
                place.mkdir(exist_ok=True)  # Docker would make it too, but for root

    @property
    def image(self) -> str:
        """The image's id as it was noted; empty for none."""
        with contextlib.suppress(OSError):
            return (self.path / "image").read_text(encoding="utf-8")
        return ""

    def note_image(self, image: str) -> None:
        """Note the image's id.

        :raises StorageError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "image").write_text(image, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", where=str(self.path)) from error

    def remove(self) -> None:
        """Remove it; what cannot be removed stays."""
        shutil.rmtree(self.path, ignore_errors=True)


def _remove(path: Path) -> None:
    if os.path.lexists(path):
        shutil.rmtree(path)
