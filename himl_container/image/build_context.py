"""A build context as a stream: what ``docker build`` would send, without a second copy of its gigabytes on disk."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from himl_container.errors import InputError
from himl_container.image.model import EPOCH
from himl_container.image.tar_stream import CHUNK, end


def context_stream(folder: Path, dockerfile: str) -> Iterator[bytes]:
    """Yield the tar archive of a context folder, without what its ``.dockerignore`` excludes.

    :raises InputError: the folder has no such Dockerfile, or a file cannot be read.
    """
    from docker.utils.build import exclude_paths

    if not (folder / dockerfile).is_file():
        raise InputError("there is no such Dockerfile", where=str(folder / dockerfile))
    patterns = _patterns(folder / ".dockerignore")
    for name in sorted(exclude_paths(str(folder), patterns, dockerfile=dockerfile)):
        yield from _entry(folder / name, name)
    yield end()


def _patterns(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _entry(path: Path, name: str) -> Iterator[bytes]:
    try:
        status = path.lstat()
        entry = tarfile.TarInfo(name.replace(os.sep, "/"))
        entry.mode, entry.mtime = stat.S_IMODE(status.st_mode), EPOCH
        if stat.S_ISLNK(status.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
        elif stat.S_ISDIR(status.st_mode):
            entry.type = tarfile.DIRTYPE
        elif stat.S_ISREG(status.st_mode):
            entry.size = status.st_size
        else:
            return  # a socket or a pipe means nothing to a build
        yield entry.tobuf(tarfile.PAX_FORMAT)
        if entry.size:
            yield from _content(path, entry.size)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", where=str(path)) from error


def _content(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with open(path, "rb") as file:
        while left and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
    if left:
        raise InputError("the file became shorter while it was read", where=str(path))
    yield bytes(-size % 512)
