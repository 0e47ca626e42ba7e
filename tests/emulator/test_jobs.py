"""Jobs through the unmodified SDK: what they find, what is kept of them, and every way in which they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from job_image import Submit, containers_of, environment_of, error_of, submitter, text_of, wait, wait_for

if TYPE_CHECKING:
    from azureml.core import Environment, Workspace

pytestmark = [pytest.mark.emulator, pytest.mark.docker]


@pytest.fixture
def submit(workspace: Workspace, job_environment: Environment, tmp_path: Path) -> Submit:
    return submitter(workspace, job_environment, tmp_path / "sources")


@pytest.fixture
def shell(workspace: Workspace, base_image: str, tmp_path: Path) -> Submit:
    """Submits commands in an image without Python, which start more quickly."""
    return submitter(workspace, environment_of(base_image, "shell"), tmp_path / "sources")


def test_compute_targets(workspace: Workspace) -> None:
    from azureml.core import ComputeTarget
    from azureml.core.compute import AmlCompute
    from azureml.exceptions import ComputeTargetException

    targets = workspace.compute_targets
    assert set(targets) == {"cpu-cluster", "low-priority"}
    found = ComputeTarget(workspace, "cpu-cluster")
    assert isinstance(found, AmlCompute)
    assert found.get_status().provisioning_state == "Succeeded"
    assert (found.vm_priority, targets["low-priority"].vm_priority) == ("Dedicated", "LowPriority")
    assert found.status.scale_settings.maximum_node_count == 4
    assert found.status.scale_settings.idle_seconds_before_scaledown == 120
    wait_for(lambda: found.list_nodes() == [])  # the job of another test may just have ended
    assert {"name", "vCPUs", "memoryGB"} <= set(AmlCompute.supported_vmsizes(workspace)[0])
    with pytest.raises(ComputeTargetException, match="ComputeTargetNotFound"):
        ComputeTarget(workspace, "nowhere")


SEES = """
import json, os, shutil, sys
from azureml.core import Run
import helper
run = Run.get_context(allow_offline=False)
run.log("loss", 0.5)
run.log("loss", 0.25)
run.tag("seen", "yes")
os.makedirs("outputs/deep")
with open("outputs/deep/found.json", "w") as file:
    json.dump({
        "id": run.id, "experiment": run.experiment.name, "workspace": run.experiment.workspace.name,
        "arguments": sys.argv[1:], "folder": os.getcwd(), "shm": shutil.disk_usage("/dev/shm").total,
        "variables": {name: os.environ.get(name) for name in ("OURS", "AZUREML_RUN_ID", "AZUREML_EXPERIMENT_ID")},
        "helper": helper.WORD, "user": os.getuid(),
    }, file)
with open("logs/events.txt", "w") as file:
    file.write("events")
