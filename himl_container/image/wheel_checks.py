"""What is asked of a wheel before it is laid out: that it is the one in the lock, that it fits, that it is harmless."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.environment.model import Lock, LockedWheel
from himl_container.errors import ArtifactError

if TYPE_CHECKING:
    from packaging.tags import Tag

_FILE_NAME = re.compile(r"[A-Za-z0-9_.+!-]+\.whl")
_GLIBC = re.compile(r"__glibc[=\s]+=?(\d+)\.(\d+)")
_ARCHITECTURES = {"linux-64": "x86_64", "linux-aarch64": "aarch64", "linux-ppc64le": "ppc64le"}
# PEP 600: the older names of three of its tags.
_LEGACY = {(2, 5): "manylinux1", (2, 12): "manylinux2010", (2, 17): "manylinux2014"}


def check_tags(wheel: LockedWheel, lock: Lock) -> None:
    """Raise unless the wheel is for the environment's Python and platform.

    :raises ArtifactError: it is for others, or its file name is none of a wheel.
    """
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

    if not _FILE_NAME.fullmatch(wheel.filename):
        raise ArtifactError("not the file name of a wheel", where=repr(wheel.filename))
    try:
        name, _, _, tags = parse_wheel_filename(wheel.filename)
    except InvalidWheelFilename as error:
        raise ArtifactError(f"not the file name of a wheel: {error}", where=wheel.filename) from error
    if name != canonicalize_name(wheel.name):
        raise ArtifactError(f"the file name is that of {name!r}, not of {wheel.name!r}", where=wheel.filename)
    if not tags & supported_tags(lock):
        raise ArtifactError(
            f"the wheel is for another platform or Python ({', '.join(sorted(map(str, tags)))}); the environment has "
            f"Python {lock.python_version} on {lock.platform}" + _glibc_text(lock),
            where=wheel.filename,
            hint="Build or download the wheel for this Python and platform.",
        )


def supported_tags(lock: Lock) -> frozenset[Tag]:
    """Return the tags (PEP 425) of the wheels that fit the environment."""
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = (int(part) for part in lock.python_version.split(".")[:2])
    platforms = _platforms(lock)
    interpreter = f"cp{major}{minor}"
    tags = [*cpython_tags((major, minor), abis=[interpreter], platforms=platforms)]
    tags += compatible_tags((major, minor), interpreter=interpreter, platforms=platforms)
    return frozenset(tags)


def _platforms(lock: Lock) -> list[str]:
    machine = _ARCHITECTURES.get(lock.platform, "unknown")
    glibc = _glibc(lock)
    platforms = []
    for minor in range(glibc[1], 4, -1) if glibc[0] == 2 else ():
        platforms.append(f"manylinux_2_{minor}_{machine}")
        legacy = _LEGACY.get((2, minor))
        if legacy:
            platforms.append(f"{legacy}_{machine}")
    return [*platforms, f"linux_{machine}"]


def _glibc(lock: Lock) -> tuple[int, int]:
    """Return the C library version that the lock assumes of the base image; an early one where it says none."""
    for text in lock.virtual_packages:
        found = _GLIBC.match(text)
        if found:
            return int(found[1]), int(found[2])
    return 2, 17


def _glibc_text(lock: Lock) -> str:
    major, minor = _glibc(lock)
    return f" with C library {major}.{minor}"


def check_file(wheel: LockedWheel, path: Path) -> None:
    """Raise unless a wheel file has the lock's hash and every name in it stays inside the environment.

    :raises ArtifactError: it is missing, another one, damaged or hostile.
    """
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    if total.hexdigest() != wheel.sha256:
        raise ArtifactError(
            f"is not the wheel that the lock names: sha256 is {total.hexdigest()}, expected {wheel.sha256}",
            where=str(path),
            hint="Run 'himl-container lock' when the wheel was changed on purpose.",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ArtifactError(f"not a wheel: {error}", where=str(path)) from error
    for name in names:
        if not is_inside(name):
            raise ArtifactError(f"the wheel has a path outside of the environment: {name!r}", where=wheel.filename)


def is_inside(name: str) -> bool:
    """Whether a name in a wheel stays inside the folder that it is unpacked to, on every system."""
    parts = name.replace("\\", "/").removesuffix("/").split("/")
    drive = ":" in parts[0][:2]
    return not drive and not any(part in ("", ".", "..") or "\0" in part for part in parts)
