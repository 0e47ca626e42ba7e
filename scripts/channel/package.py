"""Writing Conda packages, in both formats, the same bytes for the same content.

The formats are described in Conda's documentation ("Package specification") and in CEP 34; ``paths.json`` in its
"Package metadata" page.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import zstandard

PLACEHOLDER = ("/opt/himl-placeholder-" + "himl-" * 60)[:255]
"""The prefix that an installer replaces. 255 characters: a binary has room for any prefix that is not longer."""

EPOCH = 946684800  # 2000-01-01: zip, the outer format of .conda, cannot express times before 1980
_ZIP_TIME = (2000, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Entry:
    """One path of a package.

    :param prefix: whether ``PLACEHOLDER`` occurs in the data and how it is to be replaced.
    :param link: target of a symbolic link; None for a file.
    """

    path: str
    data: bytes = b""
    mode: int = 0o644
    prefix: Literal["", "text", "binary"] = ""
    link: str | None = None


@dataclass(frozen=True)
class Package:
    """One Conda package.

    :param entries: what it installs. Of a ``noarch="python"`` package, modules are below ``site-packages/``.
    :param entry_points: console scripts (``name = module:function``) of a ``noarch="python"`` package.
    :param legacy: write ``.tar.bz2`` instead of ``.conda``.
    """

    name: str
    version: str
    entries: Sequence[Entry] = ()
    depends: Sequence[str] = ()
    constrains: Sequence[str] = ()
    build: str = "0"
    noarch: Literal["", "generic", "python"] = ""
    subdir: str = "noarch"
    entry_points: Sequence[str] = ()
    legacy: bool = False
    license: str = "MIT"
    extra_index: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """The archive's name."""
        return f"{self.name}-{self.version}-{self.build}" + (".tar.bz2" if self.legacy else ".conda")


def write_channel(packages: Sequence[Package], channel: Path) -> None:
    """Write the archives and the index (``repodata.json``, ``repodata.json.zst``) into the folder ``channel``.

    The index is written here and not by an indexing tool, which would put the present time into it.
    """
    for subdir in ("linux-64", "noarch"):
        (channel / subdir).mkdir(parents=True)
        index: dict[str, Any] = {
            "info": {"subdir": subdir},
            "repodata_version": 1,
            "packages": {},
            "packages.conda": {},
        }
        for package in (p for p in packages if p.subdir == subdir):
            data = archive_bytes(package)
            (channel / subdir / package.file_name).write_bytes(data)
            index["packages" if package.legacy else "packages.conda"][package.file_name] = {
                **_index(package),
                "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
            }
        text = _json(index)
        (channel / subdir / "repodata.json").write_bytes(text)
        (channel / subdir / "repodata.json.zst").write_bytes(zstandard.ZstdCompressor(level=9).compress(text))


def archive_bytes(package: Package) -> bytes:
    """Return the package's archive."""
    info = _info_entries(package)
    return bz2.compress(_tar([*info, *package.entries])) if package.legacy else _conda(package, info)


def _conda(package: Package, info: Sequence[Entry]) -> bytes:
    stem = package.file_name.removesuffix(".conda")
    compress = zstandard.ZstdCompressor(level=9).compress
    parts = {
        "metadata.json": _json({"conda_pkg_format_version": 2}),
        f"pkg-{stem}.tar.zst": compress(_tar(package.entries)),
        f"info-{stem}.tar.zst": compress(_tar(info)),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), data)
    return buffer.getvalue()


def _index(package: Package) -> dict[str, Any]:
    index: dict[str, Any] = {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": 0,
        "depends": sorted(package.depends),
        "constrains": sorted(package.constrains),
        "license": package.license,
        "subdir": package.subdir,
        "timestamp": EPOCH * 1000,
        **package.extra_index,
    }
    if package.noarch:
        index["noarch"] = package.noarch
    else:
        index |= {"arch": "x86_64", "platform": "linux"}
    return index


def _info_entries(package: Package) -> list[Entry]:
    about = {"license": package.license, "summary": f"{package.name}, made on this machine"}
    entries = [
        Entry("info/index.json", _json(_index(package))),
        Entry("info/paths.json", _json({"paths": [_path(e) for e in _sorted(package.entries)], "paths_version": 1})),
        Entry("info/files", "".join(f"{e.path}\n" for e in _sorted(package.entries)).encode()),
        Entry("info/about.json", _json(about)),
    ]
    with_prefix = [e for e in _sorted(package.entries) if e.prefix]
    if with_prefix:
        lines = "".join(f'"{PLACEHOLDER}" {e.prefix} "{e.path}"\n' for e in with_prefix)
        entries.append(Entry("info/has_prefix", lines.encode()))
    if package.noarch == "python":
        noarch = {"type": "python", "entry_points": list(package.entry_points)}
        entries.append(Entry("info/link.json", _json({"noarch": noarch, "package_metadata_version": 1})))
    return entries


def _path(entry: Entry) -> dict[str, Any]:
    if entry.link is not None:
        empty = hashlib.sha256(b"").hexdigest()
        return {"_path": entry.path, "path_type": "softlink", "sha256": empty, "size_in_bytes": 0}
    record: dict[str, Any] = {
        "_path": entry.path,
        "path_type": "hardlink",
        "sha256": hashlib.sha256(entry.data).hexdigest(),
        "size_in_bytes": len(entry.data),
    }
    if entry.prefix:
        record |= {"file_mode": entry.prefix, "prefix_placeholder": PLACEHOLDER}
    return record


def _tar(entries: Sequence[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for entry in _sorted(entries):
            member = tarfile.TarInfo(entry.path)
            member.mtime = EPOCH
            member.mode = entry.mode
            if entry.link is not None:
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.link, 0o777
            member.size = len(entry.data)
            archive.addfile(member, io.BytesIO(entry.data))
    return buffer.getvalue()


def _sorted(entries: Sequence[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.path)


def _json(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()
