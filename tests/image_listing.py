"""The file system of an image as plain data, so that two images can be compared entry by entry."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping
from typing import IO, Any, NamedTuple, cast

import docker


class Item(NamedTuple):
    """One path: everything of it but its times."""

    kind: bytes
    mode: int
    owner: tuple[int, int]
    target: str
    content: str


def listing(image: str, environ: Mapping[str, str] | None = None) -> dict[str, Item]:
    """Return every path of an image. Files that Docker itself puts into each container are left out.

    :param environ: the variables that choose the daemon.
    """
    client = docker.from_env(timeout=300, environment=dict(environ) if environ else None)
    container = client.containers.create(image, command=["true"])
    try:
        stream = _Stream(container.export(chunk_size=1 << 20))
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as archive:
            return {member.name: _item(archive, member) for member in archive if member.name not in _DOCKERS_OWN}
    finally:
        container.remove(force=True)
        client.close()


_DOCKERS_OWN = {".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"}


def _item(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Item:
    file = archive.extractfile(member) if member.isreg() else None
    content = hashlib.sha256(file.read()).hexdigest() if file else ""
    # Older engines write the kind of the file into the mode too.
    return Item(member.type, member.mode & 0o7777, (member.uid, member.gid), member.linkname, content)


class _Stream:
    def __init__(self, chunks: Any) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        parts = [self._rest]
        have = len(self._rest)
        while have < size and (chunk := next(self._chunks, None)) is not None:
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]
