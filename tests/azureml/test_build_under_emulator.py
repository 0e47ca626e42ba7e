"""What has no lock and no image yet is submitted under ``emulator exec``: packages come from outside of it."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
import pytest
from folder_server import package_index
from job_image import docker_cli, text_of
from outside_server import HOST, OutsideServer, outside_serving
from unit.environment.wheelhouse import add_wheel

from himl_container.outside import OUTSIDE

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

pytestmark = [pytest.mark.emulator, pytest.mark.docker]

PASSWORD = "open-sesame"
TRAIN = """\
import sys
from importlib.metadata import version
if "--azureml" in sys.argv:
    from himl_container.azureml.elevate import submit_to_azure_if_needed
    submit_to_azure_if_needed("cpu-cluster", wait_for_completion=True)
print("imported", version("{package}"))
"""


@dataclass(frozen=True)
class World:
    """A machine whose way to packages is a proxy with a password, and an emulator beside."""

    folder: Path
    emulator: Emulator
    environ: Mapping[str, str]
    server: OutsideServer

    def project(self, name: str) -> tuple[kit.ProjectFolder, str]:
        """Return a project without a lock, and a package of it that nobody has had yet."""
        package = f"outside{uuid.uuid4().hex[:8]}"
        add_wheel(self.server.folder / package, package)
        package_index(self.server.folder)
        made = kit.ProjectFolder(self.folder / name)
        made.path.mkdir()
        made.environment("python=3.11", "tinylib", pip=[package])
        made.write("train.py", TRAIN.format(package=package))
        return made, package

    def under_emulator(self, project: kit.ProjectFolder, *words: str, code: int | None = 0) -> Any:
        """Run a command under ``emulator exec``, itself under one, as a script that a shell of ``env`` starts."""
        data = ("--data-dir", str(self.emulator.folder))
        once = ("emulator", "exec", *data, "--", str(kit.COMMAND), "emulator", "exec", *data, "--")
        done = kit.Cli(project.path, self.environ)(*once, *words, expect=code)
        assert PASSWORD not in done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, emulator: Emulator, package_sources: Mapping[str, str]
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("under-emulator")
    for name in ("index", "authority"):
        (folder / name).mkdir()
    image = f"himl-under-emulator-{uuid.uuid4().hex[:8]}"
    with outside_serving(folder / "index", folder / "authority", f"me:{PASSWORD}") as server:
        kept = {name: value for name, value in kit.clean_environ().items() if name not in emulator.variables}
        environ = {
            **kept,
            **package_sources,
            **server.variables,
            "HOME": str(emulator.home),
            "AZUREML_DEFAULT_BACKOFF": "1",
            "HIML_CONTAINER_IMAGE_NAME": image,
            "HIML_CONTAINER_PIP_INDEX_URL": f"https://{HOST}",
            "UV_CACHE_DIR": str(folder / "uv"),
            "UV_HTTP_RETRIES": "0",
        }
        yield World(folder, emulator, environ, server)
    kit.remove_images(image)


def test_a_script_without_a_lock_is_submitted(world: World, workspace: Workspace) -> None:
    project, package = world.project("script")
    python = (sys.executable, "-W", "ignore", "train.py", "--azureml")
    # The emulator lets nothing out: without knowing what its variables replaced, there is no way to the index.
    failed = world.under_emulator(project, "env", f"{OUTSIDE}=", *python, code=None)
    assert failed.returncode != 0
    assert HOST in failed.stderr
    assert not world.server.seen
    assert not (project.path / "pylock.himl.toml").exists()

    done = world.under_emulator(project, *python)
    assert done.stdout.splitlines()[-1] == "AzureML completed."
    run = workspace.get_run((project.path / "most_recent_run.txt").read_text().rpartition(":")[2])
    assert text_of(run).splitlines()[-1] == "imported 1.0"
    assert f"/{package}/" in world.server.seen
    texts = [path.read_bytes() for path in project.path.rglob("*") if path.is_file()]
    assert not any(PASSWORD.encode() in text for text in texts)
    assert PASSWORD not in str(run.get_details())


def test_the_command_line_submits_and_builds(world: World) -> None:
    project, package = world.project("commands")
    json_of = ("--json", "--no-test")
    submitted = world.under_emulator(
        project, str(kit.COMMAND), "submit", "--azureml", "--cluster", "cpu-cluster", *json_of, "train.py"
    )
    assert json.loads(submitted.stdout.splitlines()[-1])["run"]
    assert f"/{package}/" in world.server.seen

    other, package = world.project("push")
    locked = world.under_emulator(other, str(kit.COMMAND), "lock", "--json")
    assert json.loads(locked.stdout.splitlines()[-1])["wheels"] == 1
    assert f"/{package}/" in world.server.seen
    world.server.seen.clear()
    ran = world.under_emulator(other, str(kit.COMMAND), "run", "--local", "train.py")
    assert ran.stdout.splitlines()[-1] == "imported 1.0"
    assert any(path.endswith(".whl") for path in world.server.seen if package in path)
    registry = ("--registry", world.emulator.installation.workspace.registry_host)
    for built in (True, False):
        pushed = world.under_emulator(other, str(kit.COMMAND), "build", "--push", *registry, *json_of)
        found = json.loads(pushed.stdout.splitlines()[-1])
        assert found["digest"]
        assert found["pushed"]["existed"] is False if built else "pushed" not in found
    docker_cli("rmi", "--force", found["tag"])
    # What the emulator's registry has is pulled from there.
    pulled = world.under_emulator(other, str(kit.COMMAND), "build", *registry, *json_of)
    assert json.loads(pulled.stdout.splitlines()[-1])["pulled"] is True
