"""Archives as streams of chunks, so that an image of many gigabytes travels without a copy on disk or in memory."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from himl_container.errors import BuildError
from himl_container.image.model import EPOCH

CHUNK = 1 << 20
"""Bytes read from a file at a time: large enough to be fast, small enough to be nothing."""


def data_entry(name: str, data: bytes) -> bytes:
    """Return the entry of a small file."""
    return _header(name, len(data)) + data + _padding(len(data))


def file_entry(name: str, path: Path, size: int, sent: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the entry of a file of known size; ``sent`` is told the length of each piece of its content.

    :raises BuildError: the file is gone, or has another size by now: a cache that somebody emptied meanwhile.
    """
    try:
        with open(path, "rb") as file:
            yield _header(name, size)
            left = size
            while left and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                sent(len(chunk))
                yield chunk
            if left or file.read(1):
                raise _damaged(path, "has another size than recorded")
            yield _padding(size)
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error


def end() -> bytes:
    """Return the two empty blocks that end an archive."""
    return bytes(1024)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o644, EPOCH
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % 512)


def _damaged(path: Path, why: str) -> BuildError:
    return BuildError(
        f"a layer cannot be read: {why}",
        where=str(path),
        hint="Something else changed the cache meanwhile; run the command again.",
    )
