"""The engines that images are loaded into: the machine's own, and a current one with each image store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import engines
import pytest
from tiny_images import CLASSIC, CONTAINERD, MACHINE, Place

_CURRENT = (pytest.mark.engine26, pytest.mark.network)


@pytest.fixture(scope="session")
def current_classic() -> Iterator[engines.CurrentEngine]:
    yield from _engine(containerd_store=False)


@pytest.fixture(scope="session")
def current_containerd() -> Iterator[engines.CurrentEngine]:
    yield from _engine(containerd_store=True)


def _engine(*, containerd_store: bool) -> Iterator[engines.CurrentEngine]:
    if engines.available():
        pytest.skip(f"a second engine {engines.available()}")
    with engines.current_engine(containerd_store=containerd_store) as engine:
        yield engine


@pytest.fixture(params=[MACHINE, pytest.param(CLASSIC, marks=_CURRENT), pytest.param(CONTAINERD, marks=_CURRENT)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each kind of daemon in turn."""
    environ = dict(os.environ)
    if request.param != MACHINE:
        name = "current_classic" if request.param == CLASSIC else "current_containerd"
        environ = request.getfixturevalue(name).environ
    found = Place(request.param, environ, tmp_path)
    yield found
    found.clean()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Place]:
    """The machine's own daemon."""
    found = Place(MACHINE, dict(os.environ), tmp_path)
    yield found
    found.clean()
