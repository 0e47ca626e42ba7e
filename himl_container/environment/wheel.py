"""Private wheels: what a file says it is, and whether it is safe to lay out.

The file is untrusted input. Format: PyPA specifications, "Binary distribution format" (PEP 427) and "Platform
compatibility tags". Nothing is unpacked here.
"""

from __future__ import annotations

import hashlib
import re
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.environment.model import Origin, PrivateWheel
from himl_container.errors import InputError

if TYPE_CHECKING:
    from packaging.tags import Tag

_DRIVE = re.compile(r"[A-Za-z]:")
_SCHEMES = frozenset({"purelib", "platlib", "headers", "scripts", "data"})
_LARGEST_METADATA = 10_000_000  # bytes
_MOST_ENTRIES = 1_000_000
_ARCHITECTURES = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}
# Older names of manylinux tags with the glibc that they stand for (PEP 513, 571, 599).
_LEGACY = ((17, "manylinux2014"), (12, "manylinux2010"), (5, "manylinux1"))


def inspect_wheel(path: Path, *, origin: Origin) -> PrivateWheel:
    """Return what a wheel file is, after looking at its name, its metadata and the name of every entry.

    :raises InputError: it is missing, no wheel, damaged, not what its name says, or has an entry that would be laid out
        outside of its place.
    """
    where = str(path)
    name, version = _file_name(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError("is not a regular file", where=where)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
            size = file.tell()
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                info = _check_entries(archive.infolist(), name, version, where)
                _check_metadata(archive, info, name, version, where)
    except FileNotFoundError as error:
        raise InputError("there is no such wheel", where=where, hint=f"It is named by {origin}.") from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        hint = "Build or download it again."
        raise InputError(f"is not a whole wheel: {error}", where=where, hint=hint) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot be read: {error}", where=where) from error
    return PrivateWheel(path, path.name, name, version, digest.hexdigest(), size, origin)


def check_tags(filename: str, python_version: str, platform: str, glibc: str, *, where: str = "") -> None:
    """Check that a wheel can be installed for a Python, a platform and a C library.

    :param python_version: of the environment (``3.11`` or ``3.11.7``).
    :param platform: Conda subdir, ``linux-64`` or ``linux-aarch64``.
    :param where: the place for the error; the file name by default.
    :raises InputError: none of its tags fits; says which side does not.
    """
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        tags = parse_wheel_filename(filename)[3]
    except InvalidWheelFilename as error:
        raise InputError(f"is not the name of a wheel: {error}", where=where or filename) from error
    allowed = set(supported_tags(python_version, platform, glibc))
    if tags & allowed:
        return
    platforms = {tag.platform for tag in allowed}
    wanted = ", ".join(sorted({tag.platform for tag in tags}))
    if not any(tag.platform in platforms for tag in tags):
        what = f"was built for {wanted}; the image is {platform} with glibc {glibc}"
    else:
        shown = sorted({f"{tag.interpreter}-{tag.abi}" for tag in tags})
        what = f"was built for {', '.join(shown)}; the environment has Python {python_version}"
    raise InputError(what, where=where or filename, hint="Build the wheel for this environment.")


def supported_tags(python_version: str, platform: str, glibc: str) -> Iterable[Tag]:
    """Return the tags that an environment accepts, the best ones first."""
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = (int(part) for part in python_version.split(".")[:2])
    architecture = _ARCHITECTURES[platform]
    newest = int(glibc.split(".")[1])
    platforms: list[str] = []
    for release in range(newest, 4, -1):
        platforms.append(f"manylinux_2_{release}_{architecture}")
        platforms += [f"{legacy}_{architecture}" for number, legacy in _LEGACY if number == release]
    platforms.append(f"linux_{architecture}")
    yield from cpython_tags((major, minor), [f"cp{major}{minor}"], platforms)
    yield from compatible_tags((major, minor), f"cp{major}{minor}", platforms)


def _digest(file: object) -> hashlib._Hash:
    """Return the digest as ``hashlib.file_digest`` of Python 3.11 does."""
    result = hashlib.sha256()
    while chunk := file.read(1 << 20):  # type: ignore[attr-defined]
        result.update(chunk)
    return result


def _file_name(path: Path) -> tuple[str, str]:
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    if not path.name.isprintable():
        raise InputError(f"the file name {path.name!r} has control characters in it", where=repr(str(path)))
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        hint = "A wheel is called name-version-python-abi-platform.whl; do not rename it."
        raise InputError(f"is not the name of a wheel: {error}", where=str(path), hint=hint) from error
    return str(name), str(version)


def _check_entries(entries: list[zipfile.ZipInfo], name: str, version: str, where: str) -> str:
    """Check the name and type of every entry, and return the name of the ``.dist-info`` folder."""
    if len(entries) > _MOST_ENTRIES:
        raise InputError(f"has more than {_MOST_ENTRIES} entries", where=where)
    seen: set[str] = set()
    folders: set[str] = set()
    for entry in entries:
        # zipfile cuts `filename` at a NUL and turns backslashes round; `orig_filename` is what the archive says.
        raw = entry.orig_filename
        reason = _unsafe(raw, entry)
        if reason:
            hint = "Such a file could be laid out anywhere. Do not use it, or build it again with a current tool."
            raise InputError(f"has the entry {raw!r}, {reason}", where=where, hint=hint)
        if raw in seen:
            raise InputError(f"has the entry {raw!r} twice", where=where)
        seen.add(raw)
        top, _, rest = raw.partition("/")
        if top.endswith(".dist-info"):
            folders.add(top)
        if top.endswith(".data") and rest and rest.split("/")[0] not in _SCHEMES:
            known = ", ".join(sorted(_SCHEMES))
            raise InputError(f"has the entry {raw!r}, which is in none of {known}", where=where)
    own = [folder for folder in folders if _is_own(folder, name, version)]
    if len(folders) != 1 or not own:
        found = ", ".join(sorted(folders)) or "none"
        raise InputError(f"should have one .dist-info folder of {name} {version}; it has: {found}", where=where)
    for needed in ("METADATA", "WHEEL", "RECORD"):
        if f"{own[0]}/{needed}" not in seen:
            raise InputError(f"has no {own[0]}/{needed}", where=where, hint="Build the wheel again.")
    return own[0]


def _unsafe(raw: str, entry: zipfile.ZipInfo) -> str:
    """Return why an entry must not be laid out, or nothing."""
    mode = entry.external_attr >> 16
    parts = raw.rstrip("/").split("/") if raw != "/" else [""]
    checks = (
        (not raw, "which has no name"),
        (not raw.isprintable(), "which has control characters in its name"),
        (raw.startswith("/") or bool(_DRIVE.match(raw)), "which is an absolute path"),
        ("\\" in raw, "which has a backslash in its name"),
        (".." in parts, "which leads out of its folder"),
        ("" in parts or "." in parts, "whose path has an empty part or a dot in it"),
        (bool(mode) and stat.S_ISLNK(mode), "which is a symbolic link"),
        (stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK), "which is a special file"),
        (bool(entry.flag_bits & 1), "which is encrypted"),
    )
    return next((reason for bad, reason in checks if bad), "")


