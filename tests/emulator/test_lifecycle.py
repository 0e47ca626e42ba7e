"""Start, stop, kill and look at an emulator, through the command line."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit
import pytest
from emulator_fixtures import Emulator, emulator_cli, kill_emulator, require_servers, start_emulator

pytestmark = pytest.mark.emulator


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of an emulator of this test alone, with a name that needs quoting."""
    require_servers()
    path = tmp_path / "it's a folder"
    yield path
    emulator_cli(path, "stop")


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator that the tests of this file leave as it is, in a folder with a name that needs quoting."""
    place = tmp_path_factory.mktemp("steady")
    folder = place / "it's a folder"
    yield start_emulator(folder, place / "home")
    emulator_cli(folder, "stop")


def _result(done: Any) -> dict[str, Any]:
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _secrets(running: Emulator) -> str:
    return f"https://eastus.api.azureml.ms/credential/v2.0/{running.installation.workspace.path}/secrets"


def _blob(running: Emulator, name: str) -> Any:
    """A blob of the emulator's storage, straight to Azurite."""
    from himl_container.emulator.azurite_blobs import AzuriteBlobs

    text = (running.folder / "azurite.log").read_text()
    address = text.rpartition("listens on ")[2].split()[0]
    return AzuriteBlobs(running.installation, address), "azureml", name


def test_start_stop_start(folder: Path, tmp_path: Path) -> None:
    first = start_emulator(folder, tmp_path / "home")
    assert _result(emulator_cli(folder, "status", "--json"))["port"] == first.port
    made = first.installation
    assert _result(emulator_cli(folder, "stop", "--json"))["stopped"] is True
    assert _result(emulator_cli(folder, "status", "--json", expect=1))["running"] is False
    assert _result(emulator_cli(folder, "stop", "--json"))["stopped"] is False
    second = start_emulator(folder, tmp_path / "home")
    # Clients' caches hold the address of the page, and configuration files hold the ids.
    assert (second.port, second.installation) == (first.port, made)
    # Five seconds, where nothing else wants the processors, which may be four times as slow as a usual machine's.
    crowd = max(1.0, max(os.getloadavg()) / (os.cpu_count() or 1))
    assert min(first.seconds, second.seconds) < 5 * 4 * crowd


def test_killed_at_once_after_an_answer(folder: Path, tmp_path: Path) -> None:
    """What was acknowledged is there after a kill, and nothing of the killed one runs on."""
    from himl_container.emulator.processes import ProcessId

    running = start_emulator(folder, tmp_path / "home")
    children = json.loads((folder / "children.json").read_text())
    client = running.session()
    blobs, container, name = _blob(running, "ExperimentRun/dcid.x/file.txt")
    blobs.put(container, name, b"content")
    assert client.put(_secrets(running), json={"name": "kept", "value": "yes"}, timeout=60).status_code == 200
    kill_emulator(folder)
    again = start_emulator(folder, tmp_path / "home")
    assert again.installation == running.installation
    assert again.session().get(f"{_secrets(again)}/kept", timeout=60).json()["value"] == "yes"
    blobs, container, name = _blob(again, name)
    assert blobs.read(container, name) == b"content"
    assert not any(ProcessId(item["pid"], item["began"]).alive() for item in children.values())


def test_azurite_saves_sooner_than_by_itself(steady: Emulator) -> None:
    """What was stored is in Azurite's tables long before the five seconds after which it writes them by itself."""
    tables = steady.folder / "azurite" / "__azurite_db_blob__.json"

    def seconds(name: str) -> float:
        blobs, container, _ = _blob(steady, name)
        blobs.put(container, name, b"content")
        begin = time.monotonic()
        while name.encode() not in (tables.read_bytes() if tables.exists() else b""):
            assert time.monotonic() < begin + 60
            time.sleep(0.02)
        return time.monotonic() - begin

    # Each comes just after the one before was saved, so that by itself Azurite would let all but the first wait.
    assert min([seconds(f"saved-{number}.txt") for number in range(4)][1:]) < 4


def test_one_emulator_a_folder(steady: Emulator) -> None:
    done = steady.cli("start", "--detach", "--port", "0", expect=73)
    assert f"an emulator runs in this folder already at port {steady.port}" in done.stderr
    done = steady.cli("reset", "--yes", expect=73)
    assert "runs in this folder" in done.stderr


