"""A file of which some parts have arrived, in any order, by this process or one that was killed.

The parts lie where they belong. Behind the place of the last byte there is a note: of which content they are (entity
tag, size) and which are there. It is cut off when the file gets its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from pathlib import Path

from himl_container.azureml.blob_reader import Facts

_MAGIC = b"himl-container partial file 1\n"


class PartialFile:
    """Open it with :func:`open_partial`. Different threads may write different parts."""

    def __init__(self, path: Path, handle: int, facts: Facts, part_size: int, *, private: bool) -> None:
        self._path, self._handle, self._private = path, handle, private
        self._facts, self._part_size = facts, part_size
        self._count = -(-facts.size // part_size)
        document = json.dumps({"etag": facts.etag, "size": facts.size, "part": part_size}).encode()
        self._header = _MAGIC + document + b"\n"
        self.missing = self._read_missing()
        self._left = len(self.missing)

    def part(self, index: int) -> tuple[int, int]:
        """Return the place of a part's first byte, and its length."""
        first = index * self._part_size
        return first, min(self._part_size, self._facts.size - first)

    def write(self, place: int, data: bytes) -> None:
        """Write bytes of a part that :meth:`arrived` was not called for yet."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._handle, view, place)
            view, place = view[written:], place + written

    def arrived(self, index: int) -> None:
        """Note that a part is whole."""
        os.pwrite(self._handle, b"1", self._facts.size + len(self._header) + index)

    def finish(self, target: Path) -> None:
        """Give the file its name, and the time at which its content was last changed."""
        os.ftruncate(self._handle, self._facts.size)
        if self._facts.modified:
            os.utime(self._path, (self._facts.modified, self._facts.modified))
        os.replace(self._path, target)

    def abandon(self) -> None:
        """Take its name away: what it is a part of is not there any more. Other threads may go on writing to it."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def close(self) -> None:
        """Close it; what has arrived stays, unless nobody could find it again."""
        if self._private:
            self.abandon()
        os.close(self._handle)

    def _read_missing(self) -> list[int]:
        """Return the parts that are not there; begin anew where the note is of another content, or damaged."""
        note = os.pread(self._handle, len(self._header) + self._count, self._facts.size)
        flags = note[len(self._header) :]
        if self._facts.etag and note.startswith(self._header) and len(flags) == self._count:
            return [index for index, flag in enumerate(flags) if flag != ord("1")]
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, self._header + b"0" * self._count, self._facts.size)
        return list(range(self._count))


def partial_path(target: Path) -> Path:
    """Return where the parts of a file are until it is whole: beside it, hidden, with a name that is never too long."""
    return target.with_name(f".{hashlib.sha256(target.name.encode()).hexdigest()[:24]}.himl-part")


def open_partial(target: Path, facts: Facts, part_size: int) -> PartialFile:
    """Open the parts of a file that an earlier try has left, or begin.

    Where another process is at it, the parts are written to a place of their own, and go if the file does not become
    whole.
    """
    path = partial_path(target)
    handle = _locked(path)
    if handle is not None:
        return PartialFile(path, handle, facts, part_size, private=False)
    path = path.with_name(f"{path.name}-{uuid.uuid4().hex[:12]}")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    return PartialFile(path, handle, facts, part_size, private=True)


def discard_partial(target: Path) -> None:
    """Remove what an earlier try has left of a file, unless another process is at it."""
    path = partial_path(target)
    if path.exists() and (handle := _locked(path)) is not None:
        path.unlink(missing_ok=True)
        os.close(handle)


def _locked(path: Path) -> int | None:
    """Open a file, or make it, and keep others from it; None where another one does."""
    import fcntl

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        if _is_at(handle, path):
            return handle
        os.close(handle)  # it got its final name between opening and locking


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
