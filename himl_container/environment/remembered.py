"""What was read from environment files and locks before, kept by the bytes of the files.

Reading them with every check takes a quarter of a second, most of it for importing the parsers. Nothing that was
refused is kept, and no file that takes anything from variables or has a credential in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from himl_container import __version__
from himl_container.cache import Cache
from himl_container.environment.model import (
    BasePin,
    CondaDependency,
    Declared,
    EnvironmentSpec,
    Lock,
    LockedConda,
    LockedWheel,
    Origin,
    PipIndexes,
    PipRequirement,
)
from himl_container.environment.urls import redact
from himl_container.errors import StorageError
from himl_container.settings import Settings

_FORMAT = 1
_KINDS = (EnvironmentSpec, Lock, LockedConda, LockedWheel, Declared, PipRequirement)
_SHAPE = [_FORMAT, __version__, *(list(kind.__dataclass_fields__) for kind in _KINDS)]
_CLOCK = 20_000_000  # nanoseconds; times of files come from a clock that ticks at most 100 times a second


def known_written(settings: Settings, cache: Cache) -> EnvironmentSpec | None:
    """Return what the files of the settings were found to say, where they have the same bytes; else None."""
    known = cache.read_json(*_written_place(settings))
    try:
        files = {Path(path): digest for path, digest in known["files"].items()}
        if any(_digest(path.read_bytes()) != digest for path, digest in files.items()):
            return None
        value = known["spec"]
        return EnvironmentSpec(
            name=value["name"],
            channels=tuple(value["channels"]),
            dependencies=tuple(
                CondaDependency(one["spec"], one["name"], Origin(**one["origin"])) for one in value["dependencies"]
            ),
            pip=_requirements(value["pip"]),
            indexes=PipIndexes(
                tuple(value["indexes"]["private"]), value["indexes"]["index"], tuple(value["indexes"]["find_links"])
            ),
            variables=_pairs(value["variables"]),
            constraints=_requirements(value["constraints"]),
            files=tuple(Path(path) for path in value["files"]),
            warnings=tuple(value["warnings"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep_written(spec: EnvironmentSpec, settings: Settings, cache: Cache, *, began: int) -> None:
    """Keep what :func:`himl_container.environment.written.read_written` found.

    :param began: when that began, in nanoseconds since the epoch; nothing is kept of a file that was changed since.
    """
    try:
        contents = {str(path): path.read_bytes() for path in spec.files}
        if any(path.stat().st_mtime_ns >= began - _CLOCK for path in spec.files):
            return
    except OSError:
        return
    indexes = spec.indexes
    addresses = (*spec.channels, *indexes.private, indexes.index, *indexes.find_links)
    if any(b"${" in content for content in contents.values()) or any(redact(url) != url for url in addresses):
        return
    value = {**dataclasses.asdict(spec), "files": [str(path) for path in spec.files]}
    files = {path: _digest(content) for path, content in contents.items()}
    _keep({"files": files, "spec": value}, cache, _written_place(settings))


def known_lock(content: bytes, cache: Cache) -> Lock | None:
    """Return the lock that these bytes were found to be; None where they were never read."""
    value = cache.read_json(*_lock_place(content))
    try:
        return Lock(
            platform=value["platform"],
            python_version=value["python_version"],
            base=BasePin(**value["base"]),
            virtual_packages=tuple(value["virtual_packages"]),
            variables=_pairs(value["variables"]),
            declared=Declared(**_frozen(value["declared"])),
            conda=tuple(LockedConda(**_frozen(one)) for one in value["conda"]),
            wheels=tuple(LockedWheel(**_frozen(one)) for one in value["wheels"]),
        )
    except (KeyError, TypeError, AttributeError):
        return None


def keep_lock(lock: Lock, content: bytes, cache: Cache) -> None:
    """Keep what the reader of locks made of these bytes."""
    _keep(dataclasses.asdict(lock), cache, _lock_place(content))


def _keep(value: object, cache: Cache, place: tuple[str, ...]) -> None:
    try:
        cache.write_json(value, *place)
    except StorageError:
        return  # what cannot be kept costs time at the next build, nothing else


def _written_place(settings: Settings) -> tuple[str, ...]:
    inputs = [[str(path) for path in settings.conda_files], settings.platform, bool(settings.pip_index_url)]
    return ("memo", "written", _digest(json.dumps([_SHAPE, inputs]).encode()) + ".json")


def _lock_place(content: bytes) -> tuple[str, ...]:
    return ("memo", "lock", _digest(json.dumps(_SHAPE).encode() + content) + ".json")


def _requirements(values: Iterable[dict[str, Any]]) -> tuple[PipRequirement, ...]:
    return tuple(
        PipRequirement(one["text"], one["name"], Origin(**one["origin"]), tuple(one["hashes"])) for one in values
    )


def _pairs(values: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, text) for name, text in values)


def _frozen(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
