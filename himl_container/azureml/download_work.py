"""How a file is fetched: at once, or in parts by several threads, continuing what an earlier try has left."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from himl_container.azureml.blob_reader import LARGEST_CHECKED, BlobReader, ChangedFile, Facts, Piece
from himl_container.azureml.crew import Crew, Task
from himl_container.azureml.failures import WrongValue
from himl_container.azureml.partial_file import PartialFile, discard_partial, open_partial, partial_path
from himl_container.azureml.remote_files import RemoteFile, local_path
from himl_container.azureml.retry import retried
from himl_container.progress import Task as Shown

T = TypeVar("T")
_log = logging.getLogger(__name__)

PART = 8 << 20
"""Bytes of a part; those that are compared with their MD5 are smaller (:data:`LARGEST_CHECKED`)."""
TRIES = 3
"""How often a large file may change while it is being fetched."""


class Count:
    """Numbers that several threads add to, and the bar that shows them."""

    def __init__(self, shown: Shown) -> None:
        self.files = self.kept = self.size = self._total = 0
        self._shown, self._lock = shown, threading.Lock()

    def expect(self, size: int) -> None:
        """So many more bytes are to come."""
        with self._lock:
            self._total += size
            self._shown.advance(0, total=self._total)

    def came(self, size: int) -> None:
        """So many bytes have come; fewer than none where they have to come again."""
        with self._lock:
            self.size += size
            self._shown.advance(size)

    def got(self, name: str, *, kept: bool = False) -> None:
        """A file is whole. :param kept: it was there already."""
        with self._lock:
            self.kept += kept
            self.files += not kept
            self._shown.note(name)


@dataclass
class _Large:
    """A file that comes in parts. :param left: parts that are still to come."""

    file: RemoteFile
    target: Path
    facts: Facts
    partial: PartialFile
    left: int
    tries: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: bool = False


class DownloadWork:
    """The tasks of a download.

    :param overwrite: replace files that are there, if they are not the same.
    :param check: compare what comes with the MD5 that the storage tells of each part.
    """

    def __init__(self, folder: Path, crew: Crew, shown: Shown, *, overwrite: bool, check: bool) -> None:
        self._folder, self._crew, self._overwrite, self._check = folder, crew, overwrite, check
        self._part = LARGEST_CHECKED if check else PART
        self._reader = BlobReader(crew.workers)
        self._open: set[PartialFile] = set()
        self._opened = threading.Lock()
        self.count = Count(shown)

    def close(self) -> None:
        """Close connections and files, when no task is under way any more."""
        self._reader.close()
        for partial in list(self._open):
            partial.close()

    def begin(self, file: RemoteFile, tries: int = TRIES) -> Sequence[Task]:
        """Fetch a file, or its first part; return the tasks that fetch the others."""
        target = local_path(self._folder, file.name)
        if target.is_dir():
            raise WrongValue(f"{file.name!r} cannot be downloaded: there is a folder of that name.", where=str(target))
        there = target.is_file()
        if there and not self._overwrite:
            self.count.got(file.name, kept=True)
            return ()
        target.parent.mkdir(parents=True, exist_ok=True)
        if there or partial_path(target).exists():
            facts = self._retried(file, lambda: self._facts(file))
            if there and self._same(target, facts):
                self.count.got(file.name, kept=True)
                return ()
            if facts.size > self._part:
                return self._parts(file, target, facts, tries)
        return self._retried(file, lambda: self._first(file, target, tries))

    def _facts(self, file: RemoteFile) -> Facts:
        with self._reader.read(file, 0, 1) as piece:
            return piece.facts

    def _same(self, target: Path, facts: Facts) -> bool:
        """Whether a file that is there has the content that would be fetched."""
        found = target.stat()
        if found.st_size != facts.size:
            return False
        if self._check:
            return bool(facts.md5) and _md5(target) == facts.md5
        return bool(facts.modified) and found.st_mtime == facts.modified

    def _first(self, file: RemoteFile, target: Path, tries: int) -> Sequence[Task]:
        """Fetch a file's first part, with which most files are whole."""
        with self._reader.read(file, 0, self._part, check=self._check) as piece:
            if piece.facts.size <= piece.length:
                self._whole(file, target, piece)
                return ()
            return self._parts(file, target, piece.facts, tries, piece)

    def _whole(self, file: RemoteFile, target: Path, piece: Piece) -> None:
        self.count.expect(piece.length)
        temporary = target.with_name(f".himl-{uuid.uuid4().hex}.part")
        came = 0
        try:
            with temporary.open("xb") as output:
                for chunk in piece.chunks(check=self._check):
                    self._crew.check()
                    output.write(chunk)
                    came += len(chunk)
                    self.count.came(len(chunk))
            if piece.facts.modified:
                os.utime(temporary, (piece.facts.modified, piece.facts.modified))
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            self.count.came(-came)
            self.count.expect(-piece.length)
            raise
        discard_partial(target)
        self.count.got(file.name)

    def _parts(
        self, file: RemoteFile, target: Path, facts: Facts, tries: int, first: Piece | None = None
    ) -> Sequence[Task]:
        partial = open_partial(target, facts, self._part)
        with self._opened:
            self._open.add(partial)
        missing = partial.missing
        if len(missing) * self._part < facts.size:
            _log.info("%s: continued, %d parts are missing.", file.name, len(missing))
        large = _Large(file, target, facts, partial, len(missing), tries)
        self.count.expect(sum(partial.part(index)[1] for index in missing))
        if first is not None and missing[:1] == [0]:
            # Its bytes are under way already. A try that fails is followed by one for the part alone.
            with contextlib.suppress(ConnectionError):
                self._take(large, 0, first)
                missing = missing[1:]
                if self._arrived(large, 0):
                    return ()
        if not missing and large.left == 0:
            self._finish(large)
        return [functools.partial(self._one, large, index) for index in missing]

    def _one(self, large: _Large, index: int) -> Sequence[Task]:
        if large.over:
            return ()
        place, length = large.partial.part(index)

        def fetch() -> None:
            with self._reader.read(large.file, place, length, etag=large.facts.etag, check=self._check) as piece:
                if piece.facts.size != large.facts.size or piece.length != length:
                    raise ChangedFile(f"{large.file.name} was changed while it was being downloaded")
                self._take(large, index, piece)

        try:
            self._retried(large.file, fetch)
        except ChangedFile:
            return self._again(large)
        self._arrived(large, index)
        return ()

    def _take(self, large: _Large, index: int, piece: Piece) -> None:
        place, came = large.partial.part(index)[0], 0
        try:
            for chunk in piece.chunks(check=self._check):
                self._crew.check()
                large.partial.write(place + came, chunk)
                came += len(chunk)
                self.count.came(len(chunk))
        except BaseException:
            self.count.came(-came)
            raise
        large.partial.arrived(index)

    def _arrived(self, large: _Large, index: int) -> bool:
        """Count a part; give the file its name where it was the last. Return whether it was."""
        with large.lock:
            large.left -= 1
            if large.left or large.over:
                return False
        self._finish(large)
        return True

    def _finish(self, large: _Large) -> None:
        large.partial.finish(large.target)
        self._shut(large.partial)
        self.count.got(large.file.name)

    def _again(self, large: _Large) -> Sequence[Task]:
        """Begin a file anew that is not the same any more; what other threads do for it comes to nothing."""
        with large.lock:
            if large.over:
                return ()
            large.over = True
        if large.tries <= 1:
            raise ChangedFile(
                f"{large.file.name} changes again and again while it is being downloaded",
                hint="Wait until the run that writes it has ended.",
            )
        large.partial.abandon()
        return [functools.partial(self.begin, large.file, large.tries - 1)]

    def _shut(self, partial: PartialFile) -> None:
        with self._opened:
            self._open.discard(partial)
        partial.close()

    def _retried(self, file: RemoteFile, action: Callable[[], T]) -> T:
        return retried(f"downloading {file.name}", action, sleep=self._crew.pause)


def _md5(path: Path) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()
