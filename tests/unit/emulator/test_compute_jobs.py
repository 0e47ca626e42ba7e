from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from unit.emulator.compute_fakes import CLUSTERS, Plant, host_path
from unit.launch.launch_fakes import Script

from himl_container.emulator.compute.description import EMULATOR_LABEL, RUN_SCRIPT
from himl_container.emulator.compute.folder import JobFolder
from himl_container.emulator.compute.model import Cluster, JobInput, JobOutput
from himl_container.emulator.http import Refusal
from himl_container.emulator.state.runs import Run, Status
from himl_container.errors import EngineError, LaunchError, RegistryError, StorageError
from himl_container.launch.containers import ContainerConfig

RUNS_ON = Script(exit_code=None)


@pytest.fixture
def plants(tmp_path: Path) -> Iterator[list[Plant]]:
    made: list[Plant] = []
    yield made
    for plant in made:
        plant.compute.stop(20)
        assert not plant.daemon.alive


@pytest.fixture
def make(plants: list[Plant], tmp_path: Path) -> Iterator[object]:
    def build(*scripts: Script, **values: object) -> Plant:
        plant = Plant(tmp_path, *scripts, **values)  # type: ignore[arg-type]
        plants.append(plant)
        plant.compute.start()
        return plant

    yield build


def _writes(name: str, text: str) -> object:
    def first(config: ContainerConfig) -> None:
        path = host_path(config, "/wd/" + name.partition("/")[0]) / name.partition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return first


