"""A search from its start to its end, with a compute and a clock that the test moves."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from unit.emulator.search_fakes import Bench, config

from himl_container.emulator.http import Refusal
from himl_container.emulator.hyperdrive.definition import read_search
from himl_container.emulator.hyperdrive.journal import BEST
from himl_container.emulator.state.runs import Status

BANDIT = {"name": "Bandit", "properties": {"slack_factor": 0.1, "evaluation_interval": 1, "delay_evaluation": 0}}


def test_a_grid_search_from_start_to_end() -> None:
    bench = Bench()
    run_id = bench.submit(config())
    parent = bench.runs.get(run_id)
    assert parent.status is Status.RUNNING
    assert parent.run_type == "hyperdrive"
    assert run_id.startswith("HD_")
    first, second = bench.children(run_id)
    assert [first.run_id, second.run_id] == [f"{run_id}_0", f"{run_id}_1"] == bench.compute.submitted
    assert first.definition["arguments"] == ["--fixed", 1, "--lr", "0.1"]
    assert second.definition["arguments"] == ["--fixed", 1, "--lr", "0.2"]
    assert json.loads(first.tags["hyperparameters"] or "") == {"lr": 0.1}
    assert (first.run_type, first.target, first.snapshot_id) == ("azureml.scriptrun", "cpu", parent.snapshot_id)

    bench.end(first.run_id, 0.5, 0.4)
    bench.searches.step()
    assert len(bench.children(run_id)) == 3, "a free place is filled"
    bench.end(f"{run_id}_1", 0.1)
    bench.end(f"{run_id}_2", 0.3)
    assert bench.searches.step() is False, "nothing is left to do"

    parent = bench.runs.get(run_id)
    assert parent.status is Status.COMPLETED
    assert parent.ended == bench.now
    assert parent.properties["best_child_run_id"] == f"{run_id}_1"
    assert parent.properties["score"] == "0.1"
    for number, lr in enumerate((0.1, 0.2, 0.3)):
        for prefix in ("", "_aml_system_"):
            assert json.loads(parent.tags[f"{prefix}{run_id}_{number}"] or "") == {"lr": lr}
    assert parent.tags["all_jobs_generated"] == "true"
    best, _ = bench.metrics.metric(run_id, BEST)
    rows = [(value.data["run_id"][-1], value.data["metric_value"], value.data["final"]) for value in best.values]
    assert rows == [("0", 0.4, False), ("1", 0.1, False), ("1", 0.1, True)]
    log = bench.log(run_id)
    assert "Grid sampling of a space of 3 points" in log
    assert "The search is Completed." in log.splitlines()[-1]


def test_at_most_so_many_run_and_so_many_are_started() -> None:
    bench = Bench()
    run_id = bench.submit(config({"n": ["choice", [list(range(50))]]}, max_total_jobs=7, max_concurrent_jobs=3))
    most = 0
    while not bench.runs.get(run_id).status.ended:
        living = [run for run in bench.children(run_id) if not run.status.ended]
        most = max(most, len(living))
        bench.end(living[0].run_id)
        bench.searches.step()
    assert most == 3
    assert len(bench.children(run_id)) == 7


def test_a_failed_child_counts_and_the_search_goes_on() -> None:
    bench = Bench()
    run_id = bench.submit(config(max_concurrent_jobs=1))
    bench.end(f"{run_id}_0", status=Status.FAILED)
    bench.searches.step()
    bench.end(f"{run_id}_1", 0.5)
    bench.searches.step()
    bench.end(f"{run_id}_2", status=Status.FAILED)
    bench.searches.step()
    parent = bench.runs.get(run_id)
    assert parent.status is Status.COMPLETED
    assert parent.properties["best_child_run_id"] == f"{run_id}_1"


def test_a_search_of_which_every_child_fails_has_failed() -> None:
    bench = Bench()
    run_id = bench.submit(config(max_concurrent_jobs=3))
    for number in range(3):
        error = {"error": {"code": "UserError", "message": "no such file: data.csv"}}
        bench.runs.set_status(f"{run_id}_{number}", Status.FAILED, error=error)
    bench.searches.step()
    parent = bench.runs.get(run_id)
    assert parent.status is Status.FAILED
    assert "All 3 runs of the search failed" in parent.error["error"]["message"]
    assert "no such file: data.csv" in parent.error["error"]["message"]


def test_a_policy_cancels_and_the_search_goes_on() -> None:
    bench = Bench()
    run_id = bench.submit(config(policy=BANDIT))
    bench.report(f"{run_id}_0", 1.0)
    bench.report(f"{run_id}_1", 1.05)
    bench.searches.step()
    assert bench.compute.cancelled == []
    bench.report(f"{run_id}_1", 1.02)
    bench.report(f"{run_id}_0", 0.5)
    bench.searches.step()
    assert bench.compute.cancelled == [f"{run_id}_1"]
    assert "at interval 2 its best value 1.02 is outside the slack, which ends at 0.55" in bench.log(run_id)
    bench.searches.step()
    assert bench.statuses(run_id) == ["Running", "Canceled", "Queued"]
    bench.end(f"{run_id}_0")
    bench.end(f"{run_id}_2", 0.45)
    bench.searches.step()
    assert bench.runs.get(run_id).status is Status.COMPLETED, "children that were stopped early are no failure"


def test_a_child_that_is_being_cancelled_is_not_cancelled_again_and_keeps_its_place() -> None:
    bench = Bench()
    bench.compute.slow = True
    run_id = bench.submit(config(policy=BANDIT))
    bench.report(f"{run_id}_0", 0.5)
    bench.report(f"{run_id}_1", 1.0)
    for _ in range(3):
        bench.searches.step()
    assert bench.compute.cancelled == [f"{run_id}_1"]
    assert len(bench.children(run_id)) == 2


def test_cancelling_a_search_cancels_its_children() -> None:
    bench = Bench()
    bench.compute.slow = True
    run_id = bench.submit(config())
    bench.searches.cancel(run_id)
    bench.searches.step()
    assert bench.compute.cancelled == [f"{run_id}_0", f"{run_id}_1"]
    assert bench.runs.get(run_id).status is Status.CANCEL_REQUESTED, "until they have ended"
    for number in range(2):
        bench.end(f"{run_id}_{number}", status=Status.CANCELED)
    bench.searches.step()
    parent = bench.runs.get(run_id)
    assert parent.status is Status.CANCELED
    assert parent.tags["cancellation_requested"] == "true"
    assert len(bench.children(run_id)) == 2
    assert bench.searches.cancel(run_id).status is Status.CANCELED, "a second cancel changes nothing"


def test_a_search_that_an_event_has_ended_takes_its_children_along() -> None:
    bench = Bench()
    run_id = bench.submit(config())
    bench.runs.set_status(run_id, Status.FAILED)
    assert bench.searches.step() is False
    assert bench.statuses(run_id) == ["Canceled", "Canceled"]


def test_a_search_has_a_maximum_duration() -> None:
    bench = Bench()
    run_id = bench.submit(config(max_duration_minutes=60))
    bench.now += 3600
    bench.searches.step()
    assert bench.compute.cancelled == []
    bench.now += 1
    bench.searches.step()
    assert len(bench.compute.cancelled) == 2
    bench.searches.step()
    assert bench.runs.get(run_id).status is Status.CANCELED
    assert "maximum duration of 60 minutes" in bench.log(run_id)


def test_a_search_goes_on_where_a_kill_left_it(tmp_path: Path) -> None:
    space = {"x": ["uniform", [0, 1]]}
    bench = Bench(tmp_path / "state.db")
    run_id = bench.submit(config(space, sampling="RANDOM", max_total_jobs=4, properties={"seed": 5}))
    bench.end(f"{run_id}_0", 0.2)
    bench.searches.step()
    bench.database.close()

    again = Bench(tmp_path / "state.db")
    assert again.searches.step() is True
    assert again.compute.submitted == [], "both places are taken"
    for number in (1, 2):
        again.end(f"{run_id}_{number}", 0.5, status=Status.FAILED)
    again.searches.step()
    again.end(f"{run_id}_3", 0.9)
    again.searches.step()
    parent = again.runs.get(run_id)
    assert parent.status is Status.COMPLETED
    assert parent.properties["best_child_run_id"] == f"{run_id}_0"

    whole = Bench()
    other = whole.submit(
        config(space, sampling="RANDOM", max_total_jobs=4, max_concurrent_jobs=4, properties={"seed": 5})
    )
    drawn = [json.loads(run.tags["hyperparameters"] or "") for run in whole.children(other)]
    assert [json.loads(run.tags["hyperparameters"] or "") for run in again.children(run_id)] == drawn


def test_a_search_that_was_never_begun_is_begun_by_the_next_emulator(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state.db")
    document = config()
    run_id = bench.searches.create("exp", document, "cpu", read_search(document)).run_id
    bench.database.close()
    again = Bench(tmp_path / "state.db")
    again.searches.step()
    assert len(again.compute.submitted) == 2
    assert again.runs.get(run_id).status is Status.RUNNING


def test_a_child_that_the_compute_refuses_ends_the_search_and_leaves_nothing_half() -> None:
    bench = Bench()
    run_id = bench.submit(config(max_concurrent_jobs=1))
    bench.compute.error = Refusal(404, "NotFound", "Compute target cpu was not found.")
    bench.end(f"{run_id}_0", 0.1)
    assert bench.searches.step() is False
    parent = bench.runs.get(run_id)
    assert parent.status is Status.FAILED
    assert parent.error["error"] == {"code": "UserError", "message": "Compute target cpu was not found."}
    assert len(bench.children(run_id)) == 1
    assert f"{run_id}_1" not in parent.tags


def test_a_fault_ends_one_search_and_no_other() -> None:
    bench = Bench()
    first, second = bench.submit(config()), bench.submit(config())
    bench.compute.error = ZeroDivisionError("a fault")
    bench.end(f"{first}_0")
    bench.searches.step()
    bench.compute.error = None
    assert bench.runs.get(first).status is Status.FAILED
    assert bench.runs.get(first).error["error"]["code"] == "ServiceError"
    bench.end(f"{second}_0")
    bench.searches.step()
    assert f"{second}_2" in bench.compute.submitted


def test_bayesian_sampling_says_that_it_samples_at_random() -> None:
    bench = Bench()
    run_id = bench.submit(config({"x": ["uniform", [0, 1]]}, sampling="BayesianOptimization"))
    assert "Bayesian sampling is not imitated" in bench.log(run_id)
    assert "Bayesian sampling is not imitated" in bench.runs.get(run_id).warnings[0]["message"]
    assert len(bench.children(run_id)) == 2


def test_runs_that_a_user_puts_below_a_search_are_none_of_it() -> None:
    bench = Bench()
    run_id = bench.submit(config(max_total_jobs=1))
    bench.runs.create("exp", "mine", parent_id=run_id, status=Status.RUNNING)
    bench.end(f"{run_id}_0", 1.0)
    bench.searches.step()
    assert bench.runs.get(run_id).status is Status.COMPLETED
    assert bench.runs.get("mine").status is Status.RUNNING


def test_earlier_children_are_resumed_with_their_parameters_and_outputs() -> None:
    bench = Bench()
    earlier = bench.submit(config())
    key = {"run_scope": {"host": "x"}, "run_id": f"{earlier}_1"}
    run_id = bench.submit(config({"lr": ["choice", [[7]]]}, resume_child_runs=[key], resume_from=[{"run_id": earlier}]))
    first, second = bench.children(run_id)
    assert json.loads(first.tags["hyperparameters"] or "") == {"lr": 0.2}
    assert first.definition["arguments"][-2:] == ["--resume-from", "$AZUREML_DATAREFERENCE_MODEL_LOCATION"]
    reference = first.definition["dataReferences"]["MODEL_LOCATION"]
    assert reference["pathOnDataStore"] == f"ExperimentRun/dcid.{earlier}_1/outputs"
    assert second.definition["arguments"][-2:] == ["--lr", "7"]
    assert json.loads(bench.runs.get(run_id).properties["resume_child_runs"]) == [key]
    with pytest.raises(Refusal, match="not a child of a search"):
        bench.submit(config(resume_child_runs=[{"run_id": earlier}]))


def test_the_thread_hears_of_news_and_stops() -> None:
    bench = Bench()
    completed = threading.Event()
    bench.runs.listen(lambda _, new: completed.set() if new.run_type == "hyperdrive" and new.status.ended else None)
    # Its children end as soon as they are submitted.
    bench.runs.listen(lambda _, new: bench.end(new.run_id, 0.5) if new.status is Status.QUEUED else None)
    bench.searches.start()
    document = config()
    bench.searches.create("exp", document, "cpu", read_search(document))
    assert completed.wait(20)
    bench.searches.stop()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python a.py", "python a.py --lr 0.1 --word 'a; b'"),
        (["python", "a.py"], "python a.py --lr 0.1 --word 'a; b'"),
        ("python a.py ${{search_space.lr}}", "python a.py 0.1 --word 'a; b'"),
        ("echo ${{ search_space.word }} ${{search_space.x}}", "echo 'a; b' ${{search_space.x}} --lr 0.1"),
    ],
)
def test_a_command_gets_its_parameters_quoted(command: Any, expected: str) -> None:
    bench = Bench()
    space = {"lr": ["choice", [[0.1]]], "word": ["choice", [["a; b"]]]}
    run_id = bench.submit(config(space, overrides={"command": command, "arguments": []}))
    assert bench.children(run_id)[0].definition["command"] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"platform": "AML_PIPELINES"}, "pipelines"),
        ({"generator_config": None}, "generator_config"),
        ({"policy_config": []}, "policy_config"),
        ({"primary_metric_config": {"name": "", "goal": "minimize"}}, "no name"),
        ({"primary_metric_config": {"name": "a", "goal": "best"}}, "neither"),
        ({"max_total_jobs": 0}, "max_total_jobs"),
        ({"max_total_jobs": 1001}, "max_total_jobs"),
        ({"max_total_jobs": True}, "max_total_jobs"),
        ({"max_concurrent_jobs": 101}, "max_concurrent_jobs"),
        ({"max_duration_minutes": "60"}, "max_duration_minutes"),
        ({"platform_config": {}}, "Definition"),
        ({"platform_config": {"Definition": {"Overrides": {}, "SnapshotId": 3}}}, "SnapshotId"),
        ({"resume_child_runs": {}}, "resume_child_runs"),
        ({"resume_child_runs": [{"run_id": 1}]}, "without its id"),
        ({"resume_from": [{"run_id": "a"}] * 6}, "resume_from"),
    ],
)
def test_what_is_no_search_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        read_search({**config(), **changes})
    assert refused.value.status == 400


def test_bayesian_sampling_takes_no_policy() -> None:
    space = {"x": ["uniform", [0, 1]]}
    with pytest.raises(Refusal, match="does not support early termination"):
        read_search(config(space, sampling="BayesianOptimization", policy=BANDIT))


def test_a_duration_beyond_the_services_limit_is_the_limit() -> None:
    search = read_search(config(max_duration_minutes=20000))
    assert search.max_minutes == 10080
    assert any("20000" in note for note in search.notes)
