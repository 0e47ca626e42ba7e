"""The servers behind the emulator as containers, for a machine that has Docker and not their programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit
import pytest
from emulator_fixtures import emulator_cli, kill_emulator, require_servers, start_emulator

pytestmark = [pytest.mark.emulator, pytest.mark.docker]

_IMAGE = f"himl-test-registry-server:{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def image(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with this machine's registry, under the name that it has in the published one."""
    require_servers()
    if shutil.which("docker") is None:
        kit.lacking("the docker command is missing")
    context = tmp_path_factory.mktemp("servers")
    shutil.copy(str(shutil.which("docker-registry")), context / "registry")
    (context / "Dockerfile").write_text(f"FROM {base_image}\nCOPY registry /usr/local/bin/\n")
    subprocess.run(["docker", "build", "--quiet", "--tag", _IMAGE, str(context)], check=True, capture_output=True)
    yield _IMAGE
    subprocess.run(["docker", "rmi", "--force", _IMAGE], check=False, capture_output=True)


def _containers(short_id: str) -> list[str]:
    words = ["docker", "ps", "--all", "--filter", f"label=himl-container.emulator={short_id}", "--format", "{{.Names}}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def _owners(folder: Path) -> set[int]:
    """Who owns the files below a folder, of those that stay: Azurite writes a file aside and renames it."""
    found = set()
    for place, _, names in os.walk(folder):
        for name in (".", *names):
            with contextlib.suppress(FileNotFoundError):
                found.add(Path(place, name).lstat().st_uid)
    return found


def test_the_registry_in_a_container(image: str, tmp_path: Path) -> None:
    """It serves, is there again after a kill of the emulator, and is gone when that is stopped."""
    import requests

    # A comma has a meaning in Docker's options.
    folder = tmp_path / "a, folder"
    folder.mkdir()
    (folder / "emulator.toml").write_text(f'registry-image = "{image}"\n')
    running = start_emulator(folder, tmp_path / "home")
    try:
        short_id = running.installation.short_id
        for _ in range(2):
            assert _containers(short_id) == [f"himl-emulator-{short_id}-registry"]
            port = (folder / "registry.log").read_text().rpartition("listening on 127.0.0.1:")[2].partition('"')[0]
            login = running.installation.inner_registry_login
            words: dict[str, Any] = {"auth": login, "timeout": 30, "proxies": {"http": ""}}
            assert requests.get(f"http://127.0.0.1:{port}/v2/", **words).status_code == 200
            kill_emulator(folder)
            start_emulator(folder, tmp_path / "home")
        assert _owners(folder) == {os.getuid()}
    finally:
        emulator_cli(folder, "stop")
    assert _containers(short_id) == []