def test_a_job_goes_through_azures_states_and_leaves_its_files(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(
        Script((("stdout", b"hello\n"), ("stderr", b"oh\n")), first=_writes("outputs/sub/model.bin", "weights"))
    )
    plant.submit("r1", arguments=["--lr", 0.1, True])
    run = plant.wait("r1")
    assert run.status is Status.COMPLETED
    assert not run.error
    assert [status.value for status in plant.changes["r1"]] == [
        *("Queued", "Preparing", "Starting", "Running", "Finalizing", "Completed")
    ]
    assert plant.read("r1", "user_logs/std_log.txt") == "hello\noh\n"
    assert plant.read("r1", "outputs/sub/model.bin") == "weights"
    assert plant.read("r1", "azureml-logs/20_image_build_log.txt") == "image: found\n"
    assert "/exe/wd/outputs" in plant.read("r1", "system_logs/lifecycler/execution-wrapper.log")
    (config,) = plant.daemon.made
    assert config.command == ("python", RUN_SCRIPT, "train.py", "--lr", "0.1", "True")
    assert any(mount.target == RUN_SCRIPT for mount in config.mounts)
    assert config.network == "emulator-net"
    assert config.labels == {"himl-container.emulator": "emulator-1", "himl-container.run": "r1"}
    assert dict(config.environment)["AZUREML_RUN_TOKEN"] == "token of r1"
    assert any(mount.target == "/certificates.pem" and mount.read_only for mount in config.mounts)
    plant.compute.stop()  # all threads have ended
    assert plant.jobs.all() == []
    assert list((plant.folder / "jobs").iterdir()) == []


def test_a_job_that_fails_says_how_and_keeps_its_files(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(Script((("stderr", b"a\nValueError: no\n"),), exit_code=3, first=_writes("outputs/x", "1")))
    plant.submit("r1")
    run = plant.wait("r1")
    assert run.status is Status.FAILED
    error = run.error["error"]
    assert error["code"] == "UserError"
    assert "exit code 3" in error["message"]
    assert "ValueError: no" in error["message"]
    assert plant.read("r1", "outputs/x") == "1"


def test_memory_that_ran_out(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(Script(exit_code=137, oom_killed=True))
    plant.submit("r1")
    error = plant.wait("r1").error["error"]
    assert "its memory ran out" in error["message"]
    assert error["innerError"]["code"] == "OutOfMemory"


def test_names_of_data_become_paths(make) -> None:  # type: ignore[no-untyped-def]
    plant = make()
    plant.data.given = (
        JobInput("iris", "mount", dataset_id="ds-1"),
        JobInput("cold", "download", "/data/cold", dataset_id="ds-2"),
        JobInput("table", "direct", dataset_id="ds-3", value="ds-3"),
    )
    plant.data.taken = (JobOutput("model", "mount"),)
    words = ["DatasetConsumptionConfig:iris", "--in=DatasetConsumptionConfig:cold", "DatasetConsumptionConfig:table"]
    words += ["DatasetOutputConfig:model", "DatasetConsumptionConfig:other", "$AZUREML_DATAREFERENCE_iris"]
    plant.submit("r1", arguments=words)
    run = plant.wait("r1")
    (config,) = plant.daemon.made
    iris, cold, table, model, other, reference = config.command[3:]
    assert iris.endswith("/cap/data-capability/wd/iris")
    assert (cold, table, other, reference) == ("--in=/data/cold", "ds-3", words[4], iris)
    values = dict(config.environment)
    assert values["AZURE_ML_INPUT_iris"] == values["iris"] == iris
    assert values["AZURE_ML_OUTPUT_model"] == values["model"] == model
    assert values["AZUREML_DATASET_ENVIRONMENT_VARS"] == "iris:mount,cold:download,table:direct"
    assert values["table"] == "ds-3"
    assert values["AZUREML_DATASET_FILE_OUTPUTS"] == "model"
    assert {mount.target: mount.read_only for mount in config.mounts}["/data/cold"] is False
    assert {mount.target: mount.read_only for mount in config.mounts}[iris] is True
    assert [item["identifier"]["savedId"] for item in run.input_datasets] == ["ds-1", "ds-2", "ds-3"]
    assert plant.data.stored == [("r1", "model", [])]


def test_a_command_is_one_argument_of_a_shell(make) -> None:  # type: ignore[no-untyped-def]
    plant = make()
    plant.data.given = (JobInput("iris", "mount", "/data/my iris"),)
    plant.submit("r1", script="", command="cat DatasetConsumptionConfig:iris/x && echo $HOME")
    plant.wait("r1")
    (config,) = plant.daemon.made
    assert config.command[0] == "/bin/sh"
    assert config.command[-1] == "cat '/data/my iris'/x && echo $HOME"


@pytest.mark.parametrize("framework", ["mpi", "pytorch"])
def test_several_processes_on_several_nodes(make, framework: str) -> None:  # type: ignore[no-untyped-def]
    plant = make(Script((("stdout", b"hi\n"),)))
    if framework == "mpi":
        plant.submit("r1", nodeCount=2, communicator="IntelMpi", mpi={"processCountPerNode": 2})
    else:
        plant.submit("r1", node_count=2, framework="PyTorch", pytorch={"processCount": 4})
    assert plant.wait("r1").status is Status.COMPLETED
    ranks = {config.name: config for config in plant.daemon.made if "-node-" not in config.name}
    holders = [config for config in plant.daemon.made if "-node-" in config.name]
    assert (len(ranks), len(holders)) == (4, 2)
    assert [holder.ipc for holder in holders] == ["shareable"] * 2
    last = list(ranks.values())[3]
    assert last.network == last.ipc == f"container:{holders[1].name}"
    values = dict(last.environment)
    if framework == "mpi":
        assert (values["OMPI_COMM_WORLD_RANK"], values["OMPI_COMM_WORLD_LOCAL_RANK"]) == ("3", "1")
        assert values["AZ_BATCHAI_MPI_MASTER_NODE"] == holders[0].hostname
    else:
        assert (values["RANK"], values["LOCAL_RANK"], values["NODE_RANK"]) == ("3", "1", "1")
        assert (values["WORLD_SIZE"], values["MASTER_ADDR"]) == ("4", holders[0].hostname)
    assert plant.read("r1", "user_logs/std_log_process_03.txt") == "hi\n"
    assert plant.daemon.alive == {}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RegistryError("no such image"), "UserError"),
        (EngineError("no daemon"), "ServiceError"),
        (ValueError("x"), "ServiceError"),
    ],
)
def test_an_image_that_cannot_be_had(make, error: Exception, code: str) -> None:  # type: ignore[no-untyped-def]
    plant = make()
    plant.images.error = error
    plant.submit("r1")
    run = plant.wait("r1")
    assert run.status is Status.FAILED
    assert run.error["error"]["code"] == code
    assert str(error) in run.error["error"]["message"]
    assert plant.daemon.made == []


def test_a_container_that_cannot_be_started(make) -> None:  # type: ignore[no-untyped-def]
    plant = make()
    plant.daemon.faults["start"] = LaunchError("the image has no such command: foo")
    plant.submit("r1")
    run = plant.wait("r1")
    assert (run.status, run.error["error"]["code"]) == (Status.FAILED, "UserError")
    assert "no such command" in run.error["error"]["message"]


