"""The HyperDrive service's requests: the SDK's multipart, identities, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.search_fakes import SNAPSHOT, Bench, config, sdk

from himl_container.emulator.access import Access
from himl_container.emulator.http import Refusal, Request, not_found
from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.routes import Router
from himl_container.emulator.services.hyperdrive import HyperDriveService, read_config

PATH = "/hyperdrive/v1.0/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
USER = Identity(Kind.USER, "somebody")


class Snapshots:
    def get(self, snapshot_id: str) -> object:
        if snapshot_id != SNAPSHOT:
            raise not_found(f"Snapshot {snapshot_id}")
        return snapshot_id


def multipart(document: Any, name: str = "config") -> tuple[bytes, dict[str, str]]:
    text = document if isinstance(document, str) else json.dumps(document)
    head = f'--limit\r\nContent-Disposition: form-data; name="{name}"; filename="config.json"'
    return f"{head}\r\n\r\n{text}\r\n--limit--\r\n".encode(), {"content-type": "multipart/form-data; boundary=limit"}


class Data:
    forbidden = False

    def check(self, run_id: str, definition: Mapping[str, Any], submitter: str) -> None:
        assert definition["script"] == "train.py"
        if self.forbidden:
            raise Refusal(403, "AuthorizationFailed", f"not for the job of {submitter}")


class Service:
    def __init__(self) -> None:
        self.data = Data()
        self.bench = Bench()
        # A job's token is not asked for here.
        access = Access(self.bench.runs, tokens=None)  # type: ignore[arg-type]
        service = HyperDriveService(self.bench.searches, Snapshots(), self.bench.compute, access, self.data)
        self._router = Router(service.routes())

    def __call__(self, path: str, document: Any = None, identity: Identity = USER) -> tuple[int, dict[str, Any]]:
        body, headers = (b"", {}) if document is None else multipart(document)
        whole = f"{PATH}/experiments/exp/{path}"
        request = Request("POST", "api", whole, body=body, headers=headers, identity=identity)
        found = self._router.find("api", request)
        answer = found.route.handler(found.request)
        assert isinstance(answer.body, bytes)
        return answer.status, json.loads(answer.body)


def test_a_search_is_created_and_cancelled() -> None:
    service = Service()
    status, answer = service("runs", config())
    assert (status, answer["code"]) == (201, 201)
    run_id = answer["result"]["platform_config"]["ParentRunId"]
    assert answer["result"]["hyperdrive_run_id"] == run_id
    run = service.bench.runs.get(run_id)
    assert (run.experiment, run.target, run.created_by) == ("exp", "cpu", "somebody")
    assert service(f"runs/{run_id}/cancel") == (200, {"code": 200, "result": f"Run {run_id} is CancelRequested."})


def test_the_clients_own_models_understand_the_answer() -> None:
    models = sdk("azureml.train.restclients.hyperdrive.models")
    from msrest import Deserializer

    _, answer = Service()("runs", config())
    known = {name: item for name, item in vars(models).items() if isinstance(item, type)}
    found = Deserializer(known)("ExperimentResponseDto", answer)
    assert found.result.platform_config["ParentRunId"].startswith("HD_")
    assert found.result.generator_config.name == "GRID"
    assert found.result.max_total_jobs == 10


def test_the_sdk_makes_its_configuration_again_out_of_the_tags() -> None:
    hyperdrive = sdk("azureml.train.hyperdrive")
    service = Service()
    policy = hyperdrive.TruncationSelectionPolicy(20, 2, 4)
    sampling = hyperdrive.GridParameterSampling({"lr": hyperdrive.choice(0.1, 0.2)})
    document = config(policy=policy.to_json())
    document["generator_config"] = sampling.to_json()
    _, answer = service("runs", document)
    run = service.bench.runs.get(answer["result"]["hyperdrive_run_id"])
    again = hyperdrive.HyperDriveConfig._get_runconfig_from_run_dto(run)
    assert again._policy_config == policy.to_json()
    assert again._generator_config == sampling.to_json()
    assert again._primary_metric_config == {"name": "loss", "goal": "minimize"}
    assert (again._max_total_runs, again._max_concurrent_runs, again._max_duration_minutes) == (10, 2, 60)
    assert again._platform_config["ServiceAddress"] == "https://eastus.api.azureml.ms"
    assert (again._resume_from, again._resume_child_runs) == (None, None)


def test_a_search_may_be_given_its_id() -> None:
    service = Service()
    assert service("hdruns/mine", config())[1]["result"]["platform_config"]["ParentRunId"] == "mine"
    assert service("hdruns/mine", config())[0] == 409
    assert service("hdruns/..", config())[0] == 400


def test_a_job_may_search_below_its_own_run_only() -> None:
    service = Service()
    service.bench.runs.create("exp", "own")
    service.bench.runs.create("exp", "other")
    job = Identity(Kind.JOB, "own", "own")
    assert service("runs", config(), job)[0] == 403
    assert service("hdruns/named", config(), job)[0] == 403
    assert service("runs/other", config(), job)[0] == 403
    status, answer = service("runs/own", config(), job)
    assert status == 201
    run = service.bench.runs.get(answer["result"]["hyperdrive_run_id"])
    assert (run.parent_id, run.root_id, run.submitter) == ("own", "own", "own")
    service.bench.searches.step()
    assert [child.submitter for child in service.bench.children(run.run_id)] == ["own", "own"]
    service.data.forbidden = True
    assert service("runs/own", config(), job)[0] == 403
    _, foreign = service("runs", config())
    assert service(f"runs/{foreign['result']['hyperdrive_run_id']}/cancel", identity=job)[0] == 403


def test_a_refusal_has_its_reason_where_the_client_reads_it() -> None:
    service = Service()
    models = sdk("azureml.train.restclients.hyperdrive.models")
    from msrest import Deserializer

    status, answer = service("runs", config({"x": ["uniform", [2, 1]]}, sampling="RANDOM"))
    assert status == 400
    known = {name: item for name, item in vars(models).items() if isinstance(item, type)}
    assert "parameter x" in Deserializer(known)("ErrorResponse", answer).message
    assert service("runs", config(overrides={"target": "nowhere"}))[0] == 404
    document = config()
    document["platform_config"]["Definition"]["SnapshotId"] = "00000000-0000-0000-0000-000000000009"
    assert service("runs", document)[0] == 404
    assert service("runs/unknown/cancel")[0] == 404
    service.bench.runs.create("exp", "plain")
    assert service("runs/plain/cancel")[0] == 404
    assert service.bench.searches.step() is False, "nothing of it was kept"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"content-type": "application/json"}, 400),
        (b"{}", {}, 400),
        (b"", {"content-type": "multipart/form-data"}, 400),
        (multipart({}, name="other")[0], multipart({})[1], 400),
        (multipart("[]")[0], multipart({})[1], 400),
        (multipart("{")[0], multipart({})[1], 400),
        (multipart("[" * 100_000)[0], multipart({})[1], 400),
        (b"x" * (4 * 2**20 + 1), multipart({})[1], 413),
    ],
)
def test_a_body_that_is_none_is_refused(body: bytes, headers: dict[str, str], status: int) -> None:
    with pytest.raises(Refusal) as refused:
        read_config(Request("POST", "api", "/", body=body, headers=headers))
    assert refused.value.status == status


@given(st.binary(max_size=200), st.text(max_size=40))
def test_no_body_makes_it_stumble(body: bytes, boundary: str) -> None:
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    for whole in (body, b"--limit\r\n" + body, multipart({})[0] + body):
        assert read_or_status(Request("POST", "api", "/", body=whole, headers=headers)) in ({}, 400)


def read_or_status(request: Request) -> object:
    try:
        return read_config(request)
    except Refusal as refusal:
        return refusal.status


def test_what_the_client_really_sends_is_understood(tmp_path: Path) -> None:
    requests = pytest.importorskip("requests")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config({"größe": ["choice", [["ß"]]]})))
    with path.open("rb") as file:
        sent = requests.Request("POST", "http://localhost/", files={"config": file}).prepare()
    headers = {"content-type": sent.headers["Content-Type"]}
    found = read_config(Request("POST", "api", "/", body=sent.body, headers=headers))
    assert found["generator_config"]["parameter_space"] == {"größe": ["choice", [["ß"]]]}
