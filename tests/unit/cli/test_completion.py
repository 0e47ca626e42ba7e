"""Shell completion: what Tab offers, and that it costs nothing that a person would notice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kit import COMMAND, clean_environ

from himl_container.azureml.records import Record, Records
from himl_container.cache import Cache
from himl_container.cli import main


def complete(*words: str, cwd: Path, code: int = 0, **variables: str) -> list[str]:
    """Return what bash is told when Tab is pressed behind the words."""
    environ = clean_environ(
        _HIML_CONTAINER_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(["himl-container", *words]),
        COMP_CWORD=str(len(words)),
        **{"HIML_CONTAINER_CACHE_DIR": str(cwd / "no-cache"), **variables},
    )
    done = subprocess.run([COMMAND], cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def values(lines: list[str]) -> list[str]:
    return [line.partition(",")[2] for line in lines]


def test_commands_are_completed(tmp_path: Path) -> None:
    assert values(complete("", cwd=tmp_path)) == list(main.COMMANDS)
    assert values(complete("bu", cwd=tmp_path)) == ["build"]
    assert "--version" in values(complete("--", cwd=tmp_path))


def test_commands_of_a_group_are_completed(tmp_path: Path) -> None:
    assert "start" in values(complete("emulator", "sta", cwd=tmp_path))


def test_options_are_completed(tmp_path: Path) -> None:
    offered = values(complete("build", "--", cwd=tmp_path))
    assert {"--conda-file", "--json", "--locked"} <= set(offered)
    assert values(complete("build", "--progress", "p", cwd=tmp_path)) == ["plain"]


def test_a_file_is_left_to_the_shell(tmp_path: Path) -> None:
    assert complete("build", "--conda-file", "env", cwd=tmp_path) == ["file,env"]
    assert complete("run", "--local", "trai", cwd=tmp_path) == ["file,trai"]
    assert complete("run", "--local", "train.py", "--data", "d", cwd=tmp_path) == ["file,d"]


def test_runs_of_this_folder_are_offered_the_newest_first(tmp_path: Path) -> None:
    for name in ("train_20260101", "train_20260102"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "latest").symlink_to("train_20260102")
    (tmp_path / "most_recent_run.txt").write_text("an_experiment:cloud_1")
    assert values(complete("verify", "", cwd=tmp_path)) == ["cloud_1", "latest", "train_20260102", "train_20260101"]
    assert values(complete("verify", "train_20260101", cwd=tmp_path)) == ["train_20260101"]


@pytest.mark.parametrize("command", ["status", "logs", "cancel", "download"])
def test_runs_that_were_submitted_are_offered(tmp_path: Path, command: str) -> None:
    (tmp_path / "most_recent_run.txt").write_text("an_experiment:cloud_2\n")
    cache = Cache(tmp_path / "cache")
    for number in (1, 2, 3):
        record = Record(f"cloud_{number}", "an_experiment", "s", "g", "w", submitted=float(number))
        Records(cache).add(record)
    offered = values(complete(command, "", cwd=tmp_path, HIML_CONTAINER_CACHE_DIR=str(cache.root)))
    assert offered == ["cloud_2", "cloud_3", "cloud_1"]


def test_nothing_is_offered_that_the_shell_would_carry_out(tmp_path: Path) -> None:
    """A folder that a stranger has made must not put a command into the line."""
    (tmp_path / "most_recent_run.txt").write_text("an_experiment:$(touch${IFS}gone)")
    for name in ("`id`", "a;b", "a b", "train_1"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    assert values(complete("status", "", cwd=tmp_path)) == []
    assert values(complete("verify", "", cwd=tmp_path)) == ["latest", "train_1"]


def test_a_script_to_submit_is_a_file(tmp_path: Path) -> None:
    assert complete("submit", "--azureml", "trai", cwd=tmp_path) == ["file,trai"]


def test_nothing_that_goes_wrong_reaches_the_line_that_is_being_typed(tmp_path: Path) -> None:
    (tmp_path / "most_recent_run.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "pyproject.toml").write_text("[tool.himl-container\n")
    assert complete("verify", "", cwd=tmp_path) == []
    assert not (tmp_path / "no-cache").exists()
    assert complete("nonsense", "", cwd=tmp_path, code=1) == []


def test_tab_imports_nothing_that_is_slow(tmp_path: Path) -> None:
    text = """
import json, os, sys
os.environ.update(_HIML_CONTAINER_COMPLETE="bash_complete", COMP_WORDS=sys.argv[1], COMP_CWORD=sys.argv[2])
from himl_container.cli.main import run
run([])
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
    slow = {"docker", "rattler", "jinja2", "rich", "yaml", "httpx", "requests", "starlette", "azureml", "torch"}
    for words in (["himl-container", "b"], ["himl-container", "run", "--"], ["himl-container", "verify", ""]):
        done = subprocess.run(
            [sys.executable, "-c", text, " ".join(words), str(len(words) - 1)],
            cwd=tmp_path,
            env=clean_environ(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert slow & set(json.loads(done.stderr.splitlines()[-1])) == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str, tmp_path: Path) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("no bash")
    done = subprocess.run(
        [COMMAND, "completion", shell], env=clean_environ(), capture_output=True, text=True, timeout=60, check=True
    )
    assert f"_HIML_CONTAINER_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(done.stdout)
        subprocess.run([shell, "-n", script], timeout=60, check=True)


def test_the_shell_in_use_is_the_default(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert main.run(["completion"]) == 0
    assert "fish_complete" in capsys.readouterr().out
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert main.run(["completion"]) == 65
    assert "bash, zsh, fish" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_itself_completes(tmp_path: Path) -> None:
    lines = """
set -e
eval "$(himl-container completion bash)"
COMP_WORDS=(himl-container emu); COMP_CWORD=1
_himl_container_completion himl-container emu himl-container
echo "${COMPREPLY[@]}"
"""
    environ = clean_environ(PATH=f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}")
    done = subprocess.run(
        ["bash", "-c", lines], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["emulator"]