def _is_own(folder: str, name: str, version: str) -> bool:
    from packaging.utils import canonicalize_name
    from packaging.version import InvalidVersion, Version

    own_name, _, own_version = folder.removesuffix(".dist-info").partition("-")
    try:
        return canonicalize_name(own_name) == name and Version(own_version) == Version(version)
    except InvalidVersion:
        return False


def _field(metadata: bytes, name: bytes) -> str:
    """Return the first field of a name among the headers of METADATA (RFC 822); empty where there is none."""
    for line in metadata.splitlines():
        key, colon, value = line.partition(b":")
        if not line.strip():
            break  # the description begins
        if colon and key.strip().lower() == name and not line[:1].isspace():
            return value.strip().decode("utf-8", "replace")
    return ""


def _check_metadata(archive: zipfile.ZipFile, folder: str, name: str, version: str, where: str) -> None:
    """Check that METADATA names the same distribution as the file name."""
    from packaging.utils import canonicalize_name
    from packaging.version import InvalidVersion, Version

    with archive.open(f"{folder}/METADATA") as file:
        data = file.read(_LARGEST_METADATA + 1)
    if len(data) > _LARGEST_METADATA:
        raise InputError(f"has a METADATA of more than {_LARGEST_METADATA} bytes", where=where)
    stated = _field(data, b"name"), _field(data, b"version")
    try:
        same = canonicalize_name(stated[0]) == name and Version(stated[1]) == Version(version)
    except InvalidVersion:
        same = False
    if not same:
        what = f"its METADATA says {' '.join(stated)!r}, its file name {name} {version}"
        raise InputError(what, where=where, hint="A wheel must not be renamed; build it again.")
