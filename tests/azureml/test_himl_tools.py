"""``himl-tb`` and ``himl-download`` as programs, on the emulator: a running run's scalars in a browser."""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import browser
from job_image import Submit, submitter, text_of, wait

from himl_container.azureml import tools_download
from himl_container.azureml.tensorboard import WrappedTensorboard
from himl_container.errors import AzureMLError

if TYPE_CHECKING:
    from azureml.core import Environment, Run, Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator
pytest.importorskip("tensorboard")

EVENTS = "events.out.tfevents.1700000000.host.1.0"


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The SDK writes logs below the working directory."""
    monkeypatch.chdir(tmp_path)


def events(folder: Path, *steps: int) -> bytes:
    """An event file with the scalar ``loss`` at these steps, as TensorBoard's own writer makes it."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for step in steps:
        value = Summary(value=[Summary.Value(tag="loss", simple_value=float(10 - step))])
        writer.add_event(Event(wall_time=1_700_000_000.0 + step, step=step, summary=value))
    writer.close()
    (file,) = folder.iterdir()
    return file.read_bytes()


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return events(tmp_path / "events", *range(6))


@pytest.fixture
def logged(workspace: Workspace, tmp_path: Path, data: bytes) -> Iterator[Run]:
    """A run without a job, which is running until the test ends."""
    from azureml.core import Experiment

    run = Experiment(workspace, "tools").start_logging(snapshot_directory=None)
    (tmp_path / "file").write_bytes(data)
    run.upload_file(f"logs/a/{EVENTS}", "file")
    run.upload_file("outputs/model/weights", "file")
    run.set_tags({"kind": "test"})
    try:
        yield run
    finally:
        run.complete()


class Program:
    """``himl-tb`` as a process of its own, without a terminal."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "himl_container.azureml.tools_tb", *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._came: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def line(self, beginning: str, seconds: float = 120) -> str:
        """Wait for a line; return the rest of it."""
        until = time.monotonic() + seconds
        while True:
            line = self._came.get(timeout=max(0.0, until - time.monotonic()))
            assert line is not None, "\n".join(self.lines)
            if line.startswith(beginning):
                return line.removeprefix(beginning).strip()

    def end(self, seconds: float = 120) -> int:
        return self.process.wait(seconds)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            self._came.put(line.rstrip())
        self._came.put(None)


@contextlib.contextmanager
def himl_tb(*arguments: str, cwd: Path) -> Iterator[Program]:
    program = Program(*arguments, cwd=cwd)
    try:
        yield program
    finally:
        program.process.terminate()
        program.end()


def scalars(address: str, run: str) -> list[int]:
    """The steps of ``loss`` that TensorBoard tells."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    where = f"{address}data/plugin/scalars/scalars?tag=loss&run={urllib.request.quote(run)}"
    try:
        with direct.open(where, timeout=30) as answer:
            return [point[1] for point in json.load(answer)]
    except urllib.error.HTTPError:
        return []


def wait_until(what: Any, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.1)


def quiet_port() -> int:
    """A free port that nobody gets by asking for any: it is still free when the program has been imported."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(1025, lowest), 100):
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def is_listening(address: str) -> bool:
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
        return True
    return False


SCRIPT = """
import base64, os, time
from azureml.core import Run

run = Run.get_context(allow_offline=False)
os.makedirs("logs/lightning", exist_ok=True)
until = time.monotonic() + 600

def tagged(name):
    while name not in run.get_tags():
        assert time.monotonic() < until
        time.sleep(0.3)

with open("logs/lightning/" + NAME, "ab", buffering=0) as file:
    for index, part in enumerate(PARTS):
        file.write(base64.b64decode(part))
        tagged("go" + str(index))
