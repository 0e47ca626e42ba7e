"""``himl-container init``: the first files of a project, all or none, and nothing of the user's is lost."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from himl_container.cli import main
from himl_container.errors import InputError, StorageError
from himl_container.launch.defaults import RunDefaults
from himl_container.launch.snapshot import scan
from himl_container.settings import load_settings
from himl_container.starter import contents, write
from himl_container.starter.write import plan_starter, settle, write_starter

FILES = {"environment.yml", "sample.py", ".amlignore", "pyproject.toml"}


def init(*arguments: str) -> int:
    return main.run(["init", *arguments])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_empty_folder_becomes_a_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "My first (project)"
    assert init(str(folder)) == 0
    assert names(folder) == FILES
    shown = capsys.readouterr().out
    assert f"  cd '{folder}'\n  himl-container run --local sample.py" in shown
    settings = load_settings({}, cwd=folder, environ={})
    assert settings.conda_files == (folder / "environment.yml",)
    assert settings.source == folder / "pyproject.toml"
    assert settings.run == {}
    environment = yaml.safe_load((folder / "environment.yml").read_text())
    assert environment == {"name": "My-first-project", "channels": ["conda-forge"], "dependencies": ["python=3.11"]}


def test_the_settings_that_are_suggested_are_settings(tmp_path: Path) -> None:
    assert init(str(tmp_path)) == 0
    path = tmp_path / "pyproject.toml"
    path.write_text(re.sub(r"^# (?=[a-z-]+ = )", "", path.read_text(), flags=re.MULTILINE))
    settings = load_settings({}, cwd=tmp_path, environ={})
    assert settings.registry == "myteam.azurecr.io"
    assert RunDefaults(settings).text("cluster", None, "")[0] == "gpu-cluster"  # type: ignore[index]


def test_the_sample_runs_with_plain_python(tmp_path: Path) -> None:
    assert init(str(tmp_path)) == 0
    done = subprocess.run(
        [sys.executable, "sample.py", "--darts", "2000", "--seed", "7"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    result = json.loads((tmp_path / "outputs/result.json").read_text())
    assert result["darts"] == 2000
    assert result["seed"] == 7
    assert 2.9 < result["pi"] < 3.4
    assert f"pi is about {result['pi']:.4f}, after 2000 darts" in done.stdout


def test_the_snapshot_has_the_sources_and_nothing_else(tmp_path: Path) -> None:
    assert init(str(tmp_path)) == 0
    for name in ("outputs/result.json", "runs/a/run.json", ".venv/bin/python", "data/images/1.png", "pylock.himl.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    taken = {file.path for file in scan(tmp_path).files}
    assert taken == {"environment.yml", "sample.py", ".amlignore", "pyproject.toml", "pylock.himl.toml"}


def test_a_second_time_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(str(tmp_path)) == 0
    (tmp_path / "pyproject.toml").write_text("[tool.himl-container]\nregistry = 'r.example.org'\n")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert init(str(tmp_path), "--force") == 0
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before
    assert "wrote" not in capsys.readouterr().out.partition("Next:")[2]


def test_files_of_the_users_are_kept_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "environment.yml").write_text("name: mine\n")
    (tmp_path / "sample.py").write_text("print('mine')\n")
    assert init(str(tmp_path), "--json") == 0
    value = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(value["kept"]) == {"environment.yml", "sample.py"}
    assert set(value["written"]) == {".amlignore", "pyproject.toml"}
    assert (tmp_path / "environment.yml").read_text() == "name: mine\n"
    assert init(str(tmp_path), "--force", "--quiet") == 0
    assert (tmp_path / "environment.yml").read_text() != "name: mine\n"


def test_who_is_asked_decides_for_each_file(tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text("name: mine\n")
    (tmp_path / "sample.py").write_text("print('mine')\n")
    starter = settle(plan_starter(tmp_path), replace=lambda file: file.path.name == "sample.py")
    write_starter(starter)
    assert (tmp_path / "environment.yml").read_text() == "name: mine\n"
    assert "estimate_pi" in (tmp_path / "sample.py").read_text()
    assert starter.refused == ("environment.yml",)


def test_settings_are_added_to_a_pyproject_without_ours(tmp_path: Path) -> None:
    theirs = '[project]\nname = "x"  # a comment\n\n[tool.ruff]\nline-length = 99\n'
    (tmp_path / "pyproject.toml").write_text(theirs)
    assert init(str(tmp_path)) == 0
    text = (tmp_path / "pyproject.toml").read_text()
    assert text.startswith(theirs)
    assert load_settings({}, cwd=tmp_path, environ={}).source == tmp_path / "pyproject.toml"


def test_a_pyproject_that_cannot_take_a_table_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("tool = {ruff = {line-length = 99}}\n")
    assert init(str(tmp_path)) == InputError.exit_code
    assert names(tmp_path) == {"pyproject.toml"}


def test_what_gitignore_says_goes_on_being_said(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.ckpt\n!keep.ckpt")
    assert init(str(tmp_path)) == 0
    for name in ("big.ckpt", "keep.ckpt"):
        (tmp_path / name).write_text("x")
    taken = {file.path for file in scan(tmp_path).files}
    assert "keep.ckpt" in taken
    assert "big.ckpt" not in taken


def test_a_project_inside_another_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.himl-container]\n")
    assert init(str(tmp_path / "inner")) == 0
    assert f"the settings of {tmp_path / 'pyproject.toml'} no longer apply" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(str(tmp_path / "new"), "--dry-run") == 0
    assert not (tmp_path / "new").exists()
    assert capsys.readouterr().out.count("would write") == 4


@pytest.mark.parametrize("at", range(4))
def test_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    (tmp_path / "environment.yml").write_text("name: mine\n")
    starter = settle(plan_starter(tmp_path), replace=lambda file: True)
    chmod, calls = Path.chmod, []

    def full(path: Path, mode: int) -> None:
        calls.append(path)
        if len(calls) == at + 1:
            raise OSError(28, "No space left on device")
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", full)
    with pytest.raises(StorageError, match="No space left"):
        write_starter(starter)
    assert names(tmp_path) == {"environment.yml"}
    assert (tmp_path / "environment.yml").read_text() == "name: mine\n"


def test_a_file_that_appears_meanwhile_is_not_lost(tmp_path: Path) -> None:
    starter = plan_starter(tmp_path / "new")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "sample.py").write_text("mine")
    with pytest.raises(InputError, match="just appeared"):
        write_starter(starter)
    assert names(tmp_path / "new") == {"sample.py"}
    assert (tmp_path / "new" / "sample.py").read_text() == "mine"


def test_bad_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert init(str(tmp_path / "file" / "inner")) == InputError.exit_code
    (tmp_path / "environment.yml").mkdir()
    assert init(str(tmp_path)) == InputError.exit_code
    assert init(str(tmp_path / "new"), "--python", "2.7") == InputError.exit_code
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "sample.py").symlink_to(tmp_path / "nowhere")
    assert init(str(tmp_path / "links")) == InputError.exit_code
    assert names(tmp_path / "links") == {"sample.py"}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    folder, shared = tmp_path / "new", tmp_path / "shared.yml"
    folder.mkdir()
    shared.write_text("name: mine\n")
    (folder / "environment.yml").symlink_to(shared)
    assert init(str(folder), "--force") == 0
    assert (folder / "environment.yml").is_symlink()
    assert "python=3.11" in shared.read_text()


def test_files_can_be_read_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert init(str(tmp_path)) == 0
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


@given(name=st.text(max_size=40))
def test_any_folder_name_gives_a_name_that_conda_takes(name: str) -> None:
    text = contents.environment(name, "3.11")
    read = yaml.safe_load(text)
    assert isinstance(read["name"], str)
    assert read["name"]
    assert not set(read["name"]) & set(" /:#")


def test_the_pythons_are_those_that_the_tool_supports() -> None:
    from kit import ROOT

    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-python = ">={write.PYTHONS[0]},<3.{int(write.PYTHONS[-1][2:]) + 1}"' in text


def test_what_is_printed_as_next_can_be_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HIML_CONTAINER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert init("new") == 0
    printed = capsys.readouterr().out
    commands = [
        shlex.split(line, comments=True)[1:] for line in printed.splitlines() if "himl-container submit" in line
    ]
    assert ["--emulator" in words for words in commands] == [False, True]
    monkeypatch.chdir(tmp_path / "new")
    for words in commands:
        assert main.run([*words[:1], "--dry-run", *words[1:]]) == 0, capsys.readouterr().err
