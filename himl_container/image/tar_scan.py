"""Reading back what is in a layer of the store, without reading its contents.

A layer may hold tens of thousands of files and gigabytes; ``tarfile`` takes seconds for that. This reads headers only,
of the kind that :mod:`himl_container.image.tar` writes (POSIX ustar with pax records for what does not fit).
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from himl_container.errors import BuildError

_BLOCK = 512
_KINDS: dict[bytes, Literal["file", "link", "folder"]] = {b"0": "file", b"\0": "file", b"2": "link", b"5": "folder"}


class Member(NamedTuple):
    """One entry: its path (no slash at either end), and where its content lies in the archive."""

    path: str
    kind: Literal["file", "link", "folder"]
    offset: int
    size: int
    target: str


@contextlib.contextmanager
def opened(path: Path) -> Iterator[mmap.mmap]:
    """Yield the content of an archive.

    :raises BuildError: it cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except (OSError, ValueError) as error:
        raise _damaged(str(path), str(error)) from error


def members(data: mmap.mmap | bytes) -> Iterator[Member]:
    """Yield the files, symbolic links and folders of an archive, in its order.

    :raises BuildError: it is no tar archive, or is cut off.
    """
    at, pax = 0, dict[str, str]()
    while at + _BLOCK <= len(data):
        header = data[at : at + _BLOCK]
        if not header[0]:
            return
        if header[257:262] != b"ustar":
            raise _damaged("layer", "not a tar archive")
        size = int(pax.get("size", 0)) or int(header[124:135] or b"0", 8)
        kind, offset = header[156:157], at + _BLOCK
        at = offset + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        if at > len(data):
            raise _damaged("layer", "cut off")
        if kind == b"x":
            pax = _pax(data[offset : offset + size])
            continue
        if kind in _KINDS:
            path = pax.get("path") or _name(header)
            target = pax.get("linkpath") or _text(header[157:257])
            yield Member(path.strip("/"), _KINDS[kind], offset, size, target)
        pax = {}


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _pax(records: bytes) -> dict[str, str]:
    """Read ``<length> <key>=<value>`` lines; the length counts the whole line."""
    found = {}
    while records:
        length, _, _ = records.partition(b" ")
        line, records = records[: int(length)], records[int(length) :]
        key, _, value = line[len(length) + 1 : -1].partition(b"=")
        found[key.decode()] = value.decode("utf-8", "surrogateescape")
    return found


def _damaged(where: str, why: str) -> BuildError:
    return BuildError(
        f"a layer of the cache cannot be read: {why}",
        where=where,
        hint="Run the command again; 'himl-container cache prune' removes what is damaged.",
    )
