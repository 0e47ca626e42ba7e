"""The queues of clusters: as many jobs at a time as there are nodes, in the order of their submission."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from job_image import Submit, environment_of, error_of, submitter, text_of, wait, wait_for

if TYPE_CHECKING:
    from azureml.core import Workspace

pytestmark = [pytest.mark.emulator, pytest.mark.docker]


@pytest.fixture
def shell(workspace: Workspace, base_image: str, tmp_path: Path) -> Submit:
    return submitter(workspace, environment_of(base_image, "shell"), tmp_path / "sources")


def test_jobs_wait_for_nodes_in_order(workspace: Workspace, shell: Submit) -> None:
    from azureml.core import ComputeTarget
    from azureml.core.runconfig import MpiConfiguration

    forever = "while :; do sleep 0.1; done"
    target = ComputeTarget(workspace, "cpu-cluster")
    wait_for(lambda: target.list_nodes() == [])  # a job has ended a moment before its nodes are free
    first = shell(command=forever, distributed_job_config=MpiConfiguration(node_count=3), tune=_quick_end)
    wait(first, "Running")
    large = shell(command="true", distributed_job_config=MpiConfiguration(node_count=2))
    small = shell(command="true")
    canceled = shell(command="true")
    target.refresh_state()
    assert target.status.node_state_counts.running_node_count == 3
    assert [node["runId"] for node in target.list_nodes()] == [first.id] * 3
    canceled.cancel()
    assert wait(canceled, "Canceled") == "Canceled"
    # One node is free, but the small job does not overtake the large one.
    assert [run.get_status() for run in (large, small)] == ["Queued", "Queued"]
    first.cancel()
    assert [wait(run) for run in (large, small)] == ["Completed"] * 2, [error_of(run) for run in (large, small)]


@pytest.mark.slow
def test_fifty_jobs_at_once_all_finish(workspace: Workspace, base_image: str, tmp_path: Path) -> None:
    from azureml.core import Experiment, ScriptRunConfig

    source = tmp_path / "source"
    source.mkdir()
    (source / "word").write_text("fifty")
    environment = environment_of(base_image, "shell")
    config = ScriptRunConfig(str(source), command="cat word", compute_target="cpu-cluster", environment=environment)
    experiment = Experiment(workspace, "fifty")
    runs = [experiment.submit(config) for _ in range(50)]
    # The page of the experiment's runs says all of their states in one request.
    until = time.monotonic() + 800
    while (states := [run._run_dto["status"] for run in experiment.get_runs()]).count("Completed") < len(runs):
        assert time.monotonic() < until, states
        assert not {"Failed", "Canceled"} & set(states)
        time.sleep(0.5)
    assert len(states) == 50
    assert [text_of(run) for run in (runs[0], runs[-1])] == ["fifty", "fifty"]


def _quick_end(config: object) -> None:
    config.environment_variables.update(AZUREML_RUN_KILL_SIGNAL_TIMEOUT_SEC="0")  # type: ignore[attr-defined]
