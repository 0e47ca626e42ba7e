"""Jobs, when the emulator is killed or stopped: what ran is dead and says so, what waited runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import Emulator, emulator_cli, require_servers, start_emulator
from job_image import containers_of, wait_for

pytestmark = [pytest.mark.emulator, pytest.mark.docker]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of an emulator of this test alone, whose cluster has one node."""
    require_servers()
    path = tmp_path / "emulator"
    path.mkdir()
    (path / "emulator.toml").write_text("[clusters.one]\nmax-nodes = 1\n")
    yield path
    emulator_cli(path, "stop")


@dataclass(frozen=True)
class Client:
    """Says what the SDK would say to one emulator, whatever the variables of this process are."""

    emulator: Emulator
    image: str

    def submit(self, command: str) -> str:
        run_id = f"recovery_{uuid.uuid4().hex[:8]}"
        environment = {
            "name": "shell",
            "docker": {"baseImage": self.image},
            "python": {"userManagedDependencies": True},
        }
        definition = {"command": command, "target": "one", "environment": environment}
        self._ask(
            "POST",
            f"execution/v1.0/{{}}/experiments/recovery/snapshotrun?runId={run_id}",
            {"Configuration": definition},
        )
        return run_id

    def run(self, run_id: str) -> dict[str, Any]:
        return self._ask("GET", f"history/v1.0/{{}}/experiments/recovery/runs/{run_id}")

    def wait(self, run_id: str, status: str) -> dict[str, Any]:
        return dict(wait_for(lambda: next(iter([run for run in [self.run(run_id)] if run["status"] == status]), None)))

    def files(self, run_id: str) -> list[str]:
        found = self._ask("GET", f"artifact/v2.0/{{}}/artifacts/ExperimentRun/dcid.{run_id}")
        return [item["path"] for item in found["value"]]

    def _ask(self, verb: str, path: str, body: Any = None) -> dict[str, Any]:
        address = "https://eastus.api.azureml.ms/" + path.format(self.emulator.installation.workspace.path)
        answer = self._session().request(verb, address, json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def _session(self) -> Any:
        import requests

        made = self.emulator.installation
        session = requests.Session()
        session.trust_env = False
        session.proxies = {"https": self.emulator.address}
        session.verify = self.emulator.variables["REQUESTS_CA_BUNDLE"]
        form = {"grant_type": "client_credentials", "client_id": made.client_id, "client_secret": made.client_secret}
        address = f"https://login.microsoftonline.com/{made.workspace.tenant_id}/oauth2/v2.0/token"
        scope = "https://management.core.windows.net//.default"
        token = session.post(address, data={**form, "scope": scope}, timeout=60).json()["access_token"]
        session.headers["Authorization"] = f"Bearer {token}"
        return session


def _begin(running: Emulator, base_image: str) -> tuple[Client, str, str]:
    """Let one job run for ever, and another one wait for its node."""
    client = Client(running, base_image)
    first = client.submit("echo kept > outputs/x; echo event > logs/l; echo begun; while :; do sleep 0.1; done")
    client.wait(first, "Running")
    wait_for(lambda: "logs/l" in client.files(first))
    second = client.submit("echo two > outputs/y")
    assert client.run(second)["status"] == "Queued"
    return client, first, second


def test_a_killed_emulator_finds_its_jobs_dead(folder: Path, base_image: str, tmp_path: Path) -> None:
    running = start_emulator(folder, tmp_path / "home")
    client, first, second = _begin(running, base_image)
    pid = json.loads(emulator_cli(folder, "status", "--json").stdout.splitlines()[-1])["pid"]
    os.kill(pid, signal.SIGKILL)
    assert len(containers_of(first)) == 1  # nobody was there to end it
    client = Client(start_emulator(folder, tmp_path / "home"), base_image)
    run = client.wait(first, "Failed")
    assert "found dead" in run["error"]["error"]["message"]
    assert run["endTimeUtc"]
    assert {"outputs/x", "logs/l", "user_logs/std_log.txt"} <= set(client.files(first))
    assert containers_of(first) == []
    client.wait(second, "Completed")
    assert "outputs/y" in client.files(second)


def test_a_stopped_emulator_ends_its_jobs(folder: Path, base_image: str, tmp_path: Path) -> None:
    running = start_emulator(folder, tmp_path / "home")
    client, first, second = _begin(running, base_image)
    begin = time.monotonic()
    emulator_cli(folder, "stop")
    assert time.monotonic() - begin < 30
    assert containers_of(first) == []
    client = Client(start_emulator(folder, tmp_path / "home"), base_image)
    run = client.run(first)
    assert run["status"] == "Failed"
    assert "emulator was stopped" in run["error"]["error"]["message"]
    assert "outputs/x" in client.files(first)
    client.wait(second, "Completed")


def test_a_container_that_is_removed_from_outside(folder: Path, base_image: str, tmp_path: Path) -> None:
    client, first, second = _begin(start_emulator(folder, tmp_path / "home"), base_image)
    (name,) = containers_of(first)
    subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)
    run = client.wait(first, "Failed")
    assert run["error"]["error"]["message"]
    assert "outputs/x" in client.files(first)
    client.wait(second, "Completed")
