"""Images of jobs, really built and pulled: by our pipeline, by Docker, from the emulator's registry and from others."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import kit
import pytest
from image_builds import built, by_image, registry_of
from registry_server import registry

from himl_container.image.endpoint import resolve_endpoint

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

pytestmark = [pytest.mark.emulator, pytest.mark.docker]

PYTHON = "/opt/himl/bin/python"
AZUREML = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:20240101.v1"


@pytest.fixture
def name() -> str:
    return f"image-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Pushed:
    """An image that our own command line has built and pushed, logged in as the service principal."""

    cli: kit.Cli
    name: str
    digest: str

    @property
    def reference(self) -> str:
        return f"{self.name.rpartition(':')[0]}@{self.digest}"


@pytest.fixture(scope="module")
def pushed(
    emulator: Emulator,
    workspace: Workspace,
    package_sources: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pushed]:
    folder = tmp_path_factory.mktemp("project")
    kit.ProjectFolder(folder).environment("python=3.11", "tinylib")
    variables = {**package_sources, **emulator.variables, "DOCKER_CONFIG": str(folder / "none")}
    registry_name = {"HIML_CONTAINER_REGISTRY": registry_of(workspace), "HIML_CONTAINER_IMAGE_NAME": "himl-emulated"}
    cli = kit.Cli(folder, kit.clean_environ(**{**variables, **registry_name}))
    done = json.loads(cli("build", "--push", "--json").stdout.splitlines()[-1])
    assert done["pushed"]["bytes"] > 0
    yield Pushed(cli, done["image"], done["digest"])
    with contextlib.closing(docker.DockerClient(base_url=resolve_endpoint(os.environ).url)) as client:
        for name in kit.image_names(client, "himl-emulated"):
            client.images.remove(name)


@pytest.fixture(autouse=True, scope="module")
def no_names_left() -> Iterator[None]:
    """Leave none of the names behind that bases have while something is built on them."""
    yield
    listed = subprocess.run(
        ["docker", "images", "-q", "himl-emulator/base"], capture_output=True, text=True, check=True
    )
    assert listed.stdout == ""


def run(image: str, *command: str) -> str:
    done = subprocess.run(["docker", "run", "--rm", image, *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write_wheel(folder: Path, package: str) -> Path:
    info = f"{package}-1.0.dist-info"
    files = {
        f"{package}.py": "word = 'private'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return path


def test_an_image_is_pushed_found_and_verified_by_our_commands(pushed: Pushed) -> None:
    cli = pushed.cli
    again = json.loads(cli("build", "--push", "--json").stdout.splitlines()[-1])
    assert (again["digest"], again["built"]) == (pushed.digest, False)
    assert pushed.digest in cli("inspect", pushed.name).stdout
    assert "have the same image" in cli("verify").stdout
    assert pushed.digest in cli("pull", pushed.reference, "--json").stdout


def test_a_digest_of_the_registry_is_pulled_once(workspace: Workspace, pushed: Pushed, name: str) -> None:
    first = built(by_image(name, pushed.reference, PYTHON), workspace)
    second = built(by_image(name, pushed.reference, PYTHON), workspace)
    assert (first[0], second[0]) == ("Succeeded", "Succeeded")
    assert f"The daemon has {pushed.reference}" in second[1]
    tagged = built(by_image(name, pushed.name, PYTHON), workspace)
    assert tagged[0] == "Succeeded"


def test_a_digest_that_is_in_no_repository_of_this_name(workspace: Workspace, pushed: Pushed, name: str) -> None:
    """Although the daemon has the image: in the cloud there would be none."""
    absent = f"{registry_of(workspace)}/absent@{pushed.digest}"
    status, log = built(by_image(name, absent), workspace)
    assert status == "Failed"
    assert "has no such image" in log


def test_conda_dependencies_and_a_private_wheel(workspace: Workspace, name: str, tmp_path: Path) -> None:
    from azureml.core import Environment

    package = f"private_{uuid.uuid4().hex[:8]}"
    url = Environment.add_private_pip_wheel(workspace, str(write_wheel(tmp_path, package)))
    file = tmp_path / "environment.yml"
    file.write_text(f"channels: [conda-forge]\ndependencies:\n- python=3.11\n- tinylib\n- pip: [{url}]\n")
    status, log = built(Environment.from_conda_specification(name, str(file)), workspace)
    assert status == "Succeeded", log
    assert "is replaced by" in log  # AzureML's own base cannot be had here
    details = Environment.get(workspace, name).get_image_details(workspace)
    assert details.image_exist
    assert details.interpreter_path == PYTHON
    assert run(details.image, PYTHON, "-c", f"import tinylib, {package}; print({package}.word)") == "private"
    # Another name with the same dependencies is the same image, and nothing is built.
    status, log = built(Environment.from_conda_specification(f"{name}-2", str(file)), workspace)
    assert status == "Succeeded"
    assert "is there" in log
    assert "Building" not in log


def test_a_dockerfile_and_what_comes_on_top(workspace: Workspace, pushed: Pushed, name: str, tmp_path: Path) -> None:
    from azureml.core import Environment

    word = uuid.uuid4().hex
    dockerfile = f"FROM {pushed.reference} AS first\nRUN echo {word} > /word\n"
    made = Environment.from_dockerfile(name, dockerfile)
    status, log = built(made, workspace)
    assert status == "Succeeded", log
    details = Environment.get(workspace, name).get_image_details(workspace)
    assert details.dockerfile == dockerfile
    assert run(details.image, "cat", "/word") == word
    file = tmp_path / "environment.yml"
    file.write_text("channels: [conda-forge]\ndependencies: [python=3.11]\n")
    text = f"FROM {AZUREML}\nRUN echo {word} > /word\n"
    status, log = built(Environment.from_dockerfile(name, text, conda_specification=str(file)), workspace)
    assert status == "Succeeded", log
    details = Environment.get(workspace, name).get_image_details(workspace)
    assert run(details.image, PYTHON, "-c", "print(open('/word').read())") == word


def test_a_step_that_fails_is_told(workspace: Workspace, name: str) -> None:
    from azureml.core import Environment

    text = f"FROM {AZUREML}\nRUN echo {name} is wrong && false\n"
    status, log = built(Environment.from_dockerfile(name, text), workspace)
    assert status == "Failed"
    assert f"{name} is wrong" in log
    assert "a step of the Dockerfile failed" in log


def test_a_build_context(workspace: Workspace, name: str, tmp_path: Path) -> None:
    from azureml.core import Environment
    from azureml.core.environment import DockerBuildContext

    (tmp_path / "Dockerfile").write_text(f"FROM {AZUREML}\nCOPY word /word\n")
    (tmp_path / "word").write_text(name)
    context = DockerBuildContext.from_local_directory(workspace, str(tmp_path))
    status, log = built(Environment.from_docker_build_context(name, context), workspace)
    assert status == "Succeeded", log
    details = Environment.get(workspace, name).get_image_details(workspace)
    assert run(details.image, "cat", "/word") == name


def test_a_registry_with_a_login(
    workspace: Workspace, pushed: Pushed, name: str, tmp_path: Path, base_image: str
) -> None:
    from azureml.core.container_registry import ContainerRegistry

    with registry(tmp_path / "other", htpasswd={"somebody": "geheim"}) as host:
        image = f"{host}/team/base:1"
        environ = {**pushed.cli.environ, "DOCKER_CONFIG": str(tmp_path / "docker")}
        docker = ["docker", "--config", str(tmp_path / "docker")]
        subprocess.run(["docker", "tag", base_image, image], check=True)
        login = [*docker, "login", "-u", "somebody", "--password-stdin", host]
        subprocess.run(login, input=b"geheim", check=True, capture_output=True, env=environ)
        subprocess.run([*docker, "push", "-q", image], check=True, capture_output=True, env=environ)
        subprocess.run(["docker", "rmi", image], check=True, capture_output=True)
        made = by_image(name, "team/base:1")
        given = ContainerRegistry()
        given.address, given.username, given.password = host, "somebody", "falsch"
        made.docker.base_image_registry = given
        status, log = built(made, workspace)
        assert status == "Failed"
        assert "cannot be pulled" in log
        assert "falsch" not in log
        given.password = "geheim"
        status, log = built(made, workspace)
        assert status == "Succeeded", log
        assert image in log
        subprocess.run(["docker", "rmi", image], check=True, capture_output=True)
