"""Jobs, when the emulator is killed or stopped: what ran is dead and says so, what waited runs."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import Emulator, emulator_cli, kill_emulator, require_servers, start_emulator
from job_image import containers_of, wait_for
from unit.emulator.search_fakes import config as search_document

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


class Client:
    """Says what the SDK would say to one emulator, whatever the variables of this process are."""

    def __init__(self, emulator: Emulator, image: str) -> None:
        self._image, self._session = image, emulator.session()
        self._workspace = emulator.installation.workspace.path

    def submit(self, command: str) -> str:
        run_id = f"recovery_{uuid.uuid4().hex[:8]}"
        self._ask(
            "POST",
            f"execution/v1.0/{{}}/experiments/recovery/snapshotrun?runId={run_id}",
            json={"Configuration": self._definition(command)},
        )
        return run_id

    def search(self, command: str, space: dict[str, Any]) -> str:
        """Start a grid search with one child at a time; its documents are those of the SDK (``search_fakes``)."""
        document = search_document(space, overrides={"script": "", "arguments": [], **self._definition(command)})
        document["platform_config"]["Definition"]["SnapshotId"] = ""
        part = ("config.json", json.dumps({**document, "max_concurrent_jobs": 1}), "application/json")
        made = self._ask("POST", "hyperdrive/v1.0/{}/experiments/recovery/runs", files={"config": part})
        return str(made["result"]["hyperdrive_run_id"])

    def children(self, run_id: str) -> list[dict[str, Any]]:
        found = self._ask("GET", f"history/v1.0/{{}}/experiments/recovery/runs/{run_id}/children")["value"]
        return sorted(found, key=lambda run: str(run["runId"]))

    def _definition(self, command: str) -> dict[str, Any]:
        environment = {
            "name": "shell",
            "docker": {"baseImage": self._image},
            "python": {"userManagedDependencies": True},
        }
        return {"command": command, "target": "one", "environment": environment}

    def run(self, run_id: str) -> dict[str, Any]:
        return self._ask("GET", f"history/v1.0/{{}}/experiments/recovery/runs/{run_id}")

    def wait(self, run_id: str, status: str) -> dict[str, Any]:
        return dict(wait_for(lambda: next((run for run in [self.run(run_id)] if run["status"] == status), None)))

    def files(self, run_id: str) -> list[str]:
        found = self._ask("GET", f"artifact/v2.0/{{}}/artifacts/ExperimentRun/dcid.{run_id}")
        return [item["path"] for item in found["value"]]

    def _ask(self, verb: str, path: str, **body: Any) -> dict[str, Any]:
        address = "https://eastus.api.azureml.ms/" + path.format(self._workspace)
        answer = self._session.request(verb, address, **body, timeout=60)
        assert answer.ok, answer.text
        return dict(answer.json())


def _begin(running: Emulator, base_image: str) -> tuple[Client, str, str]:
    """Let one job run for ever, and another one wait for its node."""
    client = Client(running, base_image)
    first = client.submit("echo kept > outputs/x; echo event > logs/l; echo begun; while :; do sleep 0.1; done")
    client.wait(first, "Running")
    wait_for(lambda: {"logs/l", "user_logs/std_log.txt"} <= set(client.files(first)))
    second = client.submit("echo two > outputs/y")
    assert client.run(second)["status"] == "Queued"
    return client, first, second


def test_a_killed_emulator_finds_its_jobs_dead(folder: Path, base_image: str, tmp_path: Path) -> None:
    running = start_emulator(folder, tmp_path / "home")
    client, first, second = _begin(running, base_image)
    kill_emulator(folder)
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
    assert time.monotonic() - begin < 50  # it waits for a minute for jobs that do not end
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


def test_a_search_goes_on_after_a_kill(folder: Path, base_image: str, tmp_path: Path) -> None:
    client = Client(start_emulator(folder, tmp_path / "home"), base_image)
    command = 'lr=${{search_space.lr}}; echo "$lr" > outputs/lr; while [ "$lr" = 2 ]; do sleep 0.1; done'
    search = client.search(command, {"lr": ["choice", [[1, 2, 3]]]})
    wait_for(lambda: [child["status"] for child in client.children(search)] == ["Completed", "Running"])
    kill_emulator(folder)
    client = Client(start_emulator(folder, tmp_path / "home"), base_image)
    run = client.wait(search, "Completed")
    # No child is there twice and none is left out, and each has kept the parameters that it was given.
    children = client.children(search)
    assert [child["runId"] for child in children] == [f"{search}_{number}" for number in range(3)]
    assert [child["status"] for child in children] == ["Completed", "Failed", "Completed"]
    assert "found dead" in children[1]["error"]["error"]["message"]
    given = [json.loads(child["tags"]["hyperparameters"]) for child in children]
    assert given == [{"lr": 1}, {"lr": 2}, {"lr": 3}]
    assert {f"{search}_{number}" for number in range(3)} <= set(run["tags"])
    assert "outputs/lr" in client.files(f"{search}_2")
