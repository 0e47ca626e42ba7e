"""A local copy of a run's folder: nothing that a run's files are called ends it, hides others, or goes on for ever."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blob_server import Fault, blob_server

from himl_container.azureml import run_watcher
from himl_container.azureml.remote_files import RemoteFile
from himl_container.azureml.run_watcher import RunWatcher

LONG = 60.0


def watched(files: list[RemoteFile], folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunWatcher:
    """Watch a run that has ended."""
    run: Any = SimpleNamespace(id="r1", get_status=lambda: "Completed")
    monkeypatch.setattr(run_watcher, "files_of_run", lambda *_: files)
    monkeypatch.setenv("no_proxy", "*")
    return RunWatcher(run, "logs", folder, interval=0.01)


def test_names_that_cannot_be_here_do_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["a", "a/below-a-file", "../outside", "ok.txt", "sub/events.out.tfevents.1", "sub"]
    with blob_server(**{f"logs/{name}": name.encode() for name in names}) as server:
        watcher = watched(server.files(), tmp_path / "copy", monkeypatch)
        watcher.start()
        watcher.join(LONG)
    assert not watcher.is_alive()
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {
        "copy/a": "a",
        "copy/ok.txt": "ok.txt",
        "copy/sub/events.out.tfevents.1": "sub/events.out.tfevents.1",
    }
    for name in ("a/below-a-file", "../outside", "sub"):
        assert [message for message in caplog.messages if f"'{name}'" in message] != []
    assert len(caplog.messages) == 3


def test_a_file_that_stays_refused_does_not_keep_it_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with blob_server(**{"logs/gone": b"1"}) as server:
        server.fault = lambda asked: Fault(status=404)
        watcher = watched(server.files(), tmp_path / "copy", monkeypatch)
        watcher.start()
        watcher.join(LONG)
    assert not watcher.is_alive()
    assert "is not watched any longer" in caplog.text
