"""Machines of low priority: a job that loses its machine starts again where it left off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from job_image import containers_of, environment_of, submitter, text_of, wait, wait_for

if TYPE_CHECKING:
    from azureml.core import Environment, Workspace
    from emulator_fixtures import Emulator

pytestmark = [pytest.mark.emulator, pytest.mark.docker]

TRAINS = """
import os, time
from azureml.core import Run
run = Run.get_context()
checkpoint = "outputs/checkpoint.txt"
first = not os.path.exists(checkpoint)
epoch = 0 if first else int(open(checkpoint).read())
print("begins with epoch", epoch, os.path.exists("scratch"), sorted(os.listdir("logs")), flush=True)
open("scratch", "w").close()
for epoch in range(epoch, epoch + 2):
    run.log("epoch", epoch)
    open(f"logs/{epoch}", "w").close()
    with open(checkpoint, "w") as file:
        file.write(str(epoch + 1))
run.flush()
if first:
    print("waits", flush=True)
    time.sleep(300)
"""


def test_a_preempted_job_starts_again_with_its_outputs(
    emulator: Emulator, workspace: Workspace, job_environment: Environment, tmp_path: Path
) -> None:
    submit = submitter(workspace, job_environment, tmp_path)
    run = submit(TRAINS, compute_target="low-priority")
    wait_for(lambda: "user_logs/std_log.txt" in run.get_file_names() and "waits" in text_of(run))
    assert len(containers_of(run.id)) == 1
    emulator.cli("preempt", run.id)
    assert wait(run) == "Completed"
    # The log is begun again, as AzureML does; the metrics are appended to.
    assert text_of(run).startswith("begins with epoch 2 False ['0', '1']\n")
    assert "waits" not in text_of(run)
    assert run.get_metrics() == {"epoch": [0, 1, 2, 3]}
    assert text_of(run, "outputs/checkpoint.txt") == "4"
    assert {f"logs/{epoch}" for epoch in range(4)} <= set(run.get_file_names())
    assert "a node has been preempted" in str(run.get_details()["warnings"])
    assert containers_of(run.id) == []
    done = emulator.cli("preempt", run.id, expect=73)
    assert "only a running job" in done.stderr


def test_no_other_job_is_preempted(emulator: Emulator, workspace: Workspace, base_image: str, tmp_path: Path) -> None:
    run = submitter(workspace, environment_of(base_image, "shell"), tmp_path)(command="while :; do sleep 0.1; done")
    wait(run, "Running")
    done = emulator.cli("preempt", run.id, expect=73)
    assert "dedicated" in done.stderr
    assert "not found" in emulator.cli("preempt", "no-such-run", expect=73).stderr
    run.cancel()
    assert wait(run) == "Canceled"
