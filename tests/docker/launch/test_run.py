"""``himl-container run --local`` against a real Docker engine."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import kit
import pytest

from himl_container.image.endpoint import resolve_endpoint

pytestmark = pytest.mark.docker


@pytest.fixture
def runner(project: kit.ProjectFolder, base_image: str) -> Iterator[Runner]:
    runner = Runner(project.path, base_image)
    yield runner
    runner.end()
    # Whatever a test did, the engine is as it was before.
    assert runner.left_behind() == []


class Runner:
    """The command line with an image that is there, in a project folder."""

    def __init__(self, folder: Path, image: str) -> None:
        self.folder = folder
        self.words = ["run", "--local", "--image", image]
        self._cli = kit.Cli(folder, kit.clean_environ())
        self._processes: list[subprocess.Popen[str]] = []

    def __call__(self, *words: str | Path, expect: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        return self._cli(*self.words, *words, expect=expect, environ=environ, timeout=120)

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [kit.COMMAND, *self.words, *words],
            cwd=self.folder,
            env=kit.clean_environ(**environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._processes.append(process)
        return process

    def end(self) -> None:
        """End what a failed test left running."""
        for process in self._processes:
            process.terminate()
            process.communicate(timeout=60)

    @property
    def run(self) -> Path:
        return (self.folder / "runs" / "latest").resolve()

    @property
    def record(self) -> dict[str, object]:
        value = json.loads((self.run / "run.json").read_text())
        assert isinstance(value, dict)
        return value

    def left_behind(self) -> list[str]:
        runs = self.folder / "runs"
        ids = [path.name for path in runs.iterdir() if path.name != "latest"] if runs.exists() else []
        left = []
        for kind in (["ps", "--all", "--format", "{{.Names}}"], ["network", "ls", "--format", "{{.Name}}"]):
            names = subprocess.run(["docker", *kind], capture_output=True, text=True, check=True).stdout.split()
            left += [name for name in names if any(run_id in name for run_id in ids)]
        return left


def write_script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text("#!/bin/sh\n" + text)
    (folder / name).chmod(0o755)


def test_a_script_finds_what_azureml_gives_and_leaves_its_results(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "iris.csv").write_text("1,2\n")
    write_script(
        runner.folder,
        "job.sh",
        'pwd; id -u; cat "$INPUT_0/iris.csv"; printf "%s|" "$@"; echo; echo to-err >&2\n'
        'echo result > outputs/r; echo log > logs/l; echo copy > "$OUTPUT_0/c"; echo new > scratch\n'
        'df -m /dev/shm | tail -1; echo "$A|$AZUREML_RUN_ID|$MKL_SERVICE_FORCE_INTEL"; touch "$INPUT_0/x"\n',
    )
    odd = "$(id) `id` \"'\n\\ ü #"
    done = runner(
        *("--dataset", f"iris={tmp_path / 'data'}", "--output", "res=out", "--env", f"A={odd}", "--shm-size", "64m"),
        *("job.sh", "--gpus", "ten", odd, "--", ""),
        expect=1,  # the last command: a dataset cannot be written
    )
    lines = done.stdout
    assert lines.startswith("/mnt/azureml/cr/j/")
    assert "/exe/wd\n0\n1,2\n" in lines
    assert f"--gpus|ten|{odd}|--||\n" in lines
    assert f"{odd}|{runner.run.name}|1\n" in lines
    assert " 64 " in lines
    assert "to-err\n" in done.stderr
    assert "Read-only file system" in done.stderr
    assert (runner.run / "outputs" / "r").read_text() == "result\n"
    assert (runner.run / "logs" / "l").read_text() == "log\n"
    assert (runner.folder / "out" / "c").read_text() == "copy\n"
    assert not (runner.folder / "scratch").exists()
    assert "would not keep: scratch" in done.stderr
    assert "to-err" in (runner.run / "user_logs" / "std_log.txt").read_text()
    record = runner.record
    assert (record["state"], record["exit_code"]) == ("failed", 1)
    assert str(record["launch"]["image"]["id"]).startswith("sha256:")  # type: ignore[index]


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_the_scripts(runner: Runner, code: int) -> None:
    runner("sh", "-c", f"exit {code}", expect=code)


def test_a_script_that_does_not_exist_starts_nothing(runner: Runner) -> None:
    (runner.folder / "train.py").touch()
    (runner.folder / ".gitignore").write_text("*.py\n")
    assert "left out of the snapshot by .gitignore:1" in runner("train.py", expect=65).stderr
    assert "no such script" in runner("nope.py", expect=65).stderr
    assert not (runner.folder / "runs").exists()
    assert "not found" in runner("no-such-command", expect=127).stderr


def test_output_arrives_while_the_script_runs(runner: Runner) -> None:
    process = runner.start("sh", "-c", "echo first; while [ ! -e outputs/go ]; do sleep 0.1; done; echo last")
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    (runner.run / "outputs" / "go").touch()
    assert process.stdout.read() == "last\n"
    assert process.wait(60) == 0


def test_a_flood_of_output_arrives_whole_and_in_order(runner: Runner) -> None:
    done = runner("sh", "-c", "seq 1 200000")
    assert done.stdout.split() == [str(number) for number in range(1, 200001)]
    assert (runner.run / "user_logs" / "std_log.txt").read_text() == done.stdout


def test_a_script_that_is_killed_for_memory(runner: Runner) -> None:
    done = runner("--memory", "64m", "sh", "-c", "tail /dev/zero", expect=137)
    assert "memory ran out" in done.stderr
    assert "memory ran out" in str(runner.record["reason"])


def test_the_maximum_duration(runner: Runner) -> None:
    done = runner("--max-duration", "0.5s", "sleep", "600", expect=124)
    assert "maximum duration" in done.stderr
    assert runner.record["state"] == "timed_out"


def test_ctrl_c_stops_a_script_and_a_second_one_kills_it(runner: Runner) -> None:
    process = runner.start("sh", "-c", 'trap "echo asked" INT TERM; echo up; while :; do sleep 0.1; done')
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "was cancelled" in errors
    assert runner.record["state"] == "cancelled"
    assert "asked" in (runner.run / "user_logs" / "std_log.txt").read_text()


@pytest.mark.parametrize("milestone", ["runs", "runs/*/run.json", "runs/latest", "runs/*/user_logs/std_log.txt"])
def test_ctrl_c_on_the_way_to_the_start(runner: Runner, milestone: str) -> None:
    process = runner.start("sleep", "600")
    wait_for(lambda: any(runner.folder.glob(milestone)))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert runner.record["state"] == "cancelled"


def test_two_nodes_find_each_other(runner: Runner) -> None:
    write_script(
        runner.folder,
        "job.sh",
        'getent hosts "$AZ_BATCHAI_MPI_MASTER_NODE" > /dev/null || exit 9\n'
        'echo "rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE on $(hostname)"\n'
        "echo x > outputs/$OMPI_COMM_WORLD_RANK\n"
        "while [ ! -e outputs/1 ]; do sleep 0.1; done\n",  # the name of a node that has ended is gone
    )
    done = runner("--nodes", "2", "job.sh")
    assert sorted(done.stdout.splitlines()) == ["[0] rank 0 of 2 on node-0", "[1] rank 1 of 2 on node-1"]
    assert sorted(path.name for path in (runner.run / "outputs").iterdir()) == ["0", "1"]
    assert "rank 1" in (runner.run / "user_logs" / "std_log_process_01.txt").read_text()


def test_a_failing_node_ends_the_others(runner: Runner) -> None:
    done = runner("--nodes", "2", "sh", "-c", "[ $OMPI_COMM_WORLD_RANK = 0 ] && exec sleep 600; exit 5", expect=5)
    assert "node 1 failed first" in done.stderr


def test_preempted_twice(runner: Runner) -> None:
    script = "echo x >> outputs/starts; echo y >> scratch; cat outputs/starts scratch | tr -d '\\n'; echo; "
    script += "[ $(wc -l < outputs/starts) = 3 ] || exec sleep 600"
    # Counted from the start of the container, when the script may not have begun yet: a machine may stand still.
    done = runner("--preempt", "5s,5s", "sh", "-c", script)
    assert done.stdout.split() == ["xy", "xxy", "xxxy"]
    assert (runner.run / "user_logs" / "retry_002" / "std_log.txt").read_text() == "xxxy\n"
    assert [node["preempted"] for node in runner.record["nodes"]] == [True, True, False]  # type: ignore[attr-defined]


def test_live_sees_the_folder_itself(runner: Runner) -> None:
    runner("--live", "sh", "-c", "echo here > written; echo out > outputs/o")
    assert (runner.folder / "written").read_text() == "here\n"
    assert (runner.run / "outputs" / "o").exists()
    assert not (runner.folder / "outputs").exists()


def test_gpus_where_there_are_none(runner: Runner) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has GPUs")
    done = runner("--gpus", "all", "true", expect=73)
    assert "--gpus" in done.stderr
    runner("--gpus", "auto", "true")


def test_an_image_that_does_not_exist(runner: Runner) -> None:
    runner.words[-1] = "himl-test/none:1"
    assert "himl-test/none:1" in runner("true", expect=73).stderr
    assert not (runner.folder / "runs").exists()


def test_a_run_folder_that_cannot_be_written(runner: Runner) -> None:
    (runner.folder / "file").touch()
    assert "file/runs" in runner("--runs-dir", "file/runs", "true", expect=74).stderr


def test_json_events_are_alone_on_standard_output(runner: Runner) -> None:
    done = runner("--json", "sh", "-c", "echo script", expect=0)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "result"
    assert (events[-1]["state"], events[-1]["exit_code"]) == ("completed", 0)
    assert "script\n" in done.stderr


def test_a_dry_run_makes_nothing(runner: Runner) -> None:
    done = runner("--dry-run", "--env", "API_TOKEN=canary", "sh", "-c", "exit 3")
    assert "API_TOKEN='***'" in done.stdout
    assert "canary" not in done.stdout + done.stderr
    assert list(runner.folder.iterdir()) == []


def test_a_shell_on_the_users_terminal(runner: Runner) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(runner.folder)
        os.execve(kit.COMMAND, [str(kit.COMMAND), *runner.words, "-i", "sh"], kit.clean_environ(TERM="dumb"))
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    with contextlib.closing(Screen(terminal)) as screen, ended(process):
        screen.expect("# ")
        screen.type("stty size\n")
        screen.expect("33 77")
        screen.type("tr a-z A-Z\n")
        screen.type("hello\n")
        screen.expect("HELLO")
        screen.type("\x03")  # to the command inside, not to us
        screen.expect("# ")
        screen.type("echo still-$((40 + 2))\n")
        screen.expect("still-42")
        screen.type("exit 7\n")
        screen.expect("failed with exit code 7")
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7
    assert "stty size" in (runner.run / "user_logs" / "std_log.txt").read_text()


def test_without_a_terminal_there_is_no_interactive_run(runner: Runner) -> None:
    assert "not a terminal" in runner("-i", expect=65).stderr


def test_the_daemon_goes_away_in_the_middle(runner: Runner, tmp_path: Path) -> None:
    with Relay(tmp_path / "relay.sock") as relay:
        process = runner.start("sh", "-c", "echo up; sleep 600", DOCKER_HOST=f"unix://{relay.path}")
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        relay.cut()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 69
    assert "went away" in errors
    record = runner.record
    assert record["state"] == "lost"
    assert (runner.run / "user_logs" / "std_log.txt").read_text() == "up\n"
    # The engine itself is fine, so the container is still there: the error says how to remove it.
    name = str(record["nodes"][0]["container"])  # type: ignore[index]
    assert f"docker rm -f {name}" in errors
    subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)


def test_files_belong_to_the_user_who_called(base_image: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    folder = Path(tempfile.mkdtemp())
    try:
        os.chown(folder, 4242, 4243)
        done = subprocess.run(
            [sys.executable, "-c", AS_ANOTHER_USER, str(folder), base_image],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "0\n0\n"
        paths = [folder, *folder.rglob("*")]
        assert {(os.lstat(path).st_uid, os.lstat(path).st_gid) for path in paths} == {(4242, 4243)}
        assert [path.name for path in folder.rglob("secret")] == ["secret"]
        assert list(folder.glob("runs/*/work")) == []
    finally:
        shutil.rmtree(folder)


AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
# All of it before the change: the interpreter's own folder may be closed to others.
import himl_container.launch.docker_containers, himl_container.launch.execution, himl_container.launch.interrupts
from himl_container.image.endpoint import resolve_endpoint
from himl_container.launch.local import LocalOptions, run_local
from himl_container.launch.spec import Dataset, ImageRef, LaunchSpec

folder = Path(sys.argv[1])
socket = resolve_endpoint(os.environ).socket_path
os.setgroups([os.stat(socket).st_gid])
os.setresgid(4243, 4243, 4243)
os.setresuid(4242, 4242, 4242)
script = "id -u; mkdir -m 700 outputs/deep __pycache__; touch outputs/deep/secret __pycache__/x $OUTPUT_0/o"
spec = LaunchSpec("who", ImageRef(sys.argv[2]), ("sh", "-c", script), outputs=(Dataset("o"),))
result = run_local(spec, LocalOptions(folder, output_folders={"o": folder / "out"}))
print(result.exit_code)
"""


