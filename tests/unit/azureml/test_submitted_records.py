"""Where runs went: records, the run that a user means, the way to its workspace, and the image that it used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from himl_container.azureml.constants import ENV_EMULATOR_CONFIG
from himl_container.azureml.failures import MissingRun, WrongValue
from himl_container.azureml.reach import QUESTION, Way, emulator_of, find_way
from himl_container.azureml.records import Chosen, Record, Records, choose_run
from himl_container.azureml.run_images import CloudRuns, image_of_details
from himl_container.azureml.workspace import WorkspaceNames
from himl_container.cache import Cache
from himl_container.errors import InputError
from himl_container.publish.verify_model import RunImage

DIGEST = "sha256:" + "1" * 64
FINGERPRINT = "ab" * 32


def record(run: str, submitted: float = 1.0, **more: str) -> Record:
    return Record(run, "train", "sub", "group", "space", submitted=submitted, **more)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(Cache(tmp_path / "cache"))


def test_a_record_is_found_again(records: Records) -> None:
    kept = record("train_1_2", emulator="/data", image=f"r/x@{DIGEST}", portal="https://x?a=b")
    records.add(kept)
    assert records.find("train_1_2") == kept
    assert records.find("train_1_3") is None


def test_newest_first(records: Records) -> None:
    for run, when in (("a", 1.0), ("c", 3.0), ("b", 2.0)):
        records.add(record(run, when))
    assert [one.run for one in records.newest(2)] == ["c", "b"]


def test_looking_needs_no_cache_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Records(Cache(tmp_path / "file" / "cache")).newest(1) == ()
    assert Records(Cache(tmp_path / "none")).newest(1) == ()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1}', '{"run": "a"}', '{"submitted": "x"}'])
def test_a_damaged_record_is_none(records: Records, tmp_path: Path, text: str) -> None:
    records.add(record("a"))
    (path,) = (tmp_path / "cache").rglob("*.json")
    path.write_text(text)
    assert records.find("a") is None
    assert records.newest(5) == ()


def test_a_record_of_a_later_version_is_read(records: Records, tmp_path: Path) -> None:
    records.add(record("a"))
    (path,) = (tmp_path / "cache").rglob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "more": [1]}))
    assert records.find("a") == record("a")


def test_the_run_of_this_folder_comes_before_the_latest(records: Records, tmp_path: Path) -> None:
    records.add(record("old", 1.0))
    records.add(record("new", 2.0))
    assert choose_run("", records, cwd=tmp_path).run == "new"
    (tmp_path / "most_recent_run.txt").write_text("train:old")
    assert choose_run("", records, cwd=tmp_path) == Chosen("old", "train", record("old", 1.0))
    assert choose_run("latest", records, cwd=tmp_path).run == "new"


def test_a_run_by_its_id(records: Records, tmp_path: Path) -> None:
    records.add(record("a"))
    assert choose_run("a", records, cwd=tmp_path) == Chosen("a", "train", record("a"))
    assert choose_run("other:a", records, cwd=tmp_path).experiment == "other"
    assert choose_run("x:unknown", records, cwd=tmp_path) == Chosen("unknown", "x", None)


def test_a_run_of_a_search_is_where_the_search_is(records: Records, tmp_path: Path) -> None:
    search = record("HD_4f526dc4-20e8-480a-b69d-171515946b37", emulator="/emu")
    records.add(search)
    assert choose_run(f"{search.run}_12", records, cwd=tmp_path) == Chosen(f"{search.run}_12", "train", search)
    assert choose_run(f"{search.run}_x", records, cwd=tmp_path).record is None
    assert choose_run("HD_other_1", records, cwd=tmp_path).record is None


@pytest.mark.parametrize("text", ["a:b:c", ":a", "a:", "a/b", "a\nb", "../a", "..", ".", "x:..", "a\\b", "a?b", "a b"])
def test_what_is_no_run(records: Records, tmp_path: Path, text: str) -> None:
    with pytest.raises(MissingRun, match="is not the name of a run"):
        choose_run(text, records, cwd=tmp_path)


def test_nothing_was_submitted(records: Records, tmp_path: Path) -> None:
    with pytest.raises(MissingRun, match="nothing was submitted") as caught:
        choose_run("", records, cwd=tmp_path)
    assert "submit --azureml" in caught.value.hint


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a config.json above it."""
    monkeypatch.chdir(tmp_path)
    for name in ("HIML_SUBSCRIPTION_ID", "HIML_RESOURCE_GROUP", "HIML_WORKSPACE_NAME", ENV_EMULATOR_CONFIG):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("himl_container.azureml.workspace._folder_of_script", lambda: None)
    return tmp_path


def way(**values: Any) -> Way:
    return find_way(**{"emulator": False, "config": None, "environ": {}, **values})


