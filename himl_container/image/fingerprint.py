"""The fingerprint of an image, and the short way to it when no input has changed.

The fingerprint is a hash of the *bytes* of every input, never of a serialised model, and never of a setting of a run.
Reading and checking the environment takes a third of a second; :func:`remembered` skips that while every file that was
read still has the same bytes. It imports nothing that is slow to import.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container import __version__
from himl_container.cache import Cache
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.image.model import SystemPlan

FORMAT = "himl-image-1"
"""Version of everything that decides an image's bytes besides its inputs: prefix, grouping, bytecode, configuration."""


def fingerprint(lock: bytes, system: SystemPlan, template: bytes) -> str:
    """Return the sha256 (hex) over the format version and the bytes of every input.

    The lock's bytes contain the sha256 of each package and private wheel, and the base image's digest.
    """
    total = hashlib.sha256(FORMAT.encode())
    parts = (lock, "\n".join(system.apt).encode(), "\n".join(system.lines).encode(), template)
    for part in parts:
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)
    return total.hexdigest()


def tag_of(image_name: str, value: str) -> str:
    """Return the full name of the image with a fingerprint, ``repository:tag``."""
    return f"{image_name}:{value[:32]}"


def remember(settings: Settings, files: Iterable[Path], value: str, cache: Cache, *, tested: bool = True) -> None:
    """Keep that these settings, with the present bytes of these files, have this fingerprint.

    :param tested: whether the fingerprint's image has passed the test of these settings. That it has is not forgotten.
    """
    passed = tested or _has_passed(cache.read_json(*_memo(settings)), value)
    seen = {str(path): _sha256(path) for path in files}
    cache.write_json({"files": seen, "fingerprint": value, "tested": passed}, *_memo(settings))


def remembered(settings: Settings, cache: Cache) -> str | None:
    """Return the fingerprint kept for these settings, or None when any file that it was made from has changed."""
    known = cache.read_json(*_memo(settings))
    if not isinstance(known, dict) or not isinstance(known.get("files"), dict):
        return None
    for path, digest in known["files"].items():
        if _sha256(Path(path)) != digest:
            return None
    value = known.get("fingerprint")
    return value if isinstance(value, str) else None


def tested(settings: Settings, value: str, cache: Cache) -> bool:
    """Whether the image of a fingerprint is kept as one that has passed the test of these settings."""
    return _has_passed(cache.read_json(*_memo(settings)), value)


def _has_passed(known: object, value: str) -> bool:
    return isinstance(known, dict) and known.get("fingerprint") == value and known.get("tested") is True


def _memo(settings: Settings) -> tuple[str, str, str]:
    return "memo", "fingerprint", _settings_key(settings) + ".json"


_OF_A_PUSH = frozenset({"registry", "compression", "azureml_environment"})
"""Where an image goes, and how, is nothing of the image."""


def _settings_key(settings: Settings) -> str:
    names = [field.name for field in dataclasses.fields(settings) if field.name not in _OF_A_PUSH]
    fields = [f"{name}={getattr(settings, name)!r}" for name in names]
    return hashlib.sha256("\n".join([FORMAT, __version__, *fields]).encode()).hexdigest()


def _sha256(path: Path) -> str:
    """Return the hash of a file's bytes; of a file that cannot be read, a value that no file has."""
    try:
        with path.open("rb") as file:
            total = hashlib.sha256()
            while block := file.read(1 << 20):
                total.update(block)
            return total.hexdigest()
    except OSError:
        return "unreadable"
