"""``download``: where the files go, and what is said while they come."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from blob_server import blob_server
from click.testing import CliRunner

from himl_container.azureml.records import Chosen
from himl_container.cli import download


def test_progress_and_a_folder_of_the_name_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the workspace says that the run is called does not become a path."""
    run = SimpleNamespace(id="../../elsewhere", get_file_names=lambda: ["outputs/a", "b"])
    monkeypatch.setattr(download, "find_run", lambda *_, **__: (run, Chosen("run_1")))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)
    with blob_server(**{"outputs/a": b"12345"}) as server:
        monkeypatch.setattr("himl_container.azureml.run_files.files_of_run", lambda *_: server.files())
        done = CliRunner().invoke(
            download.command, ["--json", "--prefix", "outputs/", "latest"], catch_exceptions=False
        )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(event["verb"], event["unit"]) for event in events if event["event"] == "step"] == [("download", "bytes")]
    assert [event["done"] for event in events if event["event"] == "end"] == [5]
    assert events[-1]["folder"] == str(tmp_path / "outputs" / "run_1")
    assert events[-1]["files"] == ["outputs/a"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "outputs/run_1/outputs/a"]