def config(path: Path) -> Path:
    path.write_text(json.dumps({"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}))
    return path


def test_without_a_workspace_and_a_terminal(nowhere: Path) -> None:
    with pytest.raises(WrongValue, match="No workspace config file given") as caught:
        way()
    for word in ("--emulator", "config.json", "--workspace-config", "HIML_WORKSPACE_NAME"):
        assert word in caught.value.hint


def test_without_a_workspace_somebody_is_asked(nowhere: Path) -> None:
    asked: list[str] = []

    def answer(question: str) -> bool:
        asked.append(question)
        return len(asked) > 1

    with pytest.raises(WrongValue):
        way(ask=answer)
    assert way(ask=answer) == Way(emulator=True)
    assert asked == [QUESTION, QUESTION]


def test_flags_come_first(nowhere: Path) -> None:
    other = config(nowhere / "other.json")
    there = record("a", emulator="/emu")
    assert way(config=other, record=there) == Way(WorkspaceNames("s", "g", "w"))
    assert way(emulator=True) == Way(emulator=True)
    with pytest.raises(InputError, match="name two workspaces"):
        way(emulator=True, config=other)


def test_a_run_leads_to_where_it_went(nowhere: Path) -> None:
    config(nowhere / "config.json")
    folder = nowhere / "emu"
    folder.mkdir()
    there = record("a", emulator=str(folder))
    assert way(record=there) == Way(emulator=True, folder=folder)
    assert way(record=there, emulator=True) == Way(emulator=True, folder=folder)
    assert way(record=record("a")) == Way(WorkspaceNames("sub", "group", "space"))
    assert way() == Way(WorkspaceNames("s", "g", "w"))


def test_no_emulator_is_made_where_one_was_thrown_away(nowhere: Path) -> None:
    gone = record("a", emulator=str(nowhere / "gone"))
    with pytest.raises(MissingRun, match="an emulator whose folder is gone"):
        way(record=gone)
    assert way(record=gone, emulator=True) == Way(emulator=True)


def test_which_emulator_a_way_leads_to() -> None:
    environ = {"HIML_CONTAINER_EMULATOR_DIR": "/usual"}
    assert emulator_of(Way(emulator=True), environ) == "/usual"
    assert emulator_of(Way(emulator=True, folder=Path("/own")), environ) == "/own"
    assert emulator_of(Way(WorkspaceNames("s", "g", "w")), {ENV_EMULATOR_CONFIG: "/exec/config.json"}) == "/exec"
    assert emulator_of(Way(WorkspaceNames("s", "g", "w")), {}) == ""


def details(**docker: Any) -> dict[str, Any]:
    environment = {
        "name": f"himl-{FINGERPRINT[:32]}",
        "python": {"userManagedDependencies": True},
        "docker": {"baseImage": f"team/x@{DIGEST}", "baseImageRegistry": {"address": "r.azurecr.io"}, **docker},
    }
    return {"runDefinition": {"environment": environment}}


def test_the_image_of_a_run() -> None:
    name = "r.azurecr.io/team/x"
    assert image_of_details("a", details()) == RunImage("a", f"{name}:{FINGERPRINT[:32]}", digest=f"{name}@{DIGEST}")
    by_tag = details(baseImage="team/x:1", baseImageRegistry=None)
    assert image_of_details("a", by_tag) == RunImage("a", "team/x:1")


@pytest.mark.parametrize("value", [{}, {"runDefinition": None}, details(baseImage=None)])
def test_an_image_that_azureml_made(value: Mapping[str, Any]) -> None:
    with pytest.raises(InputError, match="AzureML made the image of run a itself"):
        image_of_details("a", value)


class _Run:
    id = "a"

    def get_details(self) -> dict[str, Any]:
        return details()


def test_the_record_completes_what_the_run_says(records: Records) -> None:
    records.add(record("a", image=f"r.azurecr.io/team/x@{DIGEST}", fingerprint=FINGERPRINT, lock="lock"))
    read: Any = lambda chosen: _Run()  # noqa: E731
    found = CloudRuns(records, read).image_of("a")
    assert found is not None
    assert (found.fingerprint, found.lock) == (FINGERPRINT, "lock")
    records.add(record("a", image="another", fingerprint=FINGERPRINT, lock="lock"))
    found = CloudRuns(records, read).image_of("a")
    assert found is not None
    assert (found.fingerprint, found.lock) == ("", "")


@pytest.mark.parametrize("name", ["python:3.11", "r.io/x:1", f"x@{DIGEST}", "unknown", "./runs/x"])
def test_names_of_images_are_no_runs(records: Records, name: str) -> None:
    def read(chosen: Chosen) -> Any:
        raise AssertionError(chosen)

    assert CloudRuns(records, read).image_of(name) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40))
def test_any_text_is_a_run_or_none(records: Records, tmp_path: Path, text: str) -> None:
    try:
        chosen = choose_run(text, records, cwd=tmp_path)
    except MissingRun:
        return
    assert chosen.run in text
