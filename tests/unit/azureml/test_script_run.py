"""Which script is started in AzureML, with which arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from himl_container.azureml.script_run import create_script_run, script_path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py", "--azureml", "--a", "1", "--azureml=x"])
    return tmp_path


def test_by_default_the_script_that_is_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = create_script_run()
    assert (made.source_directory, made.script) == (str(tmp_path), "train.py")
    assert made.arguments == ["--a", "1", "--azureml=x"]
    assert "This command will be run in AzureML: train.py --a 1 --azureml=x" in capsys.readouterr().out


def test_the_running_script_is_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert create_script_run(snapshot_root_directory=tmp_path).script == "sub/train.py"


@pytest.mark.parametrize("script", ["sub/x.py", Path("sub") / "x.py", "./sub/../sub/x.py"])
def test_a_given_script_is_relative_to_the_root(tmp_path: Path, script: str | Path) -> None:
    assert create_script_run(tmp_path / "root", script, ["a"]).script == "sub/x.py"


def test_an_absolute_script_becomes_relative(tmp_path: Path) -> None:
    made = create_script_run(tmp_path, tmp_path / "sub" / "x.py", ["a", "b c"])
    assert (made.script, made.arguments) == ("sub/x.py", ["a", "b c"])


@pytest.mark.parametrize("script", ["/elsewhere/x.py", "../x.py", "a/../../x.py", "."])
def test_a_script_outside_of_the_root(tmp_path: Path, script: str) -> None:
    root = tmp_path / "root"
    with pytest.raises(ValueError, match="must be inside of the snapshot root directory") as error:
        create_script_run(root, script)
    assert f"Snapshot root: {root}, entry script: {script}" in str(error.value)


def test_a_root_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert script_path(tmp_path / "link", tmp_path / "real" / "x.py") == "x.py"


@pytest.mark.parametrize("given", [None, []])
def test_no_arguments_are_those_of_the_running_script(tmp_path: Path, given: list[str] | None) -> None:
    """As hi-ml's documentation says: "If empty (or None, the default)"."""
    assert create_script_run(tmp_path, "x.py", given).arguments == ["--a", "1", "--azureml=x"]


def test_a_module(tmp_path: Path) -> None:
    made = create_script_run(tmp_path, "-m package.module", ["a b"])
    assert (made.script, made.command) == (None, "python -m package.module 'a b'")


def test_parameters_are_words_and_not_letters() -> None:
    text: Any = "--lr 0.1"
    with pytest.raises(ValueError, match="script_params is a list of words"):
        create_script_run(script_params=text)
