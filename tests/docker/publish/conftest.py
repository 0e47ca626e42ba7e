"""A real registry with the kit's base image in it, and the command line that pushes there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import kit
import pytest
from fault_proxy import FaultProxy, misbehaving
from registry_server import Host, registry
from runnable import remove


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def base(host: Host, base_image: str) -> Iterator[str]:
    """The kit's base image, in the registry too."""
    name = f"{host}/base:1"
    subprocess.run(["docker", "tag", base_image, name], check=True)
    subprocess.run(["docker", "push", "-q", name], check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "rmi", name], check=True, capture_output=True)


@pytest.fixture
def proxy(host: Host) -> Iterator[FaultProxy]:
    with misbehaving(host) as found:
        yield found


@pytest.fixture
def cli(run_cli: kit.Cli, host: Host, base: str, image_name: str) -> Iterator[kit.Cli]:
    """The command line with a registry."""
    yield kit.Cli(run_cli.cwd, {**run_cli.environ, "HIML_CONTAINER_REGISTRY": host, "HIML_CONTAINER_BASE_IMAGE": base})
    remove(f"{host}/{image_name}")
