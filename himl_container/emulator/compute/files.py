"""The files of a run: what a job wrote to ``outputs`` and ``logs`` goes up, and comes back after a preemption.

The folders were written by a job, which may have put links, pipes or odd names into them: nothing but regular files is
read, and no link is followed, however the job changes its folders while they are read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from himl_container.emulator.http import Refusal
from himl_container.emulator.state.artifacts import Artifacts
from himl_container.errors import HimlError, StorageError

_BLOCK = 1 << 20


class RunFiles:
    """The files of one run.

    :param files: of all runs.
    """

    def __init__(self, files: Artifacts, run_id: str) -> None:
        self._files, self._run_id = files, run_id
        self._sent: dict[str, tuple[int, int]] = {}

    def save(self, folder: Path, name: str) -> list[str]:
        """Upload the files of a folder that have changed since the last time.

        :param name: of the folder in the run (``outputs``).
        :return: what could not be uploaded, one sentence each.
        """
        problems: list[str] = []
        try:
            for current, _folders, names, descriptor in os.fwalk(folder, follow_symlinks=False):
                below = os.path.relpath(current, folder)
                inside = name if below == "." else f"{name}/{below}"
                for file in sorted(names):
                    problem = self._save_one(descriptor, file, f"{inside}/{file}")
                    problems += [problem] if problem else []
        except OSError as error:  # a folder vanished while it was read
            problems.append(f"{name} cannot be read: {error.strerror}")
        return problems

    def restore(self, name: str, folder: Path) -> int:
        """Lay out the files of the run below ``name`` as ``folder/name``, which is empty.

        :return: how many there were.
        :raises StorageError: the folder cannot be written, or the storage fails.
        """
        try:
            return self._files.download_folder(self._run_id, name, folder)
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", where=str(folder)) from error

    def _save_one(self, folder: int, file: str, path: str) -> str:
        """Upload one file; returns what was wrong with it, empty for nothing."""
        why = ""
        try:
            # Without O_NONBLOCK, a pipe that took a file's place would hold us for ever.
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            with os.fdopen(descriptor, "rb") as reader:
                info = os.fstat(descriptor)
                stamp = (info.st_size, info.st_mtime_ns)
                if not stat.S_ISREG(info.st_mode):
                    why = "it is no regular file"
                elif self._sent.get(path) != stamp:
                    self._files.upload(self._run_id, path, _blocks(reader, info.st_size))
                    self._sent[path] = stamp
        except OSError as error:
            why = "it is a link" if error.errno == errno.ELOOP else error.strerror or type(error).__name__
        except Refusal as error:
            why = error.message
        except HimlError as error:
            why = error.what
        return f"{path!a} is not uploaded: {why}" if why else ""


def _blocks(reader: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the bytes that a file had when it was looked at: one that grows faster than it is sent would never end."""
    left = size
    while left > 0 and (data := reader.read(min(left, _BLOCK))):
        left -= len(data)
        yield data
