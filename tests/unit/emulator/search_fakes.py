"""A search in memory: the real state, and a compute and a clock that the test moves."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from unit.emulator.memory_blobs import MemoryBlobs

from himl_container.emulator.compute.model import Cluster
from himl_container.emulator.http import Refusal
from himl_container.emulator.hyperdrive.controller import Surroundings
from himl_container.emulator.hyperdrive.definition import read_search
from himl_container.emulator.hyperdrive.journal import LOG, Journal
from himl_container.emulator.hyperdrive.searches import Searches
from himl_container.emulator.hyperdrive.store import SearchStore
from himl_container.emulator.state.artifacts import Artifacts
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.metrics import SCALAR, Metric, Metrics, Value
from himl_container.emulator.state.runs import Run, Runs, Status

SNAPSHOT = "00000000-0000-0000-0000-000000000001"


def config(
    space: Mapping[str, Any] | None = None,
    *,
    sampling: str = "GRID",
    policy: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    properties: Mapping[str, Any] | None = None,
    **values: Any,
) -> dict[str, Any]:
    """What the SDK sends for a search."""
    run = {"script": "train.py", "arguments": ["--fixed", 1], "target": "cpu", "nodeCount": 1, **(overrides or {})}
    generator = {"name": sampling, "parameter_space": space or {"lr": ["choice", [[0.1, 0.2, 0.3]]]}}
    return {
        "generator_config": {**generator, **({"properties": dict(properties)} if properties else {})},
        "max_concurrent_jobs": 2,
        "max_total_jobs": 10,
        "max_duration_minutes": 60,
        "name": "exp",
        "platform": "AML",
        "platform_config": {
            "ServiceAddress": "https://eastus.api.azureml.ms",
            "Definition": {"Overrides": run, "TargetDetails": None, "SnapshotId": SNAPSHOT},
        },
        "policy_config": dict(policy or {"name": "Default"}),
        "primary_metric_config": {"name": "loss", "goal": "minimize"},
        "user": "nobody@example.com",
        **values,
    }


class FakeCompute:
    """Queues what it is given; the test decides what becomes of it."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self.submitted: list[str] = []
        self.cancelled: list[str] = []
        self.error: Exception | None = None
        self.slow = False

    def check(self, target: str, definition: Mapping[str, Any]) -> Cluster:
        name = str(definition.get("target") or target)
        if name != "cpu":
            raise Refusal(404, "NotFound", f"Compute target {name} was not found.")
        return Cluster("cpu")

    def submit(self, run_id: str) -> None:
        if self.error is not None:
            raise self.error
        self.submitted.append(run_id)
        self._runs.set_status(run_id, Status.QUEUED)

    def cancel(self, run_id: str) -> None:
        self.cancelled.append(run_id)
        self._runs.set_status(run_id, Status.CANCEL_REQUESTED if self.slow else Status.CANCELED)


class Bench:
    """Searches without threads and without a server."""

    def __init__(self, database: Path | str = ":memory:") -> None:
        self.now = 1_700_000_000.0
        self.database = Database(database)
        self.runs = Runs(self.database, self.clock)
        self.metrics = Metrics(self.database, self.clock)
        self.blobs = MemoryBlobs()
        self.artifacts = Artifacts(self.database, self.blobs, self.clock)
        self.compute = FakeCompute(self.runs)
        self.searches = self.new_searches()

    def clock(self) -> float:
        return self.now

    def new_searches(self) -> Searches:
        """What an emulator has that was started on this state."""
        journal = Journal(self.runs, self.metrics, self.artifacts, self.clock)
        store = SearchStore(self.database)
        around = Surroundings(self.database, self.runs, store, self.compute, self.metrics, journal, self.clock)
        return Searches(around)

    def submit(self, document: Mapping[str, Any]) -> str:
        """Start a search and do its first step."""
        run = self.searches.create("exp", document, "cpu", read_search(document))
        self.searches.step()
        return run.run_id

    def report(self, run_id: str, *values: float, name: str = "loss") -> None:
        """What a child's script does: ``run.log``."""
        self.runs.set_status(run_id, Status.RUNNING)
        rows = tuple(Value(str(uuid.uuid4()), self.now, {name: value}) for value in values)
        self.metrics.add(run_id, [Metric(name, SCALAR, {name: "double"}, rows)])

    def end(self, run_id: str, *values: float, status: Status = Status.COMPLETED) -> None:
        if values:
            self.report(run_id, *values)
        self.runs.set_status(run_id, status)

    def children(self, run_id: str) -> list[Run]:
        return self.runs.children(run_id)

    def statuses(self, run_id: str) -> list[str]:
        return [run.status.value for run in self.children(run_id)]

    def log(self, run_id: str) -> str:
        return self.artifacts.read(run_id, LOG).decode()


def sdk(name: str) -> Any:
    """Import a module of the SDK; skip where it is not installed.

    ``azureml.core`` comes first: it looks for the packages that know further types of runs, and one that is half
    imported at that moment is left out for the rest of the process.
    """
    pytest.importorskip("azureml.core")
    return pytest.importorskip(name)