"""


@pytest.mark.docker
@pytest.mark.slow
def test_scalars_of_a_running_job(
    workspace: Workspace, job_environment: Environment, tmp_path: Path, data: bytes
) -> None:
    """What a job logs is in the browser while it runs, what it adds comes too, and the program ends with the run."""
    few = len(events(tmp_path / "few", *range(3)))
    parts = [base64.b64encode(part).decode() for part in (data[:few], data[few : few + 7], data[few + 7 :])]
    submit: Submit = submitter(workspace, job_environment, tmp_path / "sources")
    run = submit(f"NAME, PARTS = {EVENTS!r}, {parts!r}\n" + SCRIPT, experiment="tensorboard_test")
    wait(run, "Running")
    work = tmp_path / "work"
    work.mkdir()
    with browser(tmp_path) as window, himl_tb("--run_ids", run.id, "--port", "0", cwd=work) as program:
        address = program.line("TensorBoard is at ")
        wait_until(lambda: scalars(address, "lightning") == [0, 1, 2])
        window.open(f"{address}?pinnedCards=#timeseries")
        window.wait("return document.body.innerText.includes('loss')", seconds=60)
        # The page draws its cards more than once, and asks for the list of runs by itself.
        window.wait("return document.querySelector('scalar-card')?.innerText.includes('loss')", seconds=60)
        window.wait("return document.body.innerText.includes('lightning')", seconds=60)
        assert str(run.get_status()) == "Running"
        run.tag("go0")  # half of a record
        run.tag("go1")
        wait_until(lambda: scalars(address, "lightning") == list(range(6)))
        run.tag("go2")
        assert program.end() == 0, program.lines
    assert wait(run) == "Completed", text_of(run)
    assert (work / f"logs/{run.id}/lightning/{EVENTS}").read_bytes() == data
    assert not is_listening(address)


def test_latest_runs_of_an_experiment_and_the_end(emulator: Emulator, logged: Run, tmp_path: Path) -> None:
    """Several runs, another folder, a port that is asked for; SIGTERM ends everything in good order."""
    from azureml.core import Experiment

    port = quiet_port()
    other = Experiment(logged.experiment.workspace, "tools").start_logging(snapshot_directory=None)
    other.set_tags({"kind": "test"})
    words = f"--config_file {emulator.config} --experiment tools --num_runs 2 --tags kind=test --port {port}"
    with himl_tb(*words.split(), "--log_dir", "logs/a", cwd=tmp_path) as program:
        assert program.line("Run ").startswith(other.id)
        assert program.line("Run ") == f"{logged.id} of experiment tools"
        address = program.line("TensorBoard is at ")
        assert address == f"http://localhost:{port}/"
        wait_until(lambda: scalars(address, f"{logged.id}/.") == list(range(6)))
        program.process.send_signal(signal.SIGTERM)
        assert program.end() == 0, program.lines
    other.complete()
    assert not is_listening(address)
    assert (tmp_path / "logs/a" / logged.id / EVENTS).is_file()


def test_a_port_that_is_taken(logged: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        board = WrappedTensorboard("logs", runs=[logged], local_root=tmp_path, port=taken.getsockname()[1])
        with pytest.raises(AzureMLError, match=r"start:\nTensorBoard could not bind to port .*\n.*--port 0 takes any"):
            board.start()
    assert not board.is_running


def test_as_an_object(logged: Run, tmp_path: Path) -> None:
    board = WrappedTensorboard("logs", runs=[logged], local_root=tmp_path / "copies", port=0, interval=0.2)
    address = board.start()
    try:
        assert address is not None
        assert board.start() is None
        wait_until(lambda: scalars(address, "a") == list(range(6)))
        assert board.is_running and not board.is_complete
        logged.complete()
        wait_until(lambda: board.is_complete)
    finally:
        board.stop()
    assert not board.is_running and not is_listening(str(address))
    with pytest.raises(ValueError, match="There is no run to show"):
        WrappedTensorboard("logs", runs=[])


def test_download(
    logged: Run, emulator: Emulator, tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("most_recent_run.txt").write_text(f"tools:{logged.id}")
    tools_download.main(["--latest_run_file", "most_recent_run.txt"])
    assert capsys.readouterr().out == "Downloaded file(s) to 'outputs/most_recent_run'\n"
    folder = tmp_path / "outputs/most_recent_run"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {f"logs/a/{EVENTS}", "outputs/model/weights"}
    words = ["--run_recovery_ids", f"tools:{logged.id}", "--output_dir", "there", "--prefix", "outputs/"]
    tools_download.main([*words, "--config_file", str(emulator.config)])
    (file,) = [path for path in (tmp_path / "there").rglob("*") if path.is_file()]
    assert file == tmp_path / f"there/tools{logged.id}/outputs/model/weights"
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--run_id RUN --prefix nothing", "Couldn't download files from run RUN: "),
        ("--experiment absent", "No such experiment absent in workspace"),
        ("--config_file absent.json --run_id x", "Workspace config file does not exist or cannot be read"),
    ],
)
def test_mistakes(
    logged: Run, words: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As errors in Python, and in words from the program."""
    arguments = words.replace("RUN", logged.id).split()
    with pytest.raises(ValueError, match=text.replace("RUN", logged.id)):
        tools_download.main(arguments)
    monkeypatch.setattr(sys, "argv", ["himl-download", *arguments])
    with pytest.raises(SystemExit) as ended:
        tools_download.console()
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out) == (65, "")
    assert text.replace("RUN", logged.id) in shown.err
