from __future__ import annotations

from typing import Any

import pytest
from unit.emulator.history_rig import Rig, job

from himl_container.emulator.http import Refusal
from himl_container.emulator.state.run import Status

RUNS = "history/v1.0:/experiments/e/runs"


def event(name: str, **data: Any) -> dict[str, Any]:
    return {"name": f"Microsoft.MachineLearning.Run.{name}", "data": data, "timestamp": "2026-01-01T00:00:00Z"}


def test_a_run_is_found_by_its_experiment_its_experiments_id_and_itself() -> None:
    rig = Rig()
    made = rig.json("PATCH", f"{RUNS}/r1", {"runId": "r1", "target": "local", "name": "run_r1"})
    for path in ("experiments/e/", f"experimentids/{made['experimentId']}/", ""):
        assert rig.json("GET", f"history/v1.0:/{path}runs/r1") == made
    assert made["dataContainerId"] == "dcid.r1"
    assert made["rootRunId"] == "r1"
    assert made["status"] == "NotStarted"
    assert made["cancelUri"] is None
    rig.runs.make_experiment("other")
    assert rig.status("GET", "history/v1.0:/experiments/other/runs/r1") == 404
    assert rig.status("GET", "history/v1.0:/experimentids/nowhere/runs/r1") == 404
    assert rig.status("GET", f"{RUNS}/r2") == 404
    assert rig.status("PUT", f"{RUNS}/r1") == 405


def test_a_job_has_an_address_that_stops_it() -> None:
    rig = Rig()
    rig.run(definition={"script": "a.py"}, target="cpu")
    uri = rig.json("GET", f"{RUNS}/r1")["cancelUri"]
    assert uri.startswith("https://eastus.api.azureml.ms/execution/v1.0/subscriptions/s/")
    assert uri.endswith("/experiments/e/runId/r1/cancel")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b", "x" * 256, "a\0b", "ä"])
def test_bad_ids(name: str) -> None:
    rig = Rig()
    with pytest.raises(Refusal) as refused:
        rig.runs.create("e", name)
    assert refused.value.status == 400
    assert rig.json("PATCH", "history/v1.0:/experiments/e/batch/runs", {"runs": [{"runId": name}]})["errors"]
    assert rig.runs.all() == []


def test_tags_are_added_and_removed_and_may_be_without_a_value() -> None:
    rig = Rig()
    rig.run()
    rig.json("PATCH", f"{RUNS}/r1", {"tags": {"a": "1", "b": None, "c": 3}})
    assert rig.json("PATCH", f"{RUNS}/r1", {"tags": {"a": "2"}})["tags"] == {"a": "2", "b": None, "c": "3"}
    assert rig.json("DELETE", f"{RUNS}/r1/tags", ["a", "none"])["tags"] == {"b": None, "c": "3"}
    assert rig.status("DELETE", f"{RUNS}/r1/tags", {"a": 1}) == 400
    assert rig.status("PATCH", f"{RUNS}/r1", {"tags": ["a"]}) == 400


def test_properties_do_not_change() -> None:
    rig = Rig()
    rig.run()
    rig.json("PATCH", f"{RUNS}/r1", {"properties": {"a": "1"}})
    rig.json("PATCH", f"{RUNS}/r1", {"properties": {"a": "1", "b": None}})
    assert rig.status("PATCH", f"{RUNS}/r1", {"properties": {"a": "2"}, "tags": {"t": "1"}}) == 400
    run = rig.runs.get("r1")
    assert run.properties == {"a": "1", "b": ""}
    assert run.tags == {}


def test_a_snapshot_is_noted_in_the_run() -> None:
    rig = Rig()
    rig.run()
    rig.json("PATCH", f"{RUNS}/r1", {"properties": {"ContentSnapshotId": "abc"}})
    assert rig.runs.get("r1").snapshot_id == "abc"


def test_the_snapshot_of_nothing_is_none() -> None:
    """What a job that still waits must not look for: the SDK names it after the submission of an empty folder."""
    rig = Rig()
    rig.run()
    nothing = "00000000-0000-0000-0000-000000000000"
    rig.json("PATCH", f"{RUNS}/r1", {"properties": {"ContentSnapshotId": nothing}})
    run = rig.runs.get("r1")
    assert (run.snapshot_id, run.properties["ContentSnapshotId"]) == ("", nothing)


def test_lineage_grows() -> None:
    rig = Rig()
    rig.run()
    one, two = {"identifier": {"savedId": "1"}}, {"identifier": {"savedId": "2"}}
    rig.json("PATCH", f"{RUNS}/r1", {"inputDatasets": [one]})
    rig.json("PATCH", f"{RUNS}/r1", {"inputDatasets": [one, two]})
    assert rig.json("GET", f"{RUNS}/r1/details")["inputDatasets"] == [one, two]


