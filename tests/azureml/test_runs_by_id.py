"""Runs by their recovery ids, and whether they are done."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from himl_container.azureml.failures import MissingRun
from himl_container.azureml.names import create_run_recovery_id
from himl_container.azureml.runs import (
    fetch_run,
    fetch_run_for_experiment,
    get_most_recent_run,
    get_most_recent_run_id,
    is_run_and_child_runs_completed,
)

if TYPE_CHECKING:
    from azureml.core import Experiment, Run, Workspace

pytestmark = pytest.mark.emulator


@pytest.fixture(scope="module")
def experiment(workspace: Workspace) -> Experiment:
    from azureml.core import Experiment

    return Experiment(workspace, "runs-by-id")


@pytest.fixture(scope="module")
def run(experiment: Experiment) -> Run:
    done = experiment.start_logging(snapshot_directory=None)
    done.complete()
    return done


def test_of_a_recovery_id(workspace: Workspace, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = fetch_run(workspace, create_run_recovery_id(run))
    assert found.id == run.id
    assert found.experiment.name == "runs-by-id"
    assert f"Fetched run #{found.number} {run.id} from experiment runs-by-id." in caplog.text


def test_of_an_unknown_experiment(workspace: Workspace) -> None:
    with pytest.raises(MissingRun, match="Unable to retrieve run some_run in experiment misspelt: "):
        fetch_run(workspace, "misspelt:some_run")
    assert "misspelt" not in workspace.experiments


def test_of_an_unknown_id(workspace: Workspace, experiment: Experiment, run: Run) -> None:
    with pytest.raises(MissingRun) as caught:
        fetch_run_for_experiment(experiment, "another")
    said = str(caught.value)
    assert said.startswith("Run another not found for experiment: runs-by-id. Available runs are: ")
    assert run.id in said


def test_most_recent(workspace: Workspace, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "most_recent_run.txt"
    for text in (create_run_recovery_id(run), f" {run.id}\n"):
        path.write_text(text)
        assert get_most_recent_run_id(path) == text.strip()
        assert get_most_recent_run(path, workspace).id == run.id
        assert get_most_recent_run(str(path), workspace).id == run.id
    path.write_text("another-run")
    with pytest.raises(MissingRun, match=r"Unable to retrieve run another-run .*was not found"):
        get_most_recent_run(path, workspace)


def test_no_file(tmp_path: Path) -> None:
    said = "When running in cloud builds, this should pick up the ID of a previous training run"
    for path in (tmp_path / "absent.txt", tmp_path, str(tmp_path)):
        with pytest.raises(AssertionError, match=said):
            get_most_recent_run_id(path)


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
def test_of_children(experiment: Experiment, end: str, caplog: pytest.LogCaptureFixture) -> None:
    parent: Any = experiment.start_logging(snapshot_directory=None)
    first, second = parent.child_run("first"), parent.child_run("second")
    first.complete()
    getattr(second, end)()
    assert not is_run_and_child_runs_completed(parent)
    parent.complete()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert is_run_and_child_runs_completed(parent) == (end == "complete")
    assert (second.id in caplog.text) == (end != "complete")
