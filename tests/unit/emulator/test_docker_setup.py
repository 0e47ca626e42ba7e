"""What Docker needs for the emulator's registry, as it is printed."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from himl_container.emulator.docker_setup import docker_setup
from himl_container.emulator.installation import open_installation


def test_the_steps_are_a_shells(tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    made = open_installation(folder, workspace_name="ws", resource_group="group")
    found = docker_setup(made, 5010)
    text = found.as_text()
    subprocess.run(["sh", "-n"], input=text.encode(), check=True)
    host = made.workspace.registry_host
    assert shlex.split(text.splitlines()[1])[-2:] == [str(folder / "ca.pem"), f"/etc/docker/certs.d/{host}/ca.crt"]
    assert made.client_secret not in text + str(found.as_json())


def test_the_drop_in_names_the_proxy(tmp_path: Path) -> None:
    made = open_installation(tmp_path / "data", workspace_name="ws", resource_group="group")
    found = docker_setup(made, 5010)
    line = next(line for line in found.as_text().splitlines() if line.startswith("printf"))
    printed = subprocess.run(["sh", "-c", line.partition("|")[0]], capture_output=True, text=True, check=True).stdout
    assert printed == '[Service]\nEnvironment="HTTPS_PROXY=http://127.0.0.1:5010" "NO_PROXY=127.0.0.1,localhost"\n'