def test_ends_and_what_comes_after() -> None:
    rig = Rig()
    rig.run()
    seen = []
    rig.runs.listen(lambda old, new: seen.append((old.status, new.status)))
    rig.json("POST", f"{RUNS}/r1/events", event("Start"))
    rig.json("POST", f"{RUNS}/r1/events", event("Heartbeat", TimeToLiveSeconds=30))
    rig.json("POST", f"{RUNS}/r1/events", event("Warning", Source="me", Message="careful"))
    rig.json("POST", f"{RUNS}/r1/events", event("Error", ErrorResponse={"error": {"code": "UserError"}}))
    rig.json("POST", f"{RUNS}/r1/events", event("Failed"))
    rig.json("POST", f"{RUNS}/r1/events", event("Completed"))
    details = rig.json("GET", f"{RUNS}/r1/details")
    assert details["status"] == "Failed"
    assert details["error"] == {"error": {"code": "UserError"}}
    assert details["warnings"] == [{"source": "me", "message": "careful"}]
    assert details["startTimeUtc"] < details["endTimeUtc"]
    assert seen == [(Status.NOT_STARTED, Status.RUNNING), (Status.RUNNING, Status.FAILED)]
    for bad in (event("Nonsense"), event("Error"), {}, {"name": 3}):
        assert rig.status("POST", f"{RUNS}/r1/events", bad) == 400


def test_children_in_a_batch() -> None:
    rig = Rig()
    rig.run("p", status=Status.RUNNING)
    asked = [{"runId": f"c{n}", "parentRunId": "p", "status": "NotStarted", "tags": {"n": str(n)}} for n in range(3)]
    asked += [{"runId": "lost", "parentRunId": "nobody"}, {"runId": "odd", "parentRunId": "p", "status": "Gone"}]
    done = rig.json("PATCH", "history/v1.0:/experiments/e/batch/runs", {"runs": asked})
    assert set(done["runs"]) == {"c0", "c1", "c2"}
    assert set(done["errors"]) == {"lost", "odd"}
    events = [event("Start", RunId=run_id) for run_id in ("c0", "c1", "lost")]
    errors = rig.json("POST", "history/v1.0:/experiments/e/batch/events", {"events": events})["errors"]
    assert [error["key"]["data"]["RunId"] for error in errors] == ["lost"]
    found = rig.json("GET", "history/v1.0:/experiments/e/runs/p/children?$orderby=RunId asc")["value"]
    assert [(run["runId"], run["status"]) for run in found] == [
        ("c0", "Running"),
        ("c1", "Running"),
        ("c2", "NotStarted"),
    ]
    assert {run["rootRunId"] for run in found} == {"p"}
    assert rig.status("PATCH", "history/v1.0:/experiments/e/batch/runs", {"runs": [{}] * 501}) == 400
    assert rig.status("PATCH", "history/v1.0:/experiments/e/batch/runs", {"runs": ["x"]}) == 400


def test_pages_go_on_where_they_ended_also_when_runs_are_added() -> None:
    rig = Rig()
    for number in range(5):
        rig.run(f"r{number}")
    first = rig.json("POST", "history/v1.0:/experiments/e/runs:query", {"top": 2})
    rig.run("new")
    asked = {"top": 2, "continuationToken": first["continuationToken"]}
    second = rig.json("POST", "history/v1.0:/experiments/e/runs:query", asked)
    asked = {"top": 2, "continuationToken": second["continuationToken"]}
    third = rig.json("POST", "history/v1.0:/experiments/e/runs:query", asked)
    assert [run["runId"] for run in first["value"] + second["value"] + third["value"]] == ["r4", "r3", "r2", "r1", "r0"]
    assert third["continuationToken"] is None
    for bad in ({"continuationToken": "nonsense"}, {"top": "many"}, {"orderby": "RunId sideways"}, {"filter": "(("}):
        assert rig.status("POST", "history/v1.0:/experiments/e/runs:query", bad) == 400


