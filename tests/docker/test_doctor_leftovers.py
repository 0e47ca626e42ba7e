"""The doctor finds and removes what killed runs have left in a real daemon, and nothing else."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from himl_container.cache import Cache
from himl_container.doctor import engine, leftovers
from himl_container.launch.containers import RUN_LABEL

pytestmark = pytest.mark.docker


@pytest.fixture
def killed(base_image: str) -> Iterator[tuple[docker.DockerClient, str]]:
    """A container and a network of a run, and a container of somebody else."""
    client = docker.from_env()
    name = f"himl-test-{uuid.uuid4().hex[:12]}"
    made = [
        client.containers.create(base_image, ["true"], name=name, labels={RUN_LABEL: name}),
        client.containers.create(base_image, ["true"], name=f"{name}-other"),
        client.networks.create(name, labels={RUN_LABEL: name}),
    ]
    try:
        yield client, name
    finally:
        for thing in made:
            with contextlib.suppress(docker.errors.NotFound):
                thing.remove()
        client.close()


def left(name: str, cache: Path, *, later: float) -> list[leftovers.Left]:
    """Return what is found of this test's, seconds from now; what other tests have is not ours to look at."""
    found = leftovers.find_left(_client(), Cache(cache), time.time() + later)
    return [one for one in found if name in one[0]]


def test_leftovers_of_a_killed_run(killed: tuple[docker.DockerClient, str], tmp_path: Path) -> None:
    client, name = killed
    assert left(name, tmp_path, later=0) == [], "somebody may be about to start it"
    found = left(name, tmp_path, later=7200)
    assert [what for what, _ in found] == [f"container {name}", f"network {name}"]
    for _, remove in found:
        remove()
    assert left(name, tmp_path, later=7200) == []
    assert [one.name for one in client.containers.list(all=True, filters={"name": name})] == [f"{name}-other"]
    assert client.networks.list(names=[name]) == []


def test_the_real_daemon_is_described(tmp_path: Path) -> None:
    found = {finding.check: finding for finding in engine.checks(os.environ)}
    assert found["docker engine"].severity == "ok"
    assert found["docker engine"].found.startswith(docker.from_env().version()["Version"])


def _client() -> leftovers.Daemon:
    from himl_container.image.endpoint import resolve_endpoint
    from himl_container.image.engine_client import Client

    return Client.connect(resolve_endpoint(os.environ))
