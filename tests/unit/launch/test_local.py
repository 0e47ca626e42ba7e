"""Whole runs against a daemon in memory: the faults that a real one does not produce on demand."""

from __future__ import annotations

import io
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from launch_fakes import FakeContainers, Script, Told

from himl_container.errors import EngineError, InputError, LaunchError, StorageError
from himl_container.launch import supervise
from himl_container.launch.containers import ContainerConfig
from himl_container.launch.local import LocalOptions, run_local
from himl_container.launch.run_folder import RunFolder, RunRecord, read_record
from himl_container.launch.spec import Dataset, ImageRef, LaunchSpec
from himl_container.launch.verdict import RunResult

SPEC = LaunchSpec("train", ImageRef("himl:1"), ("python", "train.py"))
OBEDIENT = Script(exit_code=None, on={"SIGINT": 130, "SIGTERM": 143, "SIGKILL": 137})
STUBBORN = Script(exit_code=None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Case:
    """One run, with everything around it to look at afterwards."""

    def __init__(self, source: Path, told: Told) -> None:
        self.source, self.told = source, told
        self.out, self.err = io.BytesIO(), io.BytesIO()

    def run(self, containers: FakeContainers, spec: LaunchSpec = SPEC, **options: object) -> RunResult:
        return run_local(
            spec,
            LocalOptions(self.source, grace=0.05, **options),  # type: ignore[arg-type]
            containers=containers,
            reporter=self.told,  # type: ignore[arg-type]
            environ={},
            screen={"stdout": self.out, "stderr": self.err},
        )

    @property
    def runs(self) -> list[str]:
        folder = self.source / "runs"
        return names(folder) if folder.exists() else []

    @property
    def record(self) -> RunRecord:
        return read_record(self.source / "runs", "latest")


@pytest.fixture
def case(source: Path, told: Told) -> Case:
    return Case(source, told)


@pytest.fixture(autouse=True)
def short_graces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "PEER_GRACE", 0.05)


@pytest.fixture(autouse=True)
def handlers_are_restored() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def send_when_started(containers: FakeContainers, *numbers: signal.Signals) -> None:
    """Send signals to this process once a container runs, as a user at the terminal would."""

    def send() -> None:
        assert containers.started.wait(60)
        for number in numbers:
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


def test_a_script_that_ends_well(case: Case) -> None:
    containers = FakeContainers(Script(output=(("stdout", b"hello\n"), ("stderr", b"oh\n"))))
    result = case.run(containers)
    assert (result.state, result.exit_code) == ("completed", 0)
    assert (case.out.getvalue(), case.err.getvalue()) == (b"hello\n", b"oh\n")
    assert (result.folder / "user_logs" / "std_log.txt").read_bytes() == b"hello\noh\n"
    assert containers.alive == {}
    record = case.record
    assert (record.state, record.exit_code, record.nodes[0].exit_code) == ("completed", 0, 0)
    assert record.launch["snapshot"]["files"] == 1  # type: ignore[index]
    assert names(result.folder / "snapshot") == ["train.py"]


