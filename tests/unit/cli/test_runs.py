"""``runs``: which runs are listed, where nobody is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from himl_container.azureml.records import Record, Records
from himl_container.cache import Cache
from himl_container.cli.runs import command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With runs in two workspaces and two emulators."""
    monkeypatch.setenv("HIML_CONTAINER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HIML_CONTAINER_EMULATOR_DIR", str(tmp_path / "mine"))
    monkeypatch.chdir(tmp_path)
    places = (("a", "one", ""), ("b", "two", ""), ("c", "emu", str(tmp_path / "mine")), ("d", "emu", "/other"))
    for when, (run, workspace, emulator) in enumerate(places):
        Records(Cache(tmp_path / "cache")).add(Record(run, "e", "s", "g", workspace, emulator, submitted=when))
    names = {"subscription_id": "s", "resource_group": "g", "workspace_name": "one"}
    (tmp_path / "one.json").write_text(json.dumps(names))
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "listed"),
    [
        ((), "dcba"),
        (("--max", "2"), "dc"),
        (("--emulator",), "c"),
        (("--workspace-config", "one.json"), "a"),
        (("--workspace-config", "one.json", "--max", "1"), "a"),
    ],
)
def test_a_flag_names_the_workspace(folder: Path, flags: tuple[str, ...], listed: str) -> None:
    done = CliRunner().invoke(command, ["--json", "--offline", *flags], catch_exceptions=False)
    assert "".join(run["run"] for run in json.loads(done.stdout)["runs"]) == listed
