"""The lock file: one PEP 751 ``pylock`` that also holds the Conda packages, the base image and what it was made from.

The wheels are ``[[packages]]`` as PEP 751 says, so that any tool that reads pylock files can check or install them.
Everything else is under ``[tool.himl-container]``, which the standard leaves to tools. The text is canonical: the same
:class:`Lock` gives the same bytes. Nothing of the reader's machine is in it, and no credential.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment import toml_text
from himl_container.environment.model import Declared, Lock, LockedConda, LockedWheel
from himl_container.environment.remembered import keep_lock, known_lock
from himl_container.errors import InputError, StaleLockError, StorageError
from himl_container.whole_file import replace_file

_HEADER = """\
# The exact environment of the image: Conda packages, wheels and the base image.
# Written by 'himl-container lock'; commit it, do not edit it. The wheels are a PEP 751 lock.

"""
_MACHINES = {"linux-64": "x86_64", "linux-aarch64": "aarch64", "linux-ppc64le": "ppc64le"}


def read_lock(path: Path, cache: Cache | None = None) -> Lock:
    """Return the lock in a file.

    Everything is checked: a damaged or hostile file is an error here, so that later stages may trust what they get.

    :param cache: where to keep what was read; a lock whose bytes it knows is not checked again.
    :raises StaleLockError: there is no such file.
    :raises InputError: it is not a lock, is damaged, or was written by a newer version; with file and line.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except FileNotFoundError as error:
        raise StaleLockError(
            "there is no lock", where=str(path), hint="Make it with 'himl-container lock' and commit it."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"the lock cannot be read: {reason}", where=str(path)) from error
    known = known_lock(content, cache) if cache else None
    if known is not None:
        return known
    from himl_container.environment.lock_reader import read_lock_text

    lock = read_lock_text(text, where=str(path))
    if cache:
        keep_lock(lock, content, cache)
    return lock


def write_lock(lock: Lock, path: Path) -> None:
    """Write a lock, whole or not at all; a file that says the same already is left alone.

    :raises InputError: the path is a symbolic link or a folder, which replacing it would silently destroy.
    :raises StorageError: the folder cannot be written.
    """
    content = lock_text(lock).encode()
    if path.is_symlink() or path.is_dir():
        kind = "symbolic link" if path.is_symlink() else "folder"
        raise InputError(
            f"the lock file is a {kind}", where=str(path), hint="Name a regular file with --lock-file, or remove it."
        )
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content, sync=True)
    except OSError as error:
        raise StorageError(f"cannot write the lock: {error.strerror or error}", where=str(path)) from error


def lock_text(lock: Lock) -> str:
    """Return the canonical text of a lock."""
    parts = [_HEADER + toml_text.table("", _top(lock))]
    for wheel in sorted(lock.wheels, key=lambda wheel: wheel.name):
        parts += _package(wheel)
    parts += _own_tables(lock)
    parts += [toml_text.table("[[tool.himl-container.conda]]", _conda(record)) for record in lock.conda]
    return "\n".join(parts)


def wheels_text(wheels: Iterable[LockedWheel]) -> str:
    """Return a plain pylock of wheels alone, as uv takes it for what it should keep."""
    parts = [toml_text.table("", {"lock-version": "1.0", "created-by": "himl-container"})]
    for wheel in wheels:
        parts += _package(wheel)
    return "\n".join(parts)


def _top(lock: Lock) -> dict[str, toml_text.Value]:
    machine = _MACHINES.get(lock.platform)
    major, minor = lock.python_version.split(".")[:2]
    values: dict[str, toml_text.Value] = {"lock-version": "1.0"}
    if machine:
        values["environments"] = [f"sys_platform == 'linux' and platform_machine == '{machine}'"]
    values["requires-python"] = f">={major}.{minor},<{major}.{int(minor) + 1}"
    values["created-by"] = "himl-container"
    if not lock.wheels:
        values["packages"] = []
    return values


def _package(wheel: LockedWheel) -> list[str]:
    parts = [toml_text.table("[[packages]]", {"name": wheel.name, "version": wheel.version})]
    own: dict[str, toml_text.Value] = {}
    if wheel.sdist_url:
        parts.append(_file("[packages.sdist]", {"url": wheel.sdist_url}, wheel.sdist_size, wheel.sdist_sha256))
        own = {"wheel": wheel.filename, "size": wheel.size, "sha256": wheel.sha256}
        own |= {"build-requires": wheel.build_requires} if wheel.build_requires else {}
    else:
        # PEP 751 wants a place: a private wheel is expected beside the lock by tools that install from it.
        place = {"path": wheel.filename} if wheel.private else {"url": wheel.url}
        parts.append(_file("[[packages.wheels]]", {"name": wheel.filename, **place}, wheel.size, wheel.sha256))
        if wheel.private:
            own = {"private": True}
    if own:
        parts.append(toml_text.table("[packages.tool.himl-container]", own))
    return parts


def _file(header: str, place: dict[str, str], size: int, sha256: str) -> str:
    values: dict[str, toml_text.Value] = {**place, **({"size": size} if size else {})}
    return toml_text.table(header, values) + f"hashes = {{ sha256 = {toml_text.string(sha256)} }}\n"


def _own_tables(lock: Lock) -> list[str]:
    from himl_container.environment.lock_reader import FORMAT

    base = {
        name: text
        for name, text in (
            ("reference", lock.base.reference),
            ("digest", lock.base.digest),
            ("rootfs", lock.base.rootfs),
        )
        if text
    }
    own: dict[str, toml_text.Value] = {
        "format": FORMAT,
        "platform": lock.platform,
        "python": lock.python_version,
        "virtual-packages": lock.virtual_packages,
    }
    return [
        toml_text.table("[tool.himl-container]", own),
        toml_text.table("[tool.himl-container.base]", base),
        *([toml_text.table("[tool.himl-container.variables]", dict(sorted(lock.variables)))] if lock.variables else []),
        toml_text.table("[tool.himl-container.declared]", _declared(lock.declared)),
    ]


def _declared(declared: Declared) -> dict[str, toml_text.Value]:
    values: dict[str, toml_text.Value] = {
        "base": declared.base,
        "platform": declared.platform,
        "virtual-packages": declared.virtual_packages,
        "channels": declared.channels,
        "conda": declared.conda,
        "pip": declared.pip,
        "constraints": declared.constraints,
        "indexes": declared.indexes,
        "wheels": declared.wheels,
        "variables": declared.variables,
        "pypi-names": declared.pypi_names,
    }
    return values


def _conda(record: LockedConda) -> dict[str, toml_text.Value]:
    values: dict[str, toml_text.Value] = {
        "name": record.name,
        "version": record.version,
        "build": record.build,
        "build-number": record.build_number,
        "subdir": record.subdir,
        "channel": record.channel,
        "url": record.url,
        "size": record.size,
        "sha256": record.sha256,
    }
    optional: dict[str, toml_text.Value] = {
        "md5": record.md5,
        "timestamp": record.timestamp,
        "noarch": record.noarch,
        "license": record.license,
        "python-site-packages-path": record.python_site_packages_path,
        "track-features": record.track_features,
        "depends": record.depends,
        "constrains": record.constrains,
    }
    return values | {name: item for name, item in optional.items() if item}