print("done", file=sys.stderr)
"""


def test_a_job_really_runs(submit: Submit, workspace: Workspace) -> None:
    from azureml.core.runconfig import DockerConfiguration

    odd = "two words $HOME 'x' ü"
    run = submit(
        SEES,
        files={"helper.py": "WORD = 'help'\n"},
        arguments=["--lr", 0.1, True, odd],
        docker_runtime_config=DockerConfiguration(
            use_docker=True, shm_size="123m", arguments=["-e", "OURS=mine", "--privileged"]
        ),
    )
    assert wait(run) == "Completed", error_of(run)
    found = json.loads(text_of(run, "outputs/deep/found.json"))
    assert found["arguments"] == ["--lr", "0.1", "True", odd]
    assert (found["id"], found["experiment"], found["workspace"]) == (run.id, "jobs", workspace.name)
    assert found["folder"].startswith("/mnt/azureml/cr/j/")
    assert found["folder"].endswith("/exe/wd")
    assert (found["shm"], found["helper"], found["user"]) == (123 << 20, "help", 0)
    assert found["variables"]["OURS"] == "mine"
    assert found["variables"]["AZUREML_RUN_ID"] == run.id
    assert run.get_metrics() == {"loss": [0.5, 0.25]}
    assert run.get_tags() == {"seen": "yes"}
    assert {"outputs/deep/found.json", "logs/events.txt", "user_logs/std_log.txt"} <= set(run.get_file_names())
    assert "done\n" in text_of(run)
    said = text_of(run, "system_logs/lifecycler/execution-wrapper.log")
    assert "'--privileged' is not taken over" in said
    assert f"Mount {found['folder']}/outputs." in said
    details = run.get_details()
    assert (details["target"], details["status"]) == ("cpu-cluster", "Completed")
    assert details["startTimeUtc"] < details["endTimeUtc"]
    assert details["runDefinition"]["script"] == "train.py"
    assert details["properties"]["ContentSnapshotId"]
    assert run.get_environment().docker.base_image == details["runDefinition"]["environment"]["docker"]["baseImage"]
    assert containers_of(run.id) == []


def test_the_log_is_shown_while_the_job_runs(shell: Submit, capsys: pytest.CaptureFixture[str]) -> None:
    run = shell(command="for i in 1 2 3; do echo line $i; sleep 0.7; done")
    run.wait_for_completion(show_output=True)
    shown = capsys.readouterr().out
    assert "Streaming user_logs/std_log.txt" in shown
    assert "line 1\nline 2\nline 3\n" in shown


def test_cancel_gives_the_script_time_to_end_and_keeps_its_outputs(shell: Submit) -> None:
    run = shell(
        command="trap 'echo saved > outputs/end; exit 0' TERM; echo event > logs/events; echo begun\n"
        "while :; do sleep 0.1; done"
    )
    wait(run, "Running")
    # Both are there before the job ends.
    wait_for(lambda: {"logs/events", "user_logs/std_log.txt"} <= set(run.get_file_names()))
    wait_for(lambda: text_of(run) == "begun\n")
    assert run.get_status() == "Running"
    assert len(containers_of(run.id)) == 1
    run.cancel()
    assert wait(run) == "Canceled"
    assert text_of(run, "outputs/end") == "saved\n"
    assert containers_of(run.id) == []


def test_cancel_kills_a_script_that_does_not_listen(shell: Submit) -> None:
    run = shell(
        command="trap '' TERM; echo kept > outputs/x; while :; do sleep 0.1; done",
        tune=lambda config: config.environment_variables.update(AZUREML_RUN_KILL_SIGNAL_TIMEOUT_SEC="1"),
    )
    wait(run, "Running")
    run.cancel()
    assert wait(run, seconds=20) == "Canceled"
    assert containers_of(run.id) == []


def test_a_script_that_fails(submit: Submit) -> None:
    from azureml.exceptions import ActivityFailedException

    run = submit("open('outputs/half', 'w').write('half')\ndef f():\n    raise ValueError('nothing works')\nf()\n")
    with pytest.raises(ActivityFailedException, match="nothing works"):
        run.wait_for_completion()
    assert run.get_status() == "Failed"
    assert "exit code 1" in error_of(run)
    assert run.get_details()["error"]["error"]["code"] == "UserError"
    assert text_of(run, "outputs/half") == "half"
    log = text_of(run)
    assert log.startswith("Traceback")
    assert "run_script" not in log


def test_the_log_has_both_streams_in_their_order(shell: Submit) -> None:
    run = shell(command="for i in 1 2 3 4 5 6 7 8 9; do printf $i; printf x >&2; done")
    assert wait(run) == "Completed", error_of(run)
    assert text_of(run) == "1x2x3x4x5x6x7x8x9x"


def test_the_exit_code_of_a_command(shell: Submit) -> None:
    run = shell(command="echo last words >&2; exit 42")
    assert wait(run) == "Failed"
    assert "exit code 42" in error_of(run)
    assert "last words" in error_of(run)


def test_memory_that_runs_out(submit: Submit) -> None:
    from azureml.core.runconfig import DockerConfiguration

    run = submit(
        "x = bytearray(1 << 30)\nprint(len(x))\n",
        docker_runtime_config=DockerConfiguration(use_docker=True, arguments=["--memory", "64m"]),
    )
    assert wait(run) == "Failed"
    assert "its memory ran out" in error_of(run)


def test_the_maximum_duration(shell: Submit) -> None:
    run = shell(command="echo begun; sleep 300", max_run_duration_seconds=1)
    assert wait(run) == "Canceled"
    assert "maximum duration of 1 s" in str(run.get_details()["warnings"])


def test_an_image_that_does_not_exist(workspace: Workspace, shell: Submit) -> None:
    registry = workspace.get_details()["containerRegistry"].rpartition("/")[2]
    missing = f"{registry}.azurecr.io/no/such@sha256:{'0' * 64}"
    run = shell(command="true", environment=environment_of(missing, "missing"))
    assert wait(run) == "Failed"
    assert "no/such" in error_of(run)


def test_a_command_that_the_image_does_not_have(shell: Submit) -> None:
    run = shell("print(1)")  # a Python script, in an image without Python
    assert wait(run) == "Failed"
    assert "the command was not found" in error_of(run)


def test_what_cannot_run_is_refused_at_once(workspace: Workspace, shell: Submit) -> None:
    from azureml.core.runconfig import MpiConfiguration
    from azureml.exceptions import ExperimentExecutionException

    before = len(list(workspace.experiments["jobs"].get_runs()))
    with pytest.raises(ExperimentExecutionException, match="exceeds the number of nodes"):
        shell(command="true", distributed_job_config=MpiConfiguration(node_count=5))
    with pytest.raises(ExperimentExecutionException, match="Compute target nowhere was not found"):
        shell(command="true", compute_target="nowhere")
    assert len(list(workspace.experiments["jobs"].get_runs())) == before


def test_a_job_may_start_children_of_its_own_run_only(submit: Submit) -> None:
    run = submit(
        """
import os, sys
from azureml.core import Run, ScriptRunConfig, Experiment
from azureml.exceptions import AzureMLException
run = Run.get_context()
with run.child_run("inner") as child:
    child.log("a", 1)
definition = run.get_details()["runDefinition"]
os.makedirs("/tmp/child")
open("/tmp/child/child.py", "w").write("print('child')")
from azureml.core import Environment
environment = Environment("job")
environment.docker.base_image = definition["environment"]["docker"]["baseImage"]
environment.python.user_managed_dependencies = True
config = ScriptRunConfig("/tmp/child", script="child.py", compute_target="cpu-cluster", environment=environment)
job = run.submit_child(config)
try:
    run.experiment.submit(config)
except AzureMLException as error:
    print("refused:", str(error)[:2000])
from azureml.data.data_reference import DataReference
store = run.experiment.workspace.datastores["workspaceartifactstore"]
for path in ("ExperimentRun", "ExperimentRun/dcid." + run.id + "/../dcid.other"):
    reference = DataReference(store, "x", path_on_datastore=path, mode="download")
    config.run_config.data_references = {"x": reference.to_config()}
    try:
        run.submit_child(config)
    except AzureMLException as error:
        print("refused:", str(error)[:2000])
job.wait_for_completion()
print("child is", job.get_status())
"""
    )
    assert wait(run) == "Completed", error_of(run)
    log = text_of(run)
    assert "child is Completed" in log
    assert "children of its run only" in log
    assert log.count("no files but those of its own run") >= 2
    children = {child.type: child for child in run.get_children()}
    assert children["azureml.scriptrun"].get_status() == "Completed"
    assert len(children) == 2
