"""Moving files between the blob storage and folders: in parallel, never whole in memory, and never out of the folder.

What a job wrote is as little to be trusted as the name of a blob: no link is followed, and nothing but regular files is
read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from himl_container.emulator.blobs import Blob, Blobs
from himl_container.emulator.data.resolve import DatasetFile
from himl_container.emulator.http import Refusal
from himl_container.emulator.state.paths import checked_path, write_below
from himl_container.errors import InputError, StorageError

WORKERS = 4
"""Files that are moved at the same time."""

_BLOCK = 1 << 20
_LONGEST_NAME = 1024
"""Characters of a blob's name."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class LocalFile:
    """A file below a folder. ``path`` is relative to it; ``size`` in bytes."""

    path: str
    size: int


def download(blobs: Blobs, files: Iterable[DatasetFile], folder: Path) -> int:
    """Lay files out in a folder; each is as long as the storage says, and has the digest that the storage knows.

    :return: how many there were.
    :raises InputError: a blob's name cannot be a path in the folder, or is a file and a folder; nothing is laid out.
    :raises StorageError: the storage or the disk fails, or a file is not what it should be.
    """
    wanted = tuple(files)
    _check_places(wanted)

    def fetch(file: DatasetFile) -> None:
        try:
            write_below(folder, file.place, _checked(blobs.stream(file.container, file.blob.name), file.blob))
        except FileNotFoundError:
            raise StorageError("the blob has gone while it was fetched", where=file.place) from None
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", where=file.place) from error
        except Refusal as error:
            raise InputError(error.message, where=ascii(file.place)) from None

    _each(fetch, wanted)
    return len(wanted)


def local_files(folder: Path) -> Iterator[LocalFile]:
    """Yield the regular files of a folder, by name.

    :raises InputError: there is something else, a link or a pipe, or a name that no blob can have.
    """
    for current, folders, names, descriptor in os.fwalk(folder, follow_symlinks=False):
        folders.sort()
        below = os.path.relpath(current, folder)
        for name in sorted(names):
            path = name if below == "." else f"{below}/{name}"
            info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if not stat.S_ISREG(info.st_mode):
                raise InputError("this is neither a file nor a folder, and is not uploaded", where=ascii(path))
            try:
                yield LocalFile(checked_path(path), info.st_size)
            except Refusal as error:
                raise InputError(error.message, where=ascii(path)) from None


def upload(blobs: Blobs, folder: Path, files: Iterable[LocalFile], container: str, prefix: str) -> int:
    """Upload files of a folder.

    :param prefix: what the blobs' names begin with, a folder without a slash at its end; empty for the root.
    :return: how many there were.
    :raises InputError: a blob's name would be too long, or a file has become something else.
    :raises StorageError: the storage fails, or a file cannot be read.
    """

    def store(file: LocalFile) -> None:
        name = f"{prefix}/{file.path}" if prefix else file.path
        if len(name) > _LONGEST_NAME:
            raise InputError(f"a blob's name has at most {_LONGEST_NAME} characters", where=ascii(name[:300]))
        try:
            with _opened(folder, file.path) as reader:
                blobs.put(container, name, iter(lambda: reader.read(_BLOCK), b""))
        except OSError as error:
            why = "it is a link" if error.errno == errno.ELOOP else error.strerror
            raise StorageError(f"cannot read: {why}", where=ascii(file.path)) from error

    return _each(store, files)


def is_stored(blobs: Blobs, container: str, blob: Blob, folder: Path, file: LocalFile) -> bool:
    """Whether a blob has the bytes of a file.

    :raises StorageError: the storage fails, or the file cannot be read.
    """
    if blob.size != file.size:
        return False
    try:
        with _opened(folder, file.path) as reader:
            return all(reader.read(len(chunk)) == chunk for chunk in blobs.stream(container, blob.name))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=ascii(file.path)) from error


def _each(function: Callable[[_Item], None], items: Iterable[_Item]) -> int:
    """Call a function for each of many items, some at the same time; the first error ends it."""
    count, items = 0, iter(items)
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="data") as pool:
        # A window of work, so that a million files are not a million futures.
        running = [pool.submit(function, item) for item in islice(items, WORKERS * 4)]
        try:
            while running:
                running.pop(0).result()
                count += 1
                running += [pool.submit(function, item) for item in islice(items, 1)]
        except BaseException:
            for future in running:
                future.cancel()
            raise
    return count


def _check_places(files: tuple[DatasetFile, ...]) -> None:
    """Look at all places before the first file is written.

    :raises InputError: one is no path below a folder, or a file lies where another one's folder is.
    """
    places = set()
    for file in files:
        try:
            if checked_path(file.place) != file.place:
                raise InputError("a blob with this name cannot be laid out as a file", where=ascii(file.place))
        except Refusal as error:
            raise InputError(f"a blob's name cannot be a file's: {error.message}", where=ascii(file.place)) from None
        places.add(file.place)
    for place in places:
        parts = place.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in places:
                raise InputError("two blobs need this name, once as a file and once as a folder", where=ascii(place))


def _checked(chunks: Iterator[bytes], blob: Blob) -> Iterator[bytes]:
    """Pass a blob's bytes on; at its end, find out whether they are all there.

    :raises StorageError: they are not.
    """
    size, digest = 0, hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        size += len(chunk)
        digest.update(chunk)
        yield chunk
    if size != blob.size:
        raise StorageError(f"the blob has {blob.size} bytes, and {size} came", where=ascii(blob.name))
    if blob.md5 and digest.digest() != blob.md5:
        raise StorageError("the blob's bytes are not those that were stored: their digest differs", where=blob.name)


@contextmanager
def _opened(folder: Path, path: str) -> Iterator[BinaryIO]:
    """Open a file below a folder for reading, without following any link on the way.

    :raises InputError: it is no regular file.
    """
    *parents, name = path.split("/")
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parents:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        # Without O_NONBLOCK, a pipe that took a file's place would hold us for ever.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
        with os.fdopen(descriptor, "rb") as reader:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError("this is no regular file, and is not uploaded", where=ascii(path))
            yield reader
    finally:
        os.close(here)