def test_a_job_changes_what_is_its_own() -> None:
    rig = Rig()
    rig.run("mine")
    rig.run("child", parent_id="mine")
    rig.run("other")
    for run_id, status in (("mine", 200), ("child", 200), ("other", 403)):
        assert rig.status("PATCH", f"{RUNS}/{run_id}", {"tags": {"a": "1"}}, job("mine")) == status
        assert rig.status("POST", f"{RUNS}/{run_id}/events", event("Heartbeat"), job("mine")) == status
        assert rig.status("DELETE", f"{RUNS}/{run_id}/tags", ["a"], job("mine")) == status
        assert rig.status("GET", f"{RUNS}/{run_id}/token", None, job("mine")) == status
        assert rig.status("GET", f"{RUNS}/{run_id}", None, job("mine")) == 200
    assert rig.status("PATCH", f"{RUNS}/new", {"parentRunId": "mine"}, job("mine")) == 200
    assert rig.status("PATCH", f"{RUNS}/new2", {"parentRunId": "other"}, job("mine")) == 403
    assert rig.status("PATCH", f"{RUNS}/new3", {}, job("mine")) == 403
    done = rig.json(
        "POST", "history/v1.0:/experiments/e/batch/events", {"events": [event("Failed", RunId="other")]}, job("mine")
    )
    assert done["errors"]
    assert rig.runs.get("other").status is Status.NOT_STARTED


def test_a_job_sees_the_details_of_others_without_their_logs() -> None:
    rig = Rig()
    rig.run("mine")
    rig.run("other")
    for run_id in ("mine", "other"):
        rig.artifacts.append_log(run_id, "user_logs/std_log.txt", b"line\n")
    assert set(rig.json("GET", f"{RUNS}/mine/details", None, job("mine"))["logFiles"]) == {"user_logs/std_log.txt"}
    assert rig.json("GET", f"{RUNS}/other/details", None, job("mine"))["logFiles"] == {}


def test_experiments() -> None:
    rig = Rig()
    made = rig.json("POST", "history/v1.0:/experiments/first")
    assert rig.json("GET", "history/v1.0:/experiments/FIRST") == made
    one = f"history/v1.0:/experimentids/{made['experimentId']}"
    rig.json("PATCH", one, {"tags": {"a": "1", "b": None}})
    rig.json("POST", f"{one}/tags:delete", {"tags": ["a"]})
    assert rig.json("GET", one)["tags"] == {"b": None}
    assert rig.status("PATCH", one, {"name": "second"}) == 400
    assert rig.status("POST", "history/v1.0:/experiments/bad name") == 400
    assert rig.status("GET", "history/v1.0:/experiments/none") == 404
    assert rig.status("PATCH", one, {"archive": True}, job("x")) == 403


def test_an_archived_experiment_frees_its_name() -> None:
    rig = Rig()
    rig.run("r1", "name")
    old = rig.json("GET", "history/v1.0:/experiments/name")["experimentId"]
    assert rig.json("PATCH", f"history/v1.0:/experimentids/{old}", {"archive": True})["archivedTime"]
    # The SDK still asks for its runs by its name.
    assert len(rig.json("POST", "history/v1.0:/experiments/name/runs:query", {})["value"]) == 1
    assert rig.status("GET", "history/v1.0:/experiments/name") == 404
    new = rig.json("POST", "history/v1.0:/experiments/name")["experimentId"]
    assert new != old
    assert rig.json("POST", "history/v1.0:/experiments/name/runs:query", {})["value"] == []
    assert rig.status("PATCH", f"history/v1.0:/experimentids/{old}", {"archive": False}) == 409
    names = {
        view: [
            one["experimentId"]
            for one in rig.json("POST", "history/v1.0:/experiments:query", {"viewType": view})["value"]
        ]
        for view in ("ActiveOnly", "ArchivedOnly", "All")
    }
    assert names == {"ActiveOnly": [new], "ArchivedOnly": [old], "All": [new, old]}
    assert rig.status("DELETE", f"history/v1.0:/experimentids/{old}") == 400
    assert rig.status("DELETE", f"history/v1.0:/experimentids/{new}") == 200
    assert rig.status("PATCH", f"history/v1.0:/experimentids/{old}", {"archive": False}) == 200
    assert rig.json("POST", "history/v1.0:/experiments/name/runs:query", {})["value"]


def test_counts_compute_and_data() -> None:
    rig = Rig()
    rig.run("a", target="CPU", status=Status.RUNNING, definition={"script": "x"})
    rig.run("b", status=Status.NOT_STARTED)
    counts = rig.json("GET", "history/v1.0:/experiments/e/runcounts")
    assert (counts["running"], counts["notStarted"], counts["failed"]) == (1, 1, 0)
    found = rig.json("GET", "history/v1.0:/computes/cpu/runs?$filter=(Status eq Running)")["value"]
    assert [run["runId"] for run in found] == ["a"]
    asked = {"runId": "a", "selectRunMetadata": True, "selectRunDefinition": True}
    data = rig.json("POST", "history/v1.0:/rundata", asked)
    assert data["runMetadata"]["runId"] == "a"
    assert data["runDefinition"] == {"script": "x"}
