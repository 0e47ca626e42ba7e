"""Wheels and source distributions in a folder, as small as they may be."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from himl_container.environment.model import Origin, PrivateWheel


def add_wheel(
    folder: Path, name: str, version: str = "1.0", *, tag: str = "py3-none-any", requires: Sequence[str] = ()
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-{tag}.whl"
    requirements = "".join(f"Requires-Dist: {text}\n" for text in requires)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirements}"
        )
        archive.writestr(
            f"{stem}.dist-info/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
        )
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return path


def private_wheel(path: Path) -> PrivateWheel:
    name, version = path.name.split("-")[:2]
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return PrivateWheel(path, path.name, name.replace("_", "-"), version, digest, len(content), Origin("--wheel"))


def add_sdist(folder: Path, name: str, version: str = "1.0", *, files: Mapping[str, str] | None = None) -> Path:
    """Write a source distribution whose metadata only its own build backend, in the archive, can tell."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}.tar.gz"
    content = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
        "backend.py": "raise SystemExit('the build backend ran')\n",
        **(files or {}),
    }
    with tarfile.open(path, "w:gz") as archive:
        for filename, text in content.items():
            member = tarfile.TarInfo(f"{name}-{version}/{filename}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path
