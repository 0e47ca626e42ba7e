"""Which programs the emulator starts, and how, where its machine has them or not."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from himl_container.emulator import programs
from himl_container.emulator.config import EmulatorConfig
from himl_container.emulator.installation import Installation, open_installation
from himl_container.emulator.programs import azurite, preload_option, registry
from himl_container.errors import InputError


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return open_installation(tmp_path / "data", workspace_name="ws", resource_group="group")


@pytest.fixture
def has(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Decide which programs the machine has."""

    def decide(*names: str) -> None:
        monkeypatch.setattr(programs.shutil, "which", lambda name: f"/bin/{name}" if name in names else None)

    return decide


def test_programs_of_the_machine(installation: Installation, has: Callable[..., None]) -> None:
    has("azurite-blob", "docker-registry", "docker")
    storage, images = azurite(installation, EmulatorConfig()), registry(installation, EmulatorConfig())
    assert (storage.command[0], images.command[:2]) == ("/bin/azurite-blob", ("/bin/docker-registry", "serve"))
    assert storage.command[storage.command.index("--blobHost") + 1] == "127.0.0.1"
    assert '"127.0.0.1:0"' in Path(images.command[2]).read_text()
    assert storage.container == images.container == ""


def test_keys_are_on_no_command_line(
    installation: Installation, has: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "of the user")
    for names in (("azurite-blob",), ("docker",)):
        has(*names)
        program = azurite(installation, EmulatorConfig())
        assert installation.storage_key in program.environ["AZURITE_ACCOUNTS"]
        assert not any(installation.storage_key in word for word in program.command)
        assert "MY_SECRET" not in program.environ


def test_the_registry_asks_for_a_login(installation: Installation, has: Callable[..., None]) -> None:
    import bcrypt

    has("docker-registry")
    program = registry(installation, EmulatorConfig())
    settings = json.loads(Path(program.command[2]).read_text())
    users = Path(settings["auth"]["htpasswd"]["path"])
    user, password = installation.inner_registry_login
    name, _, hashed = users.read_text().strip().partition(":")
    assert name == user
    assert bcrypt.checkpw(password.encode(), hashed.encode())
    assert stat.S_IMODE(users.stat().st_mode) == 0o600
    assert not any(password in word for word in (*program.command, *program.environ.values()))
    has("docker")
    assert any(str(users) in word for word in registry(installation, EmulatorConfig()).command)


def test_published_images_where_there_are_no_programs(installation: Installation, has: Callable[..., None]) -> None:
    has("docker")
    for program, image in (
        (azurite(installation, EmulatorConfig()), "mcr.microsoft.com/azure-storage/azurite:"),
        (registry(installation, EmulatorConfig()), "registry:"),
    ):
        assert program.command[:2] == ("/bin/docker", "run")
        assert any(word.startswith(image) for word in program.command)
        assert program.container in program.command
        # On the loopback interface of this machine, as a program is.
        assert program.command[program.command.index("--network") + 1] == "host"
    storage = azurite(installation, EmulatorConfig())
    assert storage.command[storage.command.index("--blobHost") + 1] == "127.0.0.1"
    assert storage.command[storage.command.index("--entrypoint") + 1] == "azurite-blob"


def test_a_chosen_image_goes_before_a_program(installation: Installation, has: Callable[..., None]) -> None:
    has("azurite-blob", "docker")
    assert "mirror/azurite:1" in azurite(installation, EmulatorConfig(azurite_image="mirror/azurite:1")).command


def test_neither_program_nor_docker(installation: Installation, has: Callable[..., None]) -> None:
    has()
    with pytest.raises(InputError, match="azurite-blob is not installed, and neither") as caught:
        azurite(installation, EmulatorConfig())
    assert "npm install" in caught.value.hint
    with pytest.raises(InputError, match="docker-registry is not installed"):
        registry(installation, EmulatorConfig())


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
@pytest.mark.parametrize("name", ["plain", "a folder", 'quo"ted', "back\\slash", "it's"])
def test_node_loads_a_file_first_whatever_its_folder_is_called(tmp_path: Path, name: str) -> None:
    script = tmp_path / name / "first.cjs"
    script.parent.mkdir()
    script.write_text("console.log('first')")
    environ = {"NODE_OPTIONS": preload_option(script)}
    words = [str(shutil.which("node")), "-e", "console.log('second')"]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["first", "second"]
