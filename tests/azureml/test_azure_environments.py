"""Environments of a project in the emulator's workspace: our image, and the one that AzureML builds."""

from __future__ import annotations

import uuid
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import kit
import pytest
from job_image import docker_cli

from himl_container.azureml.configuration import EnvironmentSource, project_environment, settings_of
from himl_container.azureml.workspace_registry import registry_of
from himl_container.cache import Cache
from himl_container.progress import SilentReporter
from himl_container.settings import Settings

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

pytestmark = [pytest.mark.emulator, pytest.mark.docker]

PYTHON = "/opt/himl/bin/python"


@pytest.fixture
def project(
    tmp_path: Path, emulator: Emulator, package_sources: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[kit.ProjectFolder]:
    name = f"himl-environments-{uuid.uuid4().hex[:8]}"
    for variable, value in {**package_sources, "HIML_CONTAINER_IMAGE_NAME": name}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    yield kit.ProjectFolder(tmp_path)
    for image in docker_cli("images", "--format", "{{.Repository}}:{{.Tag}}", name).stdout.decode().split():
        docker_cli("rmi", "--force", image, check=False)


def test_the_registry(workspace: Workspace, emulator: Emulator, tmp_path: Path) -> None:
    assert registry_of(workspace, Cache(tmp_path)) == emulator.installation.workspace.registry_host


def test_our_image_by_digest_and_by_tag(workspace: Workspace, project: kit.ProjectFolder) -> None:
    from azureml.core import Environment

    project.environment("python=3.11")
    by_digest = project_environment(settings(), workspace, SilentReporter(), test=False)
    assert by_digest.get_image_details(workspace).image_exist
    found = Environment.get(workspace, by_digest.name, by_digest.version)
    assert found.docker.base_image == by_digest.docker.base_image
    # The setting changes what is registered, and not the image.
    project.write("pyproject.toml", '[tool.himl-container]\nazureml-environment = "image-by-tag"\n')
    by_tag = project_environment(settings(), workspace, SilentReporter(), test=False)
    assert by_tag.name == by_digest.name
    assert by_tag.version != by_digest.version
    repository = by_digest.docker.base_image.partition("@")[0]
    assert by_tag.docker.base_image == f"{repository}:{by_tag.name.removeprefix('himl-')}"


def test_what_azureml_builds_has_the_wheel_of_now(workspace: Workspace, project: kit.ProjectFolder) -> None:
    """A wheel that was changed and kept its name is another environment with another image."""
    package = f"private_{uuid.uuid4().hex[:8]}"
    project.environment("python=3.11")
    project.write(
        "pyproject.toml",
        f'[tool.himl-container]\nazureml-environment = "build"\nwheels = ["{package}-1.0-py3-none-any.whl"]\n',
    )
    names = set()
    for word in ("first", "second"):
        write_wheel(project.path, package, word)
        made = project_environment(settings(), workspace, SilentReporter())
        names.add(made.name)
        build = made.build(workspace)
        build.wait_for_completion(show_output=False)
        assert build.status == "Succeeded", build.get_log()
        image = made.get_image_details(workspace).image
        said = docker_cli("run", "--rm", image, PYTHON, "-c", f"import {package}; print({package}.word)").stdout
        assert said.decode().strip() == word
    assert len(names) == 2


def settings() -> Settings:
    return settings_of(EnvironmentSource())


def write_wheel(folder: Path, package: str, word: str) -> None:
    info = f"{package}-1.0.dist-info"
    files = {
        f"{package}.py": f"word = {word!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{package}-1.0-py3-none-any.whl", "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
