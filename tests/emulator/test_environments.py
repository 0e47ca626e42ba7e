"""Environments, registered and built through the SDK."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from image_builds import built, by_image, registry_of

if TYPE_CHECKING:
    from azureml.core import Workspace

pytestmark = pytest.mark.emulator


@pytest.fixture
def name() -> str:
    return f"env-{uuid.uuid4().hex[:8]}"


def test_a_definition_is_kept(workspace: Workspace, name: str, tmp_path: Path) -> None:
    from azureml.core import Environment
    from azureml.core.container_registry import ContainerRegistry

    file = tmp_path / "environment.yml"
    file.write_text("name: e\nchannels: [conda-forge]\ndependencies: [python=3.11, {pip: [numpy==1.26]}]\n")
    registry = ContainerRegistry()
    registry.address, registry.username, registry.password = "r.example", "user", "word"
    made = Environment.from_docker_image(name, "team/a:1", registry, conda_specification=str(file))
    made.environment_variables = {"A": "ü"}
    made.register(workspace)
    found = Environment.get(workspace, name)
    assert found.version == "1"
    assert found.docker.base_image == "team/a:1"
    assert found.docker.base_image_registry.password == "word"
    assert found.environment_variables == {"A": "ü"}
    assert list(found.python.conda_dependencies.pip_packages) == ["numpy==1.26"]
    assert not found.python.user_managed_dependencies
    # What the service gave is what it knows.
    found.version = None
    assert found.register(workspace).version == "1"


def test_versions(workspace: Workspace, name: str) -> None:
    from azureml.core import Environment

    made = by_image(name)
    assert made.register(workspace).version == "1"
    assert made.register(workspace).version == "1"
    made.python.interpreter_path = "/opt/python"
    assert made.register(workspace).version == "2"
    assert Environment.get(workspace, name).version == "2"
    assert Environment.get(workspace, name, version="1").python.interpreter_path == "python"
    made.version = "mine"
    assert made.register(workspace).version == "mine"
    made.python.interpreter_path = "/other"
    with pytest.raises(Exception, match="409"):
        made.register(workspace)


def test_labels(workspace: Workspace, name: str) -> None:
    from azureml.core import Environment

    by_image(name).register(workspace)
    by_image(name, "python:3.12").register(workspace)
    Environment.label(workspace, name, "1", ["production"])
    assert Environment.get(workspace, name, label="production").version == "1"
    with pytest.raises(Exception, match="404"):
        Environment.get(workspace, name, label="nothing")


def test_lists(workspace: Workspace, name: str) -> None:
    from azureml.core import Environment

    by_image(name).register(workspace)
    by_image(name, "python:3.12").register(workspace)
    assert Environment.list(workspace)[name].version == "2"
    assert workspace.environments[name].docker.base_image == "python:3.12"


@pytest.mark.parametrize("wanted", ["AzureML-Minimal", "AzureML-ACPT-pytorch-2.0", "never-registered"])
def test_environments_that_are_not_there(workspace: Workspace, wanted: str) -> None:
    from azureml.core import Environment

    with pytest.raises(Exception, match="Code: 404"):
        Environment.get(workspace, wanted)


@pytest.mark.parametrize("wanted", ["AzureML-mine", "a/b", "../x", "x" * 300, "a\x00b"])
def test_names_that_cannot_be(workspace: Workspace, wanted: str) -> None:
    with pytest.raises(Exception, match=r"Code: 40[04]"):
        by_image(wanted).register(workspace)


def test_image_details(workspace: Workspace, name: str) -> None:
    from azureml.core import Environment
    from azureml.core.environment import DockerImageDetails

    by_image(name, "r.example/team/a:1").register(workspace)
    details: DockerImageDetails = Environment.get(workspace, name).get_image_details(workspace)
    assert (details.image, details.interpreter_path) == ("r.example/team/a:1", "python")
    made = Environment(f"{name}-conda")
    made.register(workspace)
    details = Environment.get(workspace, made.name).get_image_details(workspace)
    assert not details.image_exist
    assert details.registry == registry_of(workspace)
    assert details.image == f"{details.registry}/{details.repository}"
    assert details["dockerImage"]["registry"]["password"] not in str(details)


def test_a_private_wheel(workspace: Workspace, tmp_path: Path) -> None:
    from azureml.core import Environment
    from azureml.exceptions import UserErrorException

    wheel = tmp_path / f"private_{uuid.uuid4().hex[:8]}-1.0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    url = Environment.add_private_pip_wheel(workspace, str(wheel))
    assert url.endswith(f"/azureml/Environment/azureml-private-packages/{wheel.name}")
    with pytest.raises(UserErrorException, match="already exists"):
        Environment.add_private_pip_wheel(workspace, str(wheel))
    assert Environment.add_private_pip_wheel(workspace, str(wheel), exist_ok=True) == url


def test_a_build_that_fails_says_why(workspace: Workspace, name: str) -> None:
    """What cannot be pulled; :mod:`test_images` has builds that succeed."""
    missing = f"{registry_of(workspace)}/absent@sha256:{'0' * 64}"
    status, log = built(by_image(name, missing), workspace)
    assert status == "Failed"
    assert missing in log


def test_a_build_registers_the_environment(workspace: Workspace, name: str) -> None:
    from azureml.core import Environment

    assert built(by_image(name, "r.example/bad@sha256:1"), workspace)[0] == "Failed"
    assert Environment.get(workspace, name).version == "1"
