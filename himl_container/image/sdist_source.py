"""Unpacking a source distribution and reading how it wants to be built. What is in it is not trusted."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himl_container.errors import BuildError

_MAX_BYTES = 4 << 30
_MAX_MEMBERS = 500_000


@dataclass(frozen=True)
class BuildSystem:
    """``[build-system]`` of a ``pyproject.toml``; without one, setuptools as pip calls it (PEP 517).

    :param requires: PEP 508 requirements of the build.
    :param path: folders in the source that hold the backend.
    """

    requires: tuple[str, ...] = ("setuptools>=40.8.0",)
    backend: str = "setuptools.build_meta:__legacy__"
    path: tuple[str, ...] = ()


def unpack(sdist: Path, target: Path) -> Path:
    """Unpack into an empty folder and return the one folder that the archive holds.

    :raises BuildError: it is no archive, has a member that leads out of it, or is absurdly large.
    """
    try:
        if sdist.name.endswith(".zip"):
            _unpack_zip(sdist, target)
        else:
            _unpack_tar(sdist, target)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BuildError(f"the source distribution cannot be unpacked: {error}", where=sdist.name) from error
    found = [entry for entry in target.iterdir() if entry.is_dir() and not entry.is_symlink()]
    if len(found) != 1:
        raise BuildError("the source distribution does not hold exactly one folder", where=sdist.name)
    return found[0]


def _unpack_tar(sdist: Path, target: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise BuildError(
            f"Python {sys.version.split()[0]} cannot unpack an untrusted archive safely",
            where=sdist.name,
            hint="Update to a later patch release of this Python (3.10.12, 3.11.4).",
        )
    with tarfile.open(sdist) as archive:
        _check_size([member.size for member in archive])
        archive.extractall(target, filter="data")


def _unpack_zip(sdist: Path, target: Path) -> None:
    with zipfile.ZipFile(sdist) as archive:
        _check_size([info.file_size for info in archive.infolist()])
        for name in archive.namelist():
            if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
                raise ValueError(f"{name!r} leads out of the archive")
        archive.extractall(target)  # noqa: S202 - names are checked, and zipfile makes no links


def _check_size(sizes: list[int]) -> None:
    if len(sizes) > _MAX_MEMBERS or sum(sizes) > _MAX_BYTES:
        raise ValueError(f"it holds {len(sizes)} members of {sum(sizes)} bytes, which is more than any source needs")


def build_system(source: Path) -> BuildSystem:
    """Return how a source wants to be built.

    :raises BuildError: its ``pyproject.toml`` is malformed.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    path = source / "pyproject.toml"
    if path.is_symlink() or not path.is_file():
        return BuildSystem()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("build-system")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BuildError(f"pyproject.toml is malformed: {error}", where=source.name) from error
    if table is None:
        return BuildSystem()
    if not isinstance(table, dict) or "requires" not in table:
        raise BuildError("[build-system] has no 'requires'", where=source.name)
    backend = table.get("build-backend", BuildSystem.backend)
    if not isinstance(backend, str):
        raise BuildError("'build-backend' is not a string", where=source.name)
    return BuildSystem(_texts(table["requires"], source), backend, _texts(table.get("backend-path", []), source))


def _texts(value: Any, source: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BuildError("[build-system] has a list that is not one of strings", where=source.name)
    return tuple(value)
