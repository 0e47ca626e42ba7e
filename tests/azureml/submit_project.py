"""A project that is submitted by the command line, as a user has it: a folder, an environment, a setting or two."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kit
import pytest
from emulator_fixtures import Emulator

IMAGE = "himl-submitted"


@dataclass(frozen=True)
class Cloud:
    """The command line beside an emulator that it finds by its folder alone: no variable leads there.

    :param template: a folder with the environment file and its lock.
    """

    emulator: Emulator
    environ: Mapping[str, str]
    template: Path

    def project(self, folder: Path, **files: str) -> kit.Cli:
        """Return the command line in a new folder that has the environment and these files."""
        shutil.copytree(self.template, folder, dirs_exist_ok=True)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        return kit.Cli(folder, self.environ)


def result_of(done: Any) -> dict[str, Any]:
    """Return the result of a command that was asked for JSON."""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    results: list[dict[str, Any]] = [event for event in events if event["event"] == "result"]
    assert results, done.stdout + done.stderr
    return results[-1]


@pytest.fixture(scope="session")
def cloud(
    emulator: Emulator, package_sources: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    template = tmp_path_factory.mktemp("submitted") / "template"
    template.mkdir()
    kit.ProjectFolder(template).environment("python=3.11", "tinylib")
    (template / "pyproject.toml").write_text('[tool.himl-container.run]\ncluster = "cpu-cluster"\n')
    own = {
        **package_sources,
        "HIML_CONTAINER_IMAGE_NAME": IMAGE,
        "HIML_CONTAINER_EMULATOR_DIR": str(emulator.folder),
        "HOME": str(emulator.home),
        "AZUREML_DEFAULT_BACKOFF": "1",
    }
    kept = {name: value for name, value in kit.clean_environ().items() if name not in emulator.variables}
    environ = {**kept, **own}
    kit.Cli(template, environ)("lock")
    yield Cloud(emulator, environ, template)
    _remove_images()


def _remove_images() -> None:
    if kit.engine_problem():
        return
    import contextlib
    import os

    import docker

    from himl_container.image.endpoint import resolve_endpoint

    with contextlib.closing(docker.DockerClient(base_url=resolve_endpoint(os.environ).url)) as client:
        for name in kit.image_names(client, IMAGE):
            with contextlib.suppress(docker.errors.DockerException):
                client.images.remove(name, force=True)
