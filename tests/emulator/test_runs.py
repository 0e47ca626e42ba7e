"""Experiments and runs through the SDK, from outside a job."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from azureml.core import Experiment, Run, Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator


@pytest.fixture
def experiment(workspace: Workspace) -> Experiment:
    from azureml.core import Experiment

    return Experiment(workspace, f"runs-{uuid.uuid4().hex[:8]}")


def begin(experiment: Experiment, **options: Any) -> Run:
    return experiment.start_logging(snapshot_directory=None, outputs=None, **options)


def refused(call: Any, *arguments: Any, **options: Any) -> int:
    """The status with which a call of the SDK is refused."""
    from azureml.exceptions import ServiceException

    with pytest.raises(ServiceException) as caught:
        call(*arguments, **options)
    return int(caught.value.status_code)


def test_experiments(workspace: Workspace) -> None:
    from azureml.core import Experiment

    name = f"first-{uuid.uuid4().hex[:8]}"
    made = Experiment(workspace, name)
    assert Experiment(workspace, name).id == made.id
    made.tag("checked")
    made.set_tags({"a": "1", "b": 2})
    made.remove_tags(["a"])
    made.refresh()
    assert made.tags == {"checked": None, "b": "2"}
    assert [one.id for one in Experiment.list(workspace, experiment_name=name)] == [made.id]
    assert [one.id for one in Experiment.list(workspace, experiment_name=name, tags={"b": "2"})] == [made.id]
    assert Experiment.list(workspace, experiment_name=name, tags={"b": "3"}) == []
    assert workspace.experiments[name].id == made.id
    assert made.get_portal_url().startswith("http")


def test_archived_experiments(workspace: Workspace, experiment: Experiment) -> None:
    from azureml.core import Experiment
    from azureml.core.experiment import ViewType

    begin(experiment).complete()
    experiment.archive()
    assert experiment.archived_time is not None
    assert Experiment.list(workspace, experiment_name=experiment.name) == []
    archived = Experiment.list(workspace, experiment_name=experiment.name, view_type=ViewType.ArchivedOnly)
    assert [one.id for one in archived] == [experiment.id]
    fresh = Experiment(workspace, experiment.name)
    assert fresh.id != experiment.id
    assert list(fresh.get_runs()) == []
    assert refused(experiment.reactivate) == 409
    Experiment.delete(workspace, fresh.id)
    experiment.reactivate()
    assert experiment.archived_time is None
    assert Experiment(workspace, experiment.name).id == experiment.id
    assert refused(Experiment.delete, workspace, experiment.id) == 400


def test_start_logging(workspace: Workspace, experiment: Experiment) -> None:
    from azureml.core import Run

    run = begin(experiment, display_name="first try", description="a run from outside")
    assert run.get_status() == "Running"
    found = Run.get(workspace, run.id)
    assert (found.id, found.experiment.id, found.number) == (run.id, experiment.id, 1)
    assert (found.display_name, found.description) == ("first try", "a run from outside")
    found.display_name = "second try"
    found.description = "changed"
    run.complete()
    assert run.get_status() == "Completed"
    again = Run.get(workspace, run.id)
    assert (again.display_name, again.description, again.status) == ("second try", "changed", "Completed")
    assert again.get_portal_url().partition("?")[0].endswith(f"/runs/{run.id}")
    with begin(experiment) as other:
        pass
    assert other.get_status() == "Completed"
    assert other.number == 2


def test_tags(workspace: Workspace, experiment: Experiment) -> None:
    from azureml.core import Run

    run = begin(experiment)
    run.tag("checked")
    run.tag("number", 3)
    run.set_tags({"a": "1", "ä ö": "ü"})
    run.set_tags({"a": "2"})
    assert Run.get(workspace, run.id).get_tags() == {"checked": None, "number": "3", "a": "2", "ä ö": "ü"}
    run.remove_tags(["a", "number", "none"])
    assert run.get_tags() == {"checked": None, "ä ö": "ü"}
    run.add_properties({"p": "1", "q": 2})
    assert run.get_properties()["q"] == "2"
    assert refused(run.add_properties, {"p": "other"}) == 400
    run.add_properties({"p": "1"})
    run.complete()


def test_ends(workspace: Workspace, experiment: Experiment) -> None:
    from azureml.core import Run

    failed = begin(experiment)
    failed.fail(error_details="no data", error_code="DataMissing")
    details = Run.get(workspace, failed.id).get_details()
    assert details["status"] == "Failed"
    assert details["error"]["error"]["code"] == "DataMissing"
    assert details["error"]["error"]["message"] == "no data"
    assert details["startTimeUtc"] < details["endTimeUtc"]

    raised = begin(experiment)
    with pytest.raises(ZeroDivisionError), raised:
        raise ZeroDivisionError("by nothing")
    assert "User program failed with ZeroDivisionError: by nothing" in raised.get_details()["error"]["error"]["message"]
    assert raised.get_status() == "Failed"

    cancelled = begin(experiment)
    cancelled.cancel()
    assert cancelled.get_status() == "Canceled"
    cancelled.complete()
    assert Run.get(workspace, cancelled.id).get_status() == "Canceled"

    warned = begin(experiment)
    warned._client.run.post_event_warning("me", "careful")
    warned._client.run.post_event_heartbeat(30)
    warned._client.run.post_event_cancel_requested()
    details = warned.get_details()
    assert details["status"] == "CancelRequested"
    assert details["warnings"] == [{"source": "me", "message": "careful"}]
    warned.complete()


def test_details(workspace: Workspace, experiment: Experiment) -> None:
    from azureml.core import Run

    run = begin(experiment)
    run.upload_file("logs/a.txt", __file__)
    run.upload_file("user_logs/std_log.txt", __file__)
    run.upload_file("outputs/other.txt", __file__)
    run.complete()
    again = Run.get(workspace, run.id)
    assert set(again.get_details()["logFiles"]) == {"logs/a.txt", "user_logs/std_log.txt"}
    logs = again.get_details_with_logs()["logFiles"]
    assert "class" not in logs["logs/a.txt"][:100]
    assert "def test_details" in logs["logs/a.txt"]
    assert again.wait_for_completion(show_output=True)["status"] == "Completed"
    assert again.get_detailed_status() == {"status": "Completed", "details": None}


def test_children(workspace: Workspace, experiment: Experiment) -> None:
    from azureml.core import Run

    run = begin(experiment)
    child = run.child_run(name="one")
    grandchild = child.child_run()
    many = run.create_children(count=3)
    tagged = run.create_children(tag_key="fold", tag_values=["a", "b"])
    assert {one.get_status() for one in (child, grandchild, *many, *tagged)} == {"Running"}
    child.set_tags({"kind": "x"})
    child.add_properties({"p": "1"})
    grandchild.fail()

    def ids(**asked: Any) -> set[str]:
        return {one.id for one in run.get_children(**asked)}

    direct = {one.id for one in (child, *many, *tagged)}
    assert ids() == direct
    assert ids(recursive=True) == {*direct, grandchild.id}
    assert ids(tags="fold") == {one.id for one in tagged}
    assert ids(tags={"fold": "b"}) == {tagged[1].id}
    assert ids(properties={"p": "1"}, recursive=True) == {child.id}
    assert ids(status="Failed", recursive=True) == {grandchild.id}
    assert {one.id for one in child.get_children(recursive=True)} == {grandchild.id}
    assert many[1].tags == {"azureml.batch_child_number": "1"}
    assert Run.get(workspace, grandchild.id).parent.id == child.id
    for one in (grandchild, child, *many, *tagged, run):
        one.complete()


def test_filters_and_pages(experiment: Experiment) -> None:
    from azureml._restclient.experiment_client import ExperimentClient
    from azureml.core import Run

    runs = [begin(experiment) for _ in range(5)]
    for number, run in enumerate(runs):
        run.set_tags({"n": str(number), "odd" if number % 2 else "even": None})
    runs[0].add_properties({"azureml.runsource": "mine"})
    runs[0].complete()
    child = runs[1].child_run()

    def ids(**asked: Any) -> list[str]:
        return [run.id for run in Run.list(experiment, **asked)]

    newest_first = [run.id for run in reversed(runs)]
    assert ids() == newest_first
    assert [run.id for run in experiment.get_runs(include_children=True)] == [child.id, *newest_first]
    assert ids(tags="odd") == [runs[3].id, runs[1].id]
    assert ids(tags={"n": "2", "even": None}) == [runs[2].id]
    assert ids(properties="azureml.runsource") == ids(type="mine") == ids(status="Completed") == [runs[0].id]
    client = ExperimentClient(experiment.workspace.service_context, experiment.name, experiment.id)
    paged = [run.run_id for run in client.get_runs(page_size=2, order_by=("RunId", "asc"))]
    assert paged == sorted([child.id, *newest_first])
    assert {run.run_id for run in client.get_runs_by_run_ids([runs[1].id, runs[3].id])} == {runs[1].id, runs[3].id}


def test_by_compute_and_counts(workspace: Workspace, experiment: Experiment, emulator: Emulator) -> None:
    from azureml._restclient.workspace_client import WorkspaceClient

    run = begin(experiment)  # its target is called local
    found = WorkspaceClient(workspace.service_context).get_runs_by_compute("local", status="Running")
    assert run.id in {one.run_id for one in found}
    counts = experiment_api(emulator, workspace, experiment, "runcounts")
    assert (counts["running"], counts["completed"]) == (1, 0)
    run.complete()
    assert experiment_api(emulator, workspace, experiment, "runcounts")["completed"] == 1


def test_token_of_a_run(experiment: Experiment) -> None:
    run = begin(experiment)
    result = run._client.run.get_token()
    assert result.token.count(".") == 2
    run.complete()


def test_run_data(workspace: Workspace, experiment: Experiment, emulator: Emulator) -> None:
    run = begin(experiment)
    address = f"{history(workspace)}/rundata"
    asked = {"runId": run.id, "selectRunMetadata": True}
    answer = requests.post(address, json=asked, headers=emulator.headers(), timeout=60)
    assert answer.json()["runMetadata"]["runId"] == run.id


def test_bad_requests(workspace: Workspace, experiment: Experiment, emulator: Emulator) -> None:
    from azureml.core import Experiment, Run

    assert refused(Run.get, workspace, str(uuid.uuid4())) == 404
    assert refused(experiment.start_logging, snapshot_directory=None, outputs=None, run_id="a b") == 400
    assert refused(Run, experiment, "nowhere") == 404
    base = f"{history(workspace)}/experiments/{experiment.name}"
    headers = emulator.headers()
    run = begin(experiment)
    for method, path, data, status in (
        ("PATCH", f"runs/{run.id}", "{", 400),
        ("PATCH", f"runs/{run.id}", "[]", 400),
        ("PATCH", f"runs/{run.id}", '{"tags": 3}', 400),
        ("PATCH", f"runs/{run.id}", '{"status": "Gone"}', 400),
        ("POST", f"runs/{run.id}/events", '{"name": "x"}', 400),
        ("PUT", f"runs/{run.id}", "{}", 405),
        ("POST", "runs:query", '{"filter": "(("}', 400),
        ("POST", "runs:query", '{"continuationToken": "x"}', 400),
        ("GET", f"runs/{run.id}/nonsense", "", 404),
        ("PATCH", "runs/..%2F..%2Fetc", "{}", 404),
    ):
        answer = requests.request(method, f"{base}/{path}", data=data, headers=headers, timeout=60)
        assert answer.status_code == status, (path, data, answer.text)
        assert "error" in answer.json()
    assert requests.get(f"{base}/runs/{run.id}", timeout=60).status_code == 401
    assert Experiment(workspace, experiment.name).id == experiment.id


def history(workspace: Workspace) -> str:
    context = workspace.service_context
    return f"{context._get_run_history_url()}/history/v1.0{context._get_workspace_scope()}"


def experiment_api(emulator: Emulator, workspace: Workspace, experiment: Experiment, path: str) -> Any:
    address = f"{history(workspace)}/experiments/{experiment.name}/{path}"
    return requests.get(address, headers=emulator.headers(), timeout=60).json()
