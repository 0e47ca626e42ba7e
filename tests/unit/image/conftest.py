from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from assembly import SAMPLES, Told, build, lock_of, locked, settings_of

from himl_container.environment.model import Lock
from himl_container.image.model import Layer
from himl_container.settings import Settings


@pytest.fixture(scope="session")
def package_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """rattler and uv with caches of the session: no test reads or writes the user's."""
    root = tmp_path_factory.mktemp("package-caches")
    before = {name: os.environ.get(name) for name in ("RATTLER_CACHE_DIR", "UV_CACHE_DIR")}
    os.environ |= {"RATTLER_CACHE_DIR": str(root / "rattler"), "UV_CACHE_DIR": str(root / "uv")}
    yield root
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture(scope="session")
def assembled(
    channel: Path, tmp_path_factory: pytest.TempPathFactory, package_caches: Path
) -> tuple[Lock, Settings, tuple[Layer, ...], list[str]]:
    """All samples of the channel as layers: lock, settings, layers, warnings. The cache may be used further."""
    lock = lock_of(locked(channel, *SAMPLES))
    settings = settings_of(channel, tmp_path_factory.mktemp("assembled"))
    told = Told()
    return lock, settings, build(lock, settings, reporter=told), told.warnings
