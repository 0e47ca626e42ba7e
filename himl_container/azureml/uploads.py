"""Uploading many files at once, large ones in blocks.

A blob is there when it is whole: small ones are put in one request, blocks become a blob when all of them are there.
Blocks are named by place and content, so an upload that was cut continues with those that the storage still has (for a
week). Every request carries the MD5 of its bytes, and the blob keeps that of the whole, for those who download it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from himl_container.azureml.blob_library import blob_library
from himl_container.azureml.crew import Crew, Task
from himl_container.azureml.download_work import Count
from himl_container.azureml.failures import WrongValue
from himl_container.azureml.retry import retried, status_of
from himl_container.errors import AzureMLError
from himl_container.progress import Reporter, SilentReporter

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

T = TypeVar("T")
WORKERS = 8
BLOCK = 8 << 20
"""Bytes of a block, and of the largest file that is sent at once."""
_MOST_BLOCKS = 50_000
_CONFLICT, _THERE = 409, 412


@dataclass(frozen=True)
class Uploaded:
    """What was done. :param files: sent; :param kept: were there already; :param size: bytes that were sent."""

    files: int
    kept: int
    size: int


@dataclass
class _Large:
    """A file that goes in blocks. :param left: tasks that must be done before the blocks become a blob."""

    path: Path
    name: str
    before: os.stat_result
    ids: list[str]
    left: int
    known: frozenset[str]
    md5: bytes = b""
    lock: threading.Lock = field(default_factory=threading.Lock)


def upload_all(
    files: Sequence[tuple[Path, str]],
    container: ContainerClient,
    *,
    overwrite: bool,
    there: frozenset[str] = frozenset(),
    reporter: Reporter | None = None,
    workers: int = WORKERS,
) -> Uploaded:
    """Upload files to the names beside them.

    :param there: names that are known to be there; without ``overwrite`` they are not sent.
    :raises WrongValue: a file cannot be read, or changes while it is sent.
    :raises AzureMLError: the storage refused one. :raises ConnectionError: the network, after several tries.
    """
    crew = Crew(max(1, min(workers, len(files) * 4)))
    count = f"{len(files)} file" + ("" if len(files) == 1 else "s")
    with (reporter or SilentReporter()).step("upload", count, total=0, unit="bytes") as shown:
        work = _Work(container, crew, Count(shown), overwrite)
        tasks = []
        for path, name in files:
            if name in there and not overwrite:
                work.count.got(name, kept=True)
            else:
                tasks.append(functools.partial(work.begin, path, name))
        crew.work(tasks)
    return Uploaded(work.count.files, work.count.kept, work.count.size)


class _Work:
    def __init__(self, container: ContainerClient, crew: Crew, count: Count, overwrite: bool) -> None:
        self._container, self._crew, self.count, self._overwrite = container, crew, count, overwrite

    def begin(self, path: Path, name: str) -> Sequence[Task]:
        """Send a file, or return the tasks that send its blocks."""
        before = _stat(path)
        size = before.st_size
        self.count.expect(size)
        if size <= BLOCK:
            data = _read(path, 0, size)
            _check_unchanged(path, before)
            self._put(name, data)
            return ()
        block = max(BLOCK, -(-size // _MOST_BLOCKS))
        number = -(-size // block)
        known = self._retried(name, lambda: self._uncommitted(name))
        large = _Large(path, name, before, [""] * number, number + 1, known)
        blocks = [functools.partial(self._block, large, index, block) for index in range(number)]
        return [functools.partial(self._digest, large), *blocks]

    def _put(self, name: str, data: bytes) -> None:
        blob = self._container.get_blob_client(name)
        settings = blob_library().ContentSettings(
            content_md5=bytearray(hashlib.md5(data, usedforsecurity=False).digest())
        )
        self._unless_there(
            name,
            lambda: blob.upload_blob(
                data,
                length=len(data),
                overwrite=self._overwrite,
                validate_content=True,
                content_settings=settings,
            ),
        )
        self.count.came(len(data))

    def _uncommitted(self, name: str) -> frozenset[str]:
        """Return the blocks that an upload that was cut has left."""
        try:
            blocks = self._container.get_blob_client(name).get_block_list("uncommitted")[1]
        except Exception as error:
            if status_of(error) == 404:
                return frozenset()
            raise
        return frozenset(block.id for block in blocks)

    def _digest(self, large: _Large) -> Sequence[Task]:
        digest = hashlib.md5(usedforsecurity=False)
        with large.path.open("rb") as file:
            while chunk := file.read(1 << 20):
                self._crew.check()
                digest.update(chunk)
        large.md5 = digest.digest()
        self._done(large)
        return ()

    def _block(self, large: _Large, index: int, size: int) -> Sequence[Task]:
        data = _read(large.path, index * size, min(size, large.before.st_size - index * size))
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        name = f"{index:06d}-{digest}"
        large.ids[index] = name
        if name not in large.known and base64.b64encode(name.encode()).decode() not in large.known:
            blob = self._container.get_blob_client(large.name)
            self._retried(large.name, lambda: blob.stage_block(name, data, length=len(data), validate_content=True))
        self.count.came(len(data))
        self._done(large)
        return ()

    def _done(self, large: _Large) -> None:
        with large.lock:
            large.left -= 1
            if large.left:
                return
        _check_unchanged(large.path, large.before)
        from azure.core import MatchConditions

        library = blob_library()
        blob = self._container.get_blob_client(large.name)
        conditions: dict[str, Any] = {} if self._overwrite else {"match_condition": MatchConditions.IfMissing}
        blocks = [library.BlobBlock(block_id=name) for name in large.ids]
        settings = library.ContentSettings(content_md5=bytearray(large.md5))
        self._unless_there(large.name, lambda: blob.commit_block_list(blocks, content_settings=settings, **conditions))

    def _unless_there(self, name: str, action: Callable[[], object]) -> None:
        """Do what makes a blob; one that has come in the meantime stays, where it is not to be replaced."""
        try:
            self._retried(name, action)
        except Exception as error:
            if self._overwrite or status_of(error) not in (_CONFLICT, _THERE):
                raise
            self.count.got(name, kept=True)
            return
        self.count.got(name)

    def _retried(self, name: str, action: Callable[[], T]) -> T:
        return retried(f"uploading {name}", action, sleep=self._crew.pause)


def _stat(path: Path) -> os.stat_result:
    import stat

    try:
        found = path.stat()
    except OSError as error:
        raise WrongValue(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    if not stat.S_ISREG(found.st_mode):
        raise WrongValue("only files can be uploaded, and this is none", where=str(path))
    return found


def _read(path: Path, place: int, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(place)
            data = file.read(length)
    except OSError as error:
        raise WrongValue(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    if len(data) != length:
        raise _changed(path)
    return data


def _check_unchanged(path: Path, before: os.stat_result) -> None:
    after = _stat(path)
    if (after.st_size, after.st_mtime_ns, after.st_ino) != (before.st_size, before.st_mtime_ns, before.st_ino):
        raise _changed(path)


def _changed(path: Path) -> AzureMLError:
    return AzureMLError("the file changed while it was being uploaded", where=str(path), hint="Upload it again.")
