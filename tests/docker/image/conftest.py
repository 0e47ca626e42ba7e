"""The engines that images are loaded into: the machine's own, and a current one with each image store."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import engines
import kit
import pytest
from registry_server import port_of
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
        kit.lacking(f"a second engine {engines.available()}")
    with engines.current_engine(containerd_store=containerd_store) as engine:
        yield engine


@pytest.fixture(params=[MACHINE, pytest.param(CLASSIC, marks=_CURRENT), pytest.param(CONTAINERD, marks=_CURRENT)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each kind of daemon in turn."""
    environ, pid = dict(os.environ), 0
    if request.param != MACHINE:
        name = "current_classic" if request.param == CLASSIC else "current_containerd"
        current = request.getfixturevalue(name)
        environ, pid = current.environ, current.pid
    found = Place(request.param, environ, tmp_path, pid)
    yield found
    found.clean()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Place]:
    """The machine's own daemon."""
    found = Place(MACHINE, dict(os.environ), tmp_path)
    yield found
    found.clean()


@pytest.fixture
def registry(place: Place, tmp_path: Path) -> Iterator[str]:
    """An empty registry, as ``host:port``, in the daemon's network; a loopback address needs no configuration."""
    program = shutil.which("docker-registry")
    if program is None:
        kit.lacking("needs docker-registry")
    config = tmp_path / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: info}\nhttp: {addr: '127.0.0.1:0'}\n"
        f"storage: {{filesystem: {{rootdirectory: '{tmp_path}/registry'}}}}\n"
    )
    log = tmp_path / "registry.log"
    command = [*_in_network_of(place), program, "serve", str(config)]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield f"127.0.0.1:{port_of(process, log)}"
        finally:
            process.terminate()


def _in_network_of(place: Place) -> list[str]:
    """Return the words before a command that shall run in the network of a second engine."""
    if not place.pid:
        return []
    enter = ["nsenter", "--target", str(place.pid), "--net", "--"]
    if shutil.which("ip") is None:
        pytest.skip("needs the program 'ip'")
    subprocess.run([*enter, "ip", "link", "set", "lo", "up"], check=True)
    return enter