def test_the_container_gets_what_the_description_says(case: Case, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    spec = replace(
        SPEC, arguments=("--lr", "$(id)"), datasets=(Dataset("d"),), outputs=(Dataset("o"),), shm_size=1 << 30
    )
    containers = FakeContainers(gpus=True)
    result = case.run(
        containers, spec, dataset_folders={"d": tmp_path / "data"}, output_folders={"o": tmp_path / "new" / "out"}
    )
    config = containers.made[0]
    assert config.command == ("python", "train.py", "--lr", "$(id)")
    assert (config.user, config.shm_size, config.gpus, config.network) == ("0:0", 1 << 30, "all", "")
    mounts = {mount.target.rsplit("/", 1)[-1]: (mount.source, mount.read_only) for mount in config.mounts}
    assert mounts == {
        "wd": (result.folder / "work" / "node-0", False),
        "outputs": (result.folder / "outputs", False),
        "logs": (result.folder / "logs", False),
        "INPUT_0": (tmp_path / "data", True),
        "OUTPUT_0": (tmp_path / "new" / "out", False),
    }
    assert (tmp_path / "new" / "out").is_dir()


def test_the_exit_code_is_the_scripts(case: Case) -> None:
    result = case.run(FakeContainers(Script(exit_code=3)))
    assert (result.state, result.exit_code, result.reason) == ("failed", 3, "")


def test_memory_that_ran_out_is_told_as_such(case: Case) -> None:
    result = case.run(FakeContainers(Script(exit_code=137, oom_killed=True)))
    assert result.exit_code == 137
    assert "memory ran out" in result.reason
    assert case.record.nodes[0].oom_killed


def test_what_the_script_left_outside_of_its_outputs_is_kept_and_told(case: Case) -> None:
    def leave(config: ContainerConfig) -> None:
        work = config.mounts[0].source
        (work / "model.pt").write_text("x")
        (work / "train.py").write_text("changed")

    result = case.run(FakeContainers(Script(first=leave)))
    assert result.strays == ("model.pt", "train.py")
    assert (result.folder / "work" / "node-0" / "model.pt").exists()
    assert (result.folder / "snapshot" / "train.py").read_text() == "print('hello')\n"
    assert (case.source / "train.py").read_text() == "print('hello')\n"


def test_live_mounts_the_folder_says_so_and_leaves_it_clean(case: Case) -> None:
    containers = FakeContainers()
    result = case.run(containers, live=True)
    assert containers.made[0].mounts[0].source == case.source
    assert any("live folder" in text for text in case.told.infos)
    assert names(case.source) == ["runs", "train.py"]
    assert not (result.folder / "snapshot").exists()
    assert case.record.launch["snapshot"]["sha256"] == ""  # type: ignore[index]


def test_no_such_image(case: Case) -> None:
    with pytest.raises(LaunchError, match="missing:1"):
        case.run(FakeContainers(), replace(SPEC, image=ImageRef("missing:1")))
    assert case.runs == []


@pytest.mark.parametrize("step", ["create", "open", "start"])
def test_a_container_that_cannot_be_started_leaves_nothing(case: Case, step: str) -> None:
    containers = FakeContainers()
    containers.faults[step] = LaunchError("refused")
    with pytest.raises(LaunchError):
        case.run(containers)
    assert containers.alive == {}
    assert case.runs == []


def test_a_run_folder_that_cannot_be_written(case: Case) -> None:
    (case.source / "file").touch()
    containers = FakeContainers()
    with pytest.raises(StorageError):
        case.run(containers, runs_dir=case.source / "file" / "runs")
    assert containers.made == []


def test_a_log_that_cannot_be_written_is_told_after_the_run(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    real = RunFolder.log

    def on_a_full_disk(folder: RunFolder, rank: int, nodes: int, attempt: int) -> Path:
        path = real(folder, rank, nodes, attempt)
        path.symlink_to("/dev/full")
        return path

    monkeypatch.setattr(RunFolder, "log", on_a_full_disk)
    containers = FakeContainers(Script(output=(("stdout", b"hello\n"),)))
    with pytest.raises(StorageError, match="some of the output is lost"):
        case.run(containers)
    assert case.out.getvalue() == b"hello\n"
    assert containers.alive == {}
    assert case.record.state == "completed"


def test_ctrl_c_stops_the_script_and_keeps_the_logs(case: Case) -> None:
    containers = FakeContainers(replace(OBEDIENT, output=(("stdout", b"working\n"),)))
    send_when_started(containers, signal.SIGINT)
    result = case.run(containers)
    assert (result.state, result.exit_code) == ("cancelled", 130)
    assert [name for _, name in containers.signals] == ["SIGINT"]
    assert containers.alive == {}
    assert (result.folder / "user_logs" / "std_log.txt").read_bytes() == b"working\n"
    assert case.record.state == "cancelled"


def test_ctrl_c_kills_a_script_that_does_not_listen(case: Case) -> None:
    containers = FakeContainers(STUBBORN)
    send_when_started(containers, signal.SIGINT)
    assert case.run(containers).exit_code == 130
    assert [name for _, name in containers.signals] == ["SIGINT", "SIGKILL"]


def test_sigterm_ends_the_run_too(case: Case) -> None:
    containers = FakeContainers(OBEDIENT)
    send_when_started(containers, signal.SIGTERM)
    result = case.run(containers)
    assert (result.state, result.exit_code) == ("cancelled", 143)
    assert [name for _, name in containers.signals] == ["SIGTERM"]


def test_ctrl_c_before_the_container_exists(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    containers = FakeContainers()
    image = containers.image
    monkeypatch.setattr(containers, "image", lambda name: (os.kill(os.getpid(), signal.SIGINT), image(name))[1])
    result = case.run(containers)
    assert (result.state, result.exit_code) == ("cancelled", 130)
    assert containers.made == []


@pytest.mark.parametrize("step", ["create", "open", "start"])
def test_ctrl_c_in_the_middle_of_a_step(case: Case, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    containers = FakeContainers(OBEDIENT)
    real = getattr(containers, step)

    def interrupted(*args: object, **values: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **values)

    monkeypatch.setattr(containers, step, interrupted)
    result = case.run(containers)
    assert (result.state, result.exit_code) == ("cancelled", 130)
    assert containers.alive == {}


def test_a_daemon_that_hangs_is_left_at_the_third_ctrl_c(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    containers = FakeContainers()
    hanging = threading.Event()

    def hang(_config: ContainerConfig) -> None:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        hanging.wait(30)

    monkeypatch.setattr(containers, "create", hang)
    with pytest.raises(KeyboardInterrupt):
        case.run(containers)
    assert case.runs == []


def test_the_maximum_duration_asks_then_kills(case: Case) -> None:
    containers = FakeContainers(STUBBORN)
    result = case.run(containers, replace(SPEC, max_duration=0.05))
    assert (result.state, result.exit_code) == ("timed_out", 124)
    assert [name for _, name in containers.signals] == ["SIGTERM", "SIGKILL"]


@pytest.mark.parametrize("options", [{"preempt": (1.0,)}, {"change": {"max_duration": 1.0}}])
def test_a_script_that_has_ended_was_not_stopped_however_late_we_look(
    case: Case, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    containers = FakeContainers(Script(exit_code=3))
    start = containers.start

    def until_told(name: str) -> None:
        start(name)
        containers.carried(name)

    class Late(supervise.Supervisor):
        """One that stands still for an hour after the start, as a machine that is put to sleep."""

        def __init__(self, *arguments: object) -> None:
            times = itertools.chain([0.0], itertools.repeat(3600.0))
            super().__init__(*arguments, clock=lambda: next(times))  # type: ignore[arg-type]

    monkeypatch.setattr(containers, "start", until_told)
    monkeypatch.setattr("himl_container.launch.execution.Supervisor", Late)
    result = case.run(containers, replace(SPEC, **options.pop("change", {})), **options)  # type: ignore[arg-type]
    assert (result.state, result.exit_code, result.preemptions) == ("failed", 3, 0)
    assert containers.signals == []


def test_a_daemon_that_dies_in_the_middle(case: Case) -> None:
    containers = FakeContainers(replace(STUBBORN, output=(("stdout", b"working\n"),)))
    threading.Thread(target=lambda: (containers.started.wait(60), containers.die()), daemon=True).start()
    with pytest.raises(EngineError) as caught:
        case.run(containers)
    assert "went away" in caught.value.what
    record = case.record
    assert (record.state, record.exit_code) == ("lost", EngineError.exit_code)
    assert record.nodes[0].exit_code is None


def test_a_container_that_stays_behind_does_not_change_the_result(case: Case) -> None:
    containers = FakeContainers()
    containers.faults["remove"] = EngineError("busy")
    assert case.run(containers).exit_code == 0
    assert any("left behind" in text for text in case.told.infos)


def test_preemption_starts_again_with_the_outputs_in_place(case: Case) -> None:
    def work(config: ContainerConfig) -> None:
        work, outputs = config.mounts[0].source, config.mounts[1].source
        assert names(work) == ["logs", "outputs", "train.py"]  # nothing of the start before
        (work / "scratch").touch()
        with open(outputs / "starts", "a") as file:
            file.write("x")

    containers = FakeContainers(replace(OBEDIENT, first=work), replace(OBEDIENT, first=work), Script(first=work))
    result = case.run(containers, preempt=(0.05, 0.05))
    assert (result.state, result.exit_code, result.preemptions) == ("completed", 0, 2)
    assert (result.folder / "outputs" / "starts").read_text() == "xxx"
    assert [name for _, name in containers.signals] == ["SIGKILL", "SIGKILL"]
    assert [node.preempted for node in case.record.nodes] == [True, True, False]
    assert [node.log for node in case.record.nodes] == [
        "user_logs/std_log.txt",
        "user_logs/retry_001/std_log.txt",
        "user_logs/retry_002/std_log.txt",
    ]


def test_a_run_that_ends_before_its_preemption_says_so(case: Case) -> None:
    result = case.run(FakeContainers(Script(exit_code=4)), preempt=(60.0,))
    assert (result.exit_code, result.preemptions) == (4, 0)
    assert any("before preemption 1 of 1" in text for text in case.told.infos)


def test_the_maximum_duration_counts_all_starts(case: Case) -> None:
    result = case.run(FakeContainers(OBEDIENT), replace(SPEC, max_duration=0.1), preempt=(0.04,) * 50)
    assert result.exit_code == 124
    assert 0 < result.preemptions < 5


def test_the_first_failing_node_stops_the_others_and_gives_the_exit_code(case: Case) -> None:
    containers = FakeContainers(OBEDIENT, Script(exit_code=5), STUBBORN)
    result = case.run(containers, replace(SPEC, nodes=3))
    assert (result.state, result.exit_code) == ("failed", 5)
    assert "node 1 failed first" in result.reason
    assert containers.alive == {}
    assert containers.networks == set()
    names = {config.name for config in containers.made}
    assert len(names) == 3
    assert {node.rank: node.exit_code for node in case.record.nodes} == {0: 143, 1: 5, 2: 137}


def test_a_node_that_fails_before_the_next_one_has_started(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    containers = FakeContainers(Script(exit_code=5), OBEDIENT)
    start = containers.start

    def until_told(name: str) -> None:
        start(name)
        if name == containers.made[0].name:
            containers.carried(name)

    monkeypatch.setattr(containers, "start", until_told)
    result = case.run(containers, replace(SPEC, nodes=2))
    assert (result.state, result.exit_code) == ("failed", 5)
    assert "node 0 failed first" in result.reason
    assert [name for _, name in containers.signals] == ["SIGTERM"]
    assert {node.rank: node.exit_code for node in case.record.nodes} == {0: 5, 1: 143}


def test_nodes_share_a_network_and_have_logs_of_their_own(case: Case) -> None:
    containers = FakeContainers(
        Script(output=(("stdout", b"a\nb"),)), Script(output=(("stdout", b"c"), ("stdout", b"d\n")))
    )
    result = case.run(containers, replace(SPEC, nodes=2))
    assert result.exit_code == 0
    assert {config.network for config in containers.made} == {f"himl-{result.run_id}"}
    assert [config.hostname for config in containers.made] == ["node-0", "node-1"]
    assert sorted(case.out.getvalue().splitlines()) == [b"[0] a", b"[0] b", b"[1] cd"]
    logs = result.folder / "user_logs"
    assert (logs / "std_log_process_00.txt").read_bytes() == b"a\nb"
    assert (logs / "std_log_process_01.txt").read_bytes() == b"cd\n"


def test_a_network_that_cannot_be_made(case: Case) -> None:
    containers = FakeContainers()
    containers.faults["create_network"] = LaunchError("no addresses left")
    with pytest.raises(LaunchError):
        case.run(containers, replace(SPEC, nodes=2))
    assert case.runs == []


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({"datasets": (Dataset("a"),)}, {"dataset_folders": {"a": Path("/nope")}}),
        ({"datasets": (Dataset("a"),)}, {}),
        ({"outputs": (Dataset("a"),)}, {"output_folders": {"a": Path("/dev/null")}}),
        ({"nodes": 2}, {"interactive": True}),
        ({}, {"interactive": True, "preempt": (1.0,)}),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(
    case: Case, change: dict[str, object], options: dict[str, object]
) -> None:
    containers = FakeContainers()
    with pytest.raises(InputError):
        case.run(containers, replace(SPEC, **change), **options)
    assert containers.made == []
    assert case.runs == []


def test_a_file_where_azureml_makes_a_folder(case: Case) -> None:
    (case.source / "outputs").write_text("mine")
    (case.source / ".amlignore").write_text("")
    with pytest.raises(InputError, match="folder that AzureML makes"):
        case.run(FakeContainers())


def test_secrets_are_in_no_file_of_the_run(case: Case) -> None:
    containers = FakeContainers()
    result = case.run(containers, replace(SPEC, environment=(("API_TOKEN", "canary"),)))
    assert ("API_TOKEN", "canary") in containers.made[0].environment
    for path in result.folder.rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes()
