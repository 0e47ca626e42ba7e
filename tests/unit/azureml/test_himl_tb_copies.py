"""What is copied of a run while it goes on, and how himl-tb ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blob_server import Blob, BlobServer, Fault, blob_server

from himl_container.azureml import run_watcher, tools_tb
from himl_container.azureml.failures import WrongValue
from himl_container.azureml.remote_files import RemoteFile
from himl_container.azureml.run_watcher import RunWatcher, is_of_events
from himl_container.azureml.tensorboard import WrappedTensorboard
from himl_container.errors import AzureMLError

EVENTS = "logs/a/events.out.tfevents.1.host"


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with blob_server() as running:
        running.blobs[EVENTS] = Blob(b"one")
        yield running


@pytest.fixture(autouse=True)
def _files(server: BlobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def files(run: Any, prefix: str) -> list[RemoteFile]:
        return [server.file(name) for name in sorted(server.blobs) if name.startswith(prefix)]

    monkeypatch.setattr(run_watcher, "files_of_run", files)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def watcher(folder: Path, *statuses: str, interval: float = 0.01) -> RunWatcher:
    """A watcher of a run that has one status after the other, and keeps the last."""
    left = list(statuses)
    run = SimpleNamespace(id="run", get_status=lambda: left.pop(0) if len(left) > 1 else left[0])
    return RunWatcher(run, "logs", folder, interval)  # type: ignore[arg-type]


def test_event_files_grow_in_place(server: BlobServer, tmp_path: Path) -> None:
    """A reader that has the file open sees what comes; only the new bytes travel."""
    watching = watcher(tmp_path, "Running")
    watching.copy(everything=False)
    target = tmp_path / "a/events.out.tfevents.1.host"
    with target.open("rb") as reader:
        assert reader.read() == b"one"
        server.blobs[EVENTS] = Blob(b"one, two")
        watching.copy(everything=False)
        assert reader.read() == b", two"
        watching.copy(everything=False)
        assert reader.read() == b""
    assert [asked.first for asked in server.asked] == [0, len(b"one"), len(b"one, two")]
    server.blobs[EVENTS] = Blob(b"new")
    watching.copy(everything=False)
    assert target.read_bytes() == b"new"


def test_other_files_are_replaced_at_the_end(server: BlobServer, tmp_path: Path) -> None:
    server.blobs["logs/note"] = Blob(b"first")
    server.blobs["logs_of_others"] = Blob(b"x")
    watching = watcher(tmp_path, "Running")
    watching.copy(everything=False)
    server.blobs["logs/note"] = Blob(b"other", modified=1_700_000_001)
    watching.copy(everything=False)
    assert (tmp_path / "note").read_bytes() == b"first"
    watching.copy(everything=True)
    assert (tmp_path / "note").read_bytes() == b"other"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "note"]


def test_until_the_run_has_ended(server: BlobServer, tmp_path: Path) -> None:
    """What comes between the last look and the end is copied too."""
    watching = watcher(tmp_path, "Queued", "Running", "Running", "Completed")
    asked = [0]

    def later(asked_for: Any) -> None:
        asked[0] += 1
        server.blobs[EVENTS] = Blob(b"x" * (3 + asked[0]))

    server.fault = lambda one: Fault(before=lambda: later(one))
    watching.start()
    watching.join(30)
    assert not watching.is_alive()
    assert (tmp_path / "a/events.out.tfevents.1.host").stat().st_size == len(server.blobs[EVENTS].data)


def test_a_file_that_cannot_be_had_keeps_no_other_waiting(
    server: BlobServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.blobs["logs/0/events.out.tfevents.gone"] = Blob(b"gone")
    server.fault = lambda asked: Fault(status=404) if asked.name.endswith("gone") else None
    watching = watcher(tmp_path, "Running", "Failed")
    watching.start()
    watching.join(30)
    assert not watching.is_alive()
    assert (tmp_path / "a/events.out.tfevents.1.host").read_bytes() == b"one"
    assert "404" in caplog.text and "secret" not in caplog.text


def test_stopping_does_not_wait(server: BlobServer, tmp_path: Path) -> None:
    watching = watcher(tmp_path, "Running", interval=3600)
    watching.start()
    watching.stop()
    watching.join(30)
    assert not watching.is_alive()


@pytest.mark.parametrize("error", [KeyError("unexpected"), WrongValue("bad")])
def test_failures_end_a_watch_at_the_latest_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(run: Any, prefix: str) -> list[RemoteFile]:
        raise error

    monkeypatch.setattr(run_watcher, "files_of_run", fail)
    watching = watcher(tmp_path, "Running", "Running", "Completed")
    watching.start()
    watching.join(30)
    assert not watching.is_alive()


@pytest.mark.parametrize("root", ["../logs", "a//b", "a\nb"])
def test_folders_of_runs_that_are_refused(tmp_path: Path, root: str) -> None:
    with pytest.raises(WrongValue):
        RunWatcher(SimpleNamespace(id="run"), root, tmp_path)  # type: ignore[arg-type]


def test_names_of_event_files() -> None:
    assert is_of_events("a/events.out.tfevents.1.host.2.0.v2")
    assert not is_of_events("tfevents/model.pt")


@pytest.mark.parametrize("run_id", ["", "../x", "a:b", "a,b", ".hidden", "-x"])
def test_ids_that_cannot_be_shown(run_id: str) -> None:
    with pytest.raises(WrongValue, match="TensorBoard cannot show"):
        WrappedTensorboard("logs", runs=[SimpleNamespace(id=run_id)])  # type: ignore[list-item]


class Board:
    """A TensorBoard that runs, with runs that do not end, unless told otherwise."""

    is_running, is_complete, last_words = True, False, "its last words"


def terminal(monkeypatch: pytest.MonkeyPatch, *, interactive: bool) -> None:
    stdin = SimpleNamespace(isatty=lambda: interactive, readline=lambda: "\n")
    monkeypatch.setattr(tools_tb.sys, "stdin", stdin)


def test_enter_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal(monkeypatch, interactive=True)
    board: Any = Board()
    board.is_complete = True  # would not end it while somebody looks
    ended = threading.Event()
    tools_tb._wait(board, tools_tb._Signals(), ended)
    assert ended.is_set()
    assert capsys.readouterr().out == "Press Enter to end.\n"


@pytest.mark.parametrize("stdin", [True, False])
def test_without_a_terminal_the_runs_decide(monkeypatch: pytest.MonkeyPatch, stdin: bool) -> None:
    terminal(monkeypatch, interactive=False)
    if not stdin:
        monkeypatch.setattr(tools_tb.sys, "stdin", None)
    monkeypatch.setattr(tools_tb, "_LOOK", 0.01)
    board: Any = Board()
    timer = threading.Timer(0.1, lambda: setattr(board, "is_complete", True))
    timer.start()
    tools_tb._wait(board, tools_tb._Signals(), threading.Event())
    assert board.is_complete


def test_a_tensorboard_that_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch, interactive=False)
    monkeypatch.setattr(tools_tb, "_LOOK", 0.01)
    board: Any = Board()
    board.is_running = False
    with pytest.raises(AzureMLError, match="its last words"):
        tools_tb._wait(board, tools_tb._Signals(), threading.Event())


# SIGTERM comes while the thread that has to hear it holds the lock of what it waits for.
TOLD_IN_THE_WAIT = """
import signal, threading
from types import SimpleNamespace
from himl_container.azureml import tools_tb

class Event(threading.Event):
    def wait(self, timeout=None):
        with self._cond:
            signal.raise_signal(signal.SIGTERM)
        return super().wait(timeout)

threading.Event = Event
with tools_tb._Signals() as signals:
    tools_tb._wait(SimpleNamespace(is_running=True, is_complete=False), signals, Event())
print("in good order")
"""


def test_told_to_end_at_any_moment_of_the_wait() -> None:
    command = [sys.executable, "-c", TOLD_IN_THE_WAIT]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "in good order\n"), done.stderr
