"""Conda channels in a folder, made of the smallest packages that a solver and an indexer take."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import zstandard


def add_package(
    channel: Path,
    name: str,
    version: str = "1.0",
    build: str = "0",
    *,
    depends: Sequence[str] = (),
    constrains: Sequence[str] = (),
    noarch: str = "",
) -> Path:
    """Write an empty package; the channel has to be indexed afterwards."""
    subdir = "noarch" if noarch else "linux-64"
    index = {
        "name": name,
        "version": version,
        "build": build,
        "build_number": 0,
        "depends": list(depends),
        "constrains": list(constrains),
        "subdir": subdir,
        "license": "MIT",
        "timestamp": 1_700_000_000_123,
        **({"noarch": noarch} if noarch else {}),
    }
    stem = f"{name}-{version}-{build}"
    (channel / subdir).mkdir(parents=True, exist_ok=True)
    path = channel / subdir / f"{stem}.conda"
    info = {"info/index.json": json.dumps(index), "info/paths.json": '{"paths": [], "paths_version": 1}'}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
        archive.writestr(f"pkg-{stem}.tar.zst", _tar({}))
        archive.writestr(f"info-{stem}.tar.zst", _tar(info))
    return path


def index(channel: Path) -> str:
    """Index a channel and return its address."""
    from rattler.index import index_fs

    (channel / "noarch").mkdir(parents=True, exist_ok=True)
    asyncio.run(index_fs(channel))
    return channel.as_uri()


def _tar(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return zstandard.compress(buffer.getvalue())