class Screen:
    """The far end of a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def expect(self, text: str) -> None:
        """Read until a text has come; what came before it is forgotten."""
        deadline = time.monotonic() + 60
        while text not in self._seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come: {self._seen!r}"
            if select.select([self._descriptor], [], [], left)[0]:
                self._seen += os.read(self._descriptor, 4096).decode(errors="replace")
        self._seen = self._seen.split(text, 1)[1]

    def close(self) -> None:
        os.close(self._descriptor)


class Relay:
    """Stands between a client and the engine, so that the engine can go away for that client alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._target = resolve_endpoint(os.environ).socket_path
        self._server = socket.socket(socket.AF_UNIX)
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Relay:
        self._server.bind(str(self.path))
        self._server.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.cut()

    def cut(self) -> None:
        """End all connections and take no new ones."""
        self.path.unlink(missing_ok=True)
        for each in (self._server, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(self._target)
                self._sockets += [client, engine]
                for source, target in ((client, engine), (engine, client)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def ended(process: int) -> Iterator[None]:
    """Make sure that a process, which may be our child, does not outlive the context."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(process, signal.SIGTERM)
            os.waitpid(process, 0)


def wait_for(condition: object) -> None:
    """Wait until a condition of the outside world holds."""
    assert callable(condition)
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