def test_what_a_job_that_failed_was_to_upload_is_not_stored(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(Script(exit_code=3))
    plant.data.taken = (JobOutput("mounted", "mount"), JobOutput("uploaded", "upload"))
    plant.submit("r1")
    assert plant.wait("r1").status is Status.FAILED
    assert [name for _run, name, _files in plant.data.stored] == ["mounted"]


def test_the_variable_of_a_single_file_is_its_path(make) -> None:  # type: ignore[no-untyped-def]
    plant = make()
    plant.data.given = (JobInput("one", "mount", "/data", source={"single": True}), JobInput("all", "mount", "/all"))
    plant.submit("r1", arguments=["DatasetConsumptionConfig:one", "DatasetConsumptionConfig:all"])
    assert plant.wait("r1").status is Status.COMPLETED
    (config,) = plant.daemon.made
    assert config.command[-2:] == ("/data/data.csv", "/all")
    assert dict(config.environment)["AZURE_ML_INPUT_one"] == "/data/data.csv"


def test_an_output_that_cannot_be_stored_fails_the_run(make) -> None:  # type: ignore[no-untyped-def]
    plant = make()
    plant.data.taken, plant.data.error = (JobOutput("model", "upload"),), StorageError("the storage is full")
    plant.submit("r1")
    run = plant.wait("r1")
    assert run.status is Status.FAILED
    assert "the storage is full" in run.error["error"]["message"]


def test_nodes_are_a_limit_and_a_large_job_is_not_overtaken(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(Script(exit_code=None, on={"SIGTERM": 0, "SIGKILL": 137}))
    for run_id, nodes in (("a", 1), ("b", 2), ("c", 1)):
        plant.submit(run_id, nodeCount=nodes)
    plant.running("a")
    assert [plant.runs.get(run_id).status for run_id in ("b", "c")] == [Status.QUEUED] * 2
    assert plant.compute.occupied("cpu").running == {"a": 1}
    plant.compute.cancel("a")
    plant.running("b")
    assert plant.runs.get("c").status is Status.QUEUED
    plant.compute.cancel("b")
    plant.running("c")
    assert plant.wait("a", Status.CANCELED).ended is not None


@pytest.mark.parametrize("nodes", [1, 2])
def test_fifty_jobs_at_once_all_finish_in_order(make, nodes: int) -> None:  # type: ignore[no-untyped-def]
    plant = make(clusters=(Cluster("cpu", max_nodes=nodes),))
    for number in range(50):
        plant.submit(f"r{number}")
    assert all(plant.wait(f"r{number}").status is Status.COMPLETED for number in range(50))
    started = [plant.runs.get(f"r{number}").started or 0 for number in range(50)]
    assert all(started)
    if nodes == 1:  # with more of them, a thread that gets no processor may let others by
        assert started == sorted(started)


def test_a_higher_priority_goes_first(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(RUNS_ON)
    plant.submit("first", nodeCount=2)
    plant.running("first")
    plant.submit("low", nodeCount=2)
    plant.submit("high", nodeCount=2, priority=5)
    plant.compute.cancel("first")
    # The script does not listen to SIGTERM; the emulator's own end is not what this test is about.
    plant.daemon.alive[plant.daemon.made[0].name].finish(143)
    plant.daemon.alive[plant.daemon.made[1].name].finish(143)
    plant.running("high")
    assert plant.runs.get("low").status is Status.QUEUED


def test_cancel_asks_gives_time_and_keeps_the_files(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(Script(exit_code=None, on={"SIGTERM": 0}, first=_writes("outputs/x", "1")))
    signal = plant.daemon.signal

    def listens(name: str, number: str) -> None:
        plant.wait("r1", Status.CANCEL_REQUESTED)  # else it may have ended before the run says so
        signal(name, number)

    plant.daemon.signal = listens
    plant.submit("r1")
    plant.running("r1")
    plant.compute.cancel("r1")
    run = plant.wait("r1")
    assert run.status is Status.CANCELED
    assert plant.changes["r1"][-2:] == [Status.CANCEL_REQUESTED, Status.CANCELED]
    assert plant.read("r1", "outputs/x") == "1"
    assert [signal for _name, signal in plant.daemon.signals] == ["SIGTERM"]
    plant.compute.cancel("r1")  # nothing happens
    assert plant.runs.get("r1").status is Status.CANCELED


def test_a_script_that_does_not_listen_is_killed_after_its_own_grace(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(RUNS_ON)
    plant.submit("r1", environmentVariables={"AZUREML_RUN_KILL_SIGNAL_TIMEOUT_SEC": "0"})
    plant.running("r1")
    plant.compute.cancel("r1")
    assert plant.wait("r1").status is Status.CANCELED
    assert [signal for _name, signal in plant.daemon.signals] == ["SIGTERM", "SIGKILL"]


def test_cancel_while_queued_and_while_preparing(make) -> None:  # type: ignore[no-untyped-def]
    plant = make()
    plant.images.gate = threading.Event()
    plant.submit("r1", nodeCount=2)
    plant.submit("r2", nodeCount=2)
    plant.wait("r1", Status.PREPARING)
    plant.compute.cancel("r2")
    assert plant.runs.get("r2").status is Status.CANCELED
    plant.compute.cancel("r1")
    plant.images.gate.set()
    assert plant.wait("r1").status is Status.CANCELED
    assert plant.daemon.made == []


def test_stop_waits_for_no_job_that_is_being_prepared(make) -> None:  # type: ignore[no-untyped-def]
    plant = make()
    plant.images.gate = threading.Event()
    plant.images.error = RegistryError("no such image")
    plant.submit("r1")
    plant.wait("r1", Status.PREPARING)
    thread = plant.compute._running["r1"].thread
    plant.compute.stop()
    assert thread.is_alive()
    plant.images.gate.set()
    thread.join(20)
    assert plant.runs.get("r1").status is Status.PREPARING  # the failure is no more its end than the stop
    plant.images.error = None
    plant.compute = plant.new_compute()
    plant.compute.start()
    assert plant.wait("r1").status is Status.COMPLETED


def test_the_maximum_duration_cancels_the_run_and_says_so(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(Script(exit_code=None, on={"SIGTERM": 0}))
    plant.submit("r1", maxRunDurationSeconds=1)
    run = plant.wait("r1")
    assert run.status is Status.CANCELED
    assert "maximum duration of 1 s" in run.warnings[0]["message"]


def test_a_preempted_job_starts_again_with_its_files(make) -> None:  # type: ignore[no-untyped-def]
    seen = []

    def second(config: ContainerConfig) -> None:
        seen.append((host_path(config, "/wd/outputs") / "checkpoint").read_text())
        seen.append((host_path(config, "/exe/wd") / "scratch").exists())

    def first(config: ContainerConfig) -> None:
        (host_path(config, "/wd/outputs") / "checkpoint").write_text("epoch 1")
        (host_path(config, "/exe/wd") / "scratch").write_text("lost")

    plant = make(
        Script((("stdout", b"one\n"),), exit_code=None, first=first), Script((("stdout", b"two\n"),), first=second)
    )
    plant.submit("r1", "low")
    plant.running("r1")
    plant.compute.preempt("r1")
    run = plant.wait("r1")
    assert run.status is Status.COMPLETED
    assert seen == ["epoch 1", False]
    assert plant.read("r1", "user_logs/std_log.txt") == "two\n"
    assert "preemption" in run.warnings[0]["message"]
    assert [signal for _name, signal in plant.daemon.signals] == ["SIGKILL"]
    assert plant.changes["r1"].count(Status.QUEUED) == 2


def test_whoever_sees_that_a_job_runs_may_preempt_it(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(RUNS_ON, Script())
    asked = []

    def preempt(_old: object, run: Run) -> None:
        if run.status is Status.RUNNING and not asked:
            asked.append(run.run_id)
            plant.compute.preempt(run.run_id)

    plant.runs.listen(preempt)
    plant.submit("r1", "low")
    assert plant.wait("r1").status is Status.COMPLETED
    assert plant.changes["r1"].count(Status.QUEUED) == 2


def test_only_running_jobs_of_low_priority_are_preempted(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(RUNS_ON)
    plant.submit("r1", nodeCount=2)
    plant.submit("r2")
    plant.running("r1")
    for run_id in ("r1", "r2"):
        with pytest.raises(Refusal) as caught:
            plant.compute.preempt(run_id)
        assert caught.value.status == 409
    with pytest.raises(Refusal) as caught:
        plant.compute.preempt("unknown")
    assert caught.value.status == 404


def test_a_seed_preempts_the_same_jobs_each_time(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from himl_container.emulator.compute.job import MOST_PREEMPTIONS, preemption_of

    cluster = replace(CLUSTERS[1], preempt_seed=7)
    times = [preemption_of(cluster, position, 0) for position in range(200)]
    assert times == [preemption_of(cluster, position, 0) for position in range(200)]
    assert 50 < sum(time is None for time in times) < 150
    assert all(time is None or 1 <= time <= 10 for time in times)
    assert preemption_of(cluster, 1, MOST_PREEMPTIONS) is None
    assert {preemption_of(CLUSTERS[1], position, 0) for position in range(20)} == {None}


def test_a_job_larger_than_its_cluster_or_without_one_is_refused(make) -> None:  # type: ignore[no-untyped-def]
    plant = make()
    plant.create("r1", nodeCount=3)
    with pytest.raises(Refusal, match="exceeds the number of nodes") as caught:
        plant.compute.submit("r1")
    assert caught.value.status == 400
    plant.create("r2", target="gpu")
    with pytest.raises(Refusal) as caught:
        plant.compute.submit("r2")
    assert caught.value.status == 404
    assert plant.jobs.all() == []


def test_stop_ends_what_runs_and_leaves_what_waits(make, plants: list[Plant]) -> None:  # type: ignore[no-untyped-def]
    plant = make(Script(exit_code=None, first=_writes("outputs/x", "1")))
    plant.submit("r1", nodeCount=2)
    plant.submit("r2")
    plant.running("r1")
    plant.compute.stop()
    run = plant.runs.get("r1")
    assert run.status is Status.FAILED
    assert "emulator was stopped" in run.error["error"]["message"]
    assert plant.read("r1", "outputs/x") == "1"
    assert plant.runs.get("r2").status is Status.QUEUED
    plant.daemon.scripts = [Script()]
    plant.compute = plant.new_compute()
    plant.compute.start()
    assert plant.wait("r2").status is Status.COMPLETED


def test_after_a_kill_containers_are_removed_and_files_kept(plants: list[Plant], tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plants.append(plant)
    plant.data.taken = (JobOutput("model", "mount"),)
    plant.create("r1")
    plant.jobs.add("r1", "cpu")
    plant.runs.set_status("r1", Status.RUNNING)
    folder = JobFolder(tmp_path / "jobs", "r1")
    folder.make(1, ["model"])
    (folder.path / "outputs" / "x").write_text("1")
    (folder.output("model") / "weights").write_text("2")
    for name, emulator in (("ours", "emulator-1"), ("theirs", "emulator-2")):
        plant.daemon.create(ContainerConfig(name, "i", ("true",), labels={EMULATOR_LABEL: emulator}))
    plant.compute.start()
    assert plant.wait("r1").status is Status.FAILED
    assert plant.read("r1", "outputs/x") == "1"
    assert plant.data.stored == [("r1", "model", ["weights"])]
    assert list(plant.daemon.alive) == ["theirs"]
    plant.daemon.remove("theirs")


@pytest.mark.parametrize(
    ("status", "outcome", "wanted", "words"),
    [
        (Status.RUNNING, None, Status.FAILED, "found dead"),
        (Status.STARTING, None, Status.FAILED, "found dead"),
        (Status.CANCEL_REQUESTED, None, Status.CANCELED, ""),
        (Status.FINALIZING, "Completed", Status.COMPLETED, ""),
        (Status.PREPARING, None, Status.COMPLETED, ""),
        (Status.QUEUED, None, Status.COMPLETED, ""),
    ],
)
def test_what_each_state_becomes_after_a_kill(
    plants: list[Plant], tmp_path: Path, status: Status, outcome: str | None, wanted: Status, words: str
) -> None:
    plant = Plant(tmp_path)
    plants.append(plant)
    plant.create("r1")
    plant.jobs.add("r1", "cpu")
    plant.runs.set_status("r1", status)
    if outcome:
        plant.jobs.note_outcome("r1", outcome, {})
    plant.compute.start()
    run = plant.wait("r1")
    assert run.status is wanted
    assert words in str(run.error)
    plant.compute.stop()
    assert plant.jobs.all() == []


def test_a_cluster_that_is_gone_fails_its_waiting_jobs(plants: list[Plant], tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plants.append(plant)
    plant.create("r1", "old")
    plant.jobs.add("r1", "old")
    plant.runs.set_status("r1", Status.QUEUED)
    plant.compute.start()
    run = plant.wait("r1")
    assert (run.status, run.error["error"]["innerError"]["code"]) == (Status.FAILED, "ComputeTargetNotFound")


def test_a_daemon_that_dies_in_the_middle(make) -> None:  # type: ignore[no-untyped-def]
    plant = make(Script((("stdout", b"begun\n"),), exit_code=None))
    plant.submit("r1")
    plant.running("r1")
    plant.daemon.die()
    run = plant.wait("r1")
    assert (run.status, run.error["error"]["code"]) == (Status.FAILED, "ServiceError")
    assert plant.read("r1", "user_logs/std_log.txt") == "begun\n"
    plant.daemon.faults.clear()
    plant.daemon.alive.clear()


def test_a_file_where_the_outputs_belong(make, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    plant = make()
    monkeypatch.setattr(
        "unit.emulator.compute_fakes.FakeSnapshots.unpack",
        lambda self, _id, folder: (folder / "outputs").write_text("x"),
    )
    plant.submit("r1")
    run = plant.wait("r1")
    assert run.status is Status.FAILED
    assert "outputs" in run.error["error"]["message"]
