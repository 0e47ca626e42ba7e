"""The services of compute targets and of execution behind a router, with a played daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.emulator.compute_fakes import CLUSTERS, Plant
from unit.emulator.history_rig import USER, WORKSPACE, job
from unit.launch.launch_fakes import Script

from himl_container.emulator.access import Access
from himl_container.emulator.http import Refusal, Request
from himl_container.emulator.identity import Identity
from himl_container.emulator.routes import Host, Router
from himl_container.emulator.services.compute import ComputeService
from himl_container.emulator.services.execution import ExecutionService
from himl_container.emulator.state.runs import Status
from himl_container.emulator.state.snapshots import Snapshots
from himl_container.emulator.tokens import Tokens

BODY: dict[str, Any] = {"Configuration": {"script": "train.py", "target": "cpu", "nodeCount": 1}}


class Rig:
    def __init__(self, folder: Path) -> None:
        self.plant = Plant(folder, Script(exit_code=None, on={"SIGTERM": 0, "SIGKILL": 137}))
        plant = self.plant
        access = Access(plant.runs, Mock(spec=Tokens))
        snapshots = Snapshots(plant.database, plant.blobs, lambda: 0.0)
        execution = ExecutionService(plant.database, plant.runs, snapshots, plant.compute, access, data=plant.data)
        compute = ComputeService(WORKSPACE, plant.compute, 1_800_000_000.0)
        self.router = Router([*execution.routes(), *compute.routes()])

    def ask(
        self, verb: str, path: str, body: Any = None, *, host: Host = "api", identity: Identity = USER, **query: str
    ) -> dict[str, Any]:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        asked = {name: (value,) for name, value in query.items()}
        path = path.replace("{ws}", WORKSPACE.path)
        found = self.router.find(host, Request(verb, host, path, asked, body=data, identity=identity))
        answer = found.route.handler(found.request)
        assert isinstance(answer.body, bytes)
        return dict(json.loads(answer.body))

    def start(self, body: Any = None, *, identity: Identity = USER, **query: str) -> str:
        path = "/execution/v1.0/{ws}/experiments/exp/snapshotrun"
        return str(self.ask("POST", path, BODY if body is None else body, identity=identity, **query)["runId"])


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.plant.compute.stop(20)


def refusal(rig: Rig, *words: Any, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        rig.start(*words, **options)
    return caught.value


def test_a_submission_makes_a_queued_run(rig: Rig) -> None:
    assert rig.start(runId="mine_1") == "mine_1"
    run = rig.plant.runs.get("mine_1")
    assert (run.status, run.target, run.experiment, run.created_by) == (Status.QUEUED, "cpu", "exp", "somebody")
    assert dict(run.definition) == BODY["Configuration"]
    assert rig.plant.runs.get(rig.start()).experiment == "exp"  # an id is made where the client gives none
    assert refusal(rig, runId="mine_1").status == 409


def test_an_empty_folder_in_an_empty_workspace_has_the_snapshot_of_nothing(rig: Rig) -> None:
    rig.start({**BODY, "SnapshotId": "00000000-0000-0000-0000-000000000000"}, runId="empty")
    assert rig.plant.runs.get("empty").snapshot_id == ""


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        (b"{", 400),
        ([], 400),
        ({"Configuration": []}, 400),
        ({"Configuration": {**BODY["Configuration"], "target": "nowhere"}}, 404),
        ({"Configuration": {**BODY["Configuration"], "nodeCount": 3}}, 400),
        ({**BODY, "SnapshotId": "00000000-0000-0000-0000-000000000001"}, 404),
        ({**BODY, "SnapshotId": "../x"}, 400),
        ({**BODY, "ParentRunId": "nobody"}, 404),
        ({**BODY, "ParentRunId": 3}, 400),
    ],
)
def test_what_is_refused_leaves_nothing(rig: Rig, body: Any, status: int) -> None:
    assert refusal(rig, body).status == status
    assert rig.plant.runs.all() == []
    assert rig.plant.jobs.all() == []


@pytest.mark.parametrize("run_id", ["../x", "a/b", "a\0b", "x" * 300, "-x", " "])
def test_an_id_that_is_none(rig: Rig, run_id: str) -> None:
    assert refusal(rig, runId=run_id).status == 400
    assert rig.plant.jobs.all() == []


def test_a_job_starts_and_cancels_what_is_its_own(rig: Rig) -> None:
    rig.start(runId="own")
    rig.start(runId="other")
    child = rig.start({**BODY, "ParentRunId": "own"}, identity=job("own"), runId="child")
    assert rig.plant.runs.get(child).parent_id == "own"
    assert refusal(rig, identity=job("own")).status == 403
    assert refusal(rig, {**BODY, "ParentRunId": "other"}, identity=job("own")).status == 403
    path = "/execution/v1.0/{ws}/experiments/exp/runId/%s/cancel"
    with pytest.raises(Refusal) as caught:
        rig.ask("POST", path % "other", identity=job("own"))
    assert caught.value.status == 403
    assert rig.ask("POST", path % "child", identity=job("own"))["status"] == "Canceled"
    assert rig.ask("POST", path % "other")["status"] == "Canceled"
    with pytest.raises(Refusal) as caught:
        rig.ask("POST", "/execution/v1.0/{ws}/experiments/another/runId/own/cancel")
    assert caught.value.status == 404


def test_the_data_of_what_a_job_submits_are_what_the_job_may_read(rig: Rig) -> None:
    rig.start(runId="own")
    rig.plant.data.forbidden = True
    assert refusal(rig, {**BODY, "ParentRunId": "own"}, identity=job("own"), runId="child").status == 403
    assert rig.plant.runs.find("child") is None
    rig.start({**BODY, "ParentRunId": "own"}, runId="of_user")  # to a user nothing is forbidden
    rig.plant.data.forbidden = False
    rig.start({**BODY, "ParentRunId": "own"}, identity=job("own"), runId="child")
    runs = rig.plant.runs
    assert [runs.get(name).submitter for name in ("own", "of_user", "child")] == ["", "", "own"]
    # ... and whoever lays the data out later is told for whom it does.
    rig.plant.compute.cancel("of_user")  # the cluster has two nodes
    rig.plant.compute.start()
    for run_id in ("own", "child"):
        rig.plant.wait(run_id, Status.STARTING, Status.RUNNING)
    assert sorted(rig.plant.data.asked) == ["", "own"]


def test_preempt_is_for_users_and_running_jobs(rig: Rig) -> None:
    plant = rig.plant
    plant.compute.start()
    rig.start({"Configuration": {**BODY["Configuration"], "target": "low"}}, runId="r1")
    plant.running("r1")
    path = "/emulator/v1.0/{ws}/runs/r1/preempt"
    with pytest.raises(Refusal) as caught:
        rig.ask("POST", path, identity=job("r1"))
    assert caught.value.status == 403
    rig.ask("POST", path)
    plant.told("r1", Status.QUEUED, times=2)


def test_targets_and_their_nodes(rig: Rig) -> None:
    plant = rig.plant
    plant.compute.start()
    rig.start({"Configuration": {**BODY["Configuration"], "nodeCount": 2}}, runId="r1")
    plant.running("r1")
    found = rig.ask("GET", "/rp/workspaces/{ws}/computes")["value"]
    assert [item["name"] for item in found] == [cluster.name for cluster in CLUSTERS]
    (cpu, low) = (item["properties"]["properties"] for item in found)
    assert (cpu["currentNodeCount"], cpu["nodeStateCounts"]["runningNodeCount"]) == (2, 2)
    assert (cpu["subnet"], low["vmPriority"], low["currentNodeCount"]) == (None, "LowPriority", 0)
    assert "identity" not in found[0]
    one = rig.ask("GET", "//{ws}/computes/CPU", host="arm")
    assert one == found[0]
    nodes = rig.ask("POST", "//{ws}/computes/cpu/listNodes", host="arm")["nodes"]
    assert [node["runId"] for node in nodes] == ["r1", "r1"]
    for verb, status in (("GET", 404), ("PUT", 405)):
        with pytest.raises(Refusal) as caught:
            rig.ask(verb, "/rp/workspaces/{ws}/computes/nowhere", {})
        assert caught.value.status == status


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(["Configuration", "SnapshotId", "ParentRunId"]), JSON),
    st.text(max_size=20),
)
def test_whatever_is_sent_is_answered_or_refused(rig: Rig, body: dict[str, Any], run_id: str) -> None:
    try:
        rig.start(body, runId=run_id)
    except Refusal as refused:
        assert 400 <= refused.status < 500