def test_port_is_taken(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = emulator_cli(folder, "start", "--detach", "--port", str(other.getsockname()[1]), expect=73)
    assert "is taken" in done.stderr
    assert "--port" in done.stderr
    assert _result(emulator_cli(folder, "status", "--json", expect=1))["running"] is False


def test_program_is_missing(folder: Path) -> None:
    folder.mkdir()
    (folder / "emulator.toml").write_text('azurite = "/nowhere/azurite-blob"\n')
    done = emulator_cli(folder, "start", "--detach", "--port", "0", expect=65)
    assert "/nowhere/azurite-blob" in done.stderr
    assert "npm install" in done.stderr


def test_wrong_configuration(folder: Path) -> None:
    folder.mkdir()
    (folder / "emulator.toml").write_text("token-lifetime = 'long'\n")
    done = emulator_cli(folder, "start", "--detach", "--port", "0", expect=65)
    assert "emulator.toml" in done.stderr
    assert "token-lifetime" in done.stderr
    assert not (folder / "state.json").exists()


def test_child_that_dies_ends_the_emulator(folder: Path, tmp_path: Path) -> None:
    from himl_container.emulator.folder import find_running

    running = start_emulator(folder, tmp_path / "home")
    children = json.loads((folder / "children.json").read_text())
    os.kill(children["registry"]["pid"], signal.SIGKILL)
    # It keeps the lock until it has stopped everything.
    with (folder / "emulator.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    assert find_running(folder) is None
    assert "registry has ended by itself" in running.log


def test_foreground_ends_with_ctrl_c(folder: Path) -> None:
    words = [kit.COMMAND, "emulator", "start", "--data-dir", folder, "--port", "0", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=kit.clean_environ()) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["config"] == str(folder / "config.json")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert not (folder / "running.json").exists()
    assert not (folder / "children.json").exists()


def test_variables_for_a_shell(steady: Emulator) -> None:
    """The lines can be evaluated whatever the folder is called, and taken back."""
    shown = steady.cli("env").stdout
    script = f'{shown}\nprintf "%s\\n" "$HIML_EMULATOR_CONFIG" "$no_proxy"'
    environ = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.splitlines() == [str(steady.config), "127.0.0.1,localhost"]
    undone = steady.cli("env", "--unset").stdout
    done = subprocess.run(["sh", "-euc", f"{shown}\n{undone}\nenv"], capture_output=True, check=True, env=environ)
    assert not any(
        line.startswith((b"AZURE", b"MSI_", b"https_", b"HIML_EMULATOR_")) for line in done.stdout.splitlines()
    )


def test_exec(steady: Emulator) -> None:
    script = "import os, sys; print(os.environ['https_proxy'], os.environ['no_proxy'], sys.argv[1:]); sys.exit(7)"
    words = ("exec", "--", sys.executable, "-c", script, "--port", "x y")
    cli = kit.Cli(Path.cwd(), kit.clean_environ(no_proxy="internal.example"))
    done = cli("emulator", words[0], "--data-dir", steady.folder, *words[1:], expect=7)
    assert done.stdout.strip() == f"{steady.address} internal.example,127.0.0.1,localhost ['--port', 'x y']"
    done = steady.cli("exec", "--", "no-such-program", expect=65)
    assert "no-such-program" in done.stderr


def test_nothing_runs(folder: Path) -> None:
    for words in (("env",), ("exec", "--", "true")):
        done = emulator_cli(folder, *words, expect=73)
        assert "emulator start" in done.stderr


def test_reset(folder: Path, tmp_path: Path) -> None:
    running = start_emulator(folder, tmp_path / "home")
    before = running.installation
    (folder / "emulator.toml").write_text('workspace = "renamed"\n')
    emulator_cli(folder, "stop")
    words = [kit.COMMAND, "emulator", "reset", "--data-dir", folder]
    done = subprocess.run(words, input="n\n", text=True, capture_output=True, check=False)
    assert done.returncode == 130
    assert (folder / "state.json").exists()
    emulator_cli(folder, "reset", "--yes")
    assert sorted(item.name for item in folder.iterdir()) == ["emulator.lock", "emulator.toml"]
    after = start_emulator(folder, tmp_path / "home").installation
    assert after.workspace.name == "renamed"
    assert before.workspace.workspace_id != after.workspace.workspace_id
    assert before.client_secret != after.client_secret


def test_reset_removes_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = emulator_cli(tmp_path, "reset", "--yes", expect=65)
    assert "not the folder of an emulator" in done.stderr
    assert (tmp_path / "thesis.txt").exists()


def test_damaged_state(folder: Path) -> None:
    folder.mkdir()
    (folder / "state.json").write_text('{"version": 1}')
    done = emulator_cli(folder, "start", "--detach", "--port", "0", expect=65)
    assert "not the state of an emulator" in done.stderr
    assert "emulator reset" in done.stderr


def test_two_emulators_know_nothing_of_each_other(emulator: Emulator, steady: Emulator) -> None:
    """A token, a certificate and a storage account of one are nothing to the other."""
    import requests

    client = steady.session()
    client.headers["Authorization"] = emulator.headers()["Authorization"]
    answer = client.get("https://management.azure.com/subscriptions", timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "InvalidAuthenticationToken")
    client.verify = emulator.variables["REQUESTS_CA_BUNDLE"]
    with pytest.raises(requests.exceptions.SSLError):
        client.get("https://management.azure.com/subscriptions", timeout=60)
