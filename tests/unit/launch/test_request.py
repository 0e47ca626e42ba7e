"""From flags and settings to a plan, and the plan as it is printed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from himl_container.errors import InputError
from himl_container.launch.dry_run import plan_as_json, plan_as_text
from himl_container.launch.interactive import SHELL
from himl_container.launch.request import RunPlan, RunRequest, plan_run
from himl_container.launch.spec import Dataset
from himl_container.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path, (), tmp_path / "lock", tmp_path / "cache", source=tmp_path / "pyproject.toml")


def plan(request: RunRequest, settings: Settings, cwd: Path, **environ: str) -> RunPlan:
    return plan_run(request, settings, cwd=cwd, environ=environ)


def test_a_script_alone(source: Path, settings: Settings) -> None:
    made = plan(RunRequest("train.py", ("--lr", "1")), settings, source)
    assert made.spec.name == "train"
    assert (made.spec.command, made.spec.arguments) == (("python", "train.py"), ("--lr", "1"))
    assert (made.spec.shm_size, made.spec.gpus, made.spec.nodes, made.spec.max_duration) == (2 << 30, "auto", 1, None)
    assert made.options.runs == source / "runs"


def test_flags_win_over_the_settings_and_tables_are_joined(source: Path, settings: Settings, tmp_path: Path) -> None:
    for name in ("data", "data2", "other"):
        (tmp_path / name).mkdir()
    (source / "here").mkdir()
    settings = replace(
        settings,
        run={
            "datasets": {"iris": "data", "b": "data2"},
            "outputs": {"res": "out"},
            "env": {"A": "1", "B": 2},
            "shm-size": "1g",
            "nodes": 3,
            "max-duration": "1h",
            "gpus": "none",
            "runs-dir": "all-runs",
            "memory": "1g",
        },
    )
    request = RunRequest(
        "train.py", datasets=("iris=here", "c=../other"), env=("B=x", "TOKEN"), nodes=2, shm_size="512m"
    )
    made = plan(request, settings, source, TOKEN="t")
    assert made.spec.datasets == (Dataset("iris"), Dataset("b"), Dataset("c"))
    assert made.options.dataset_folders["iris"] == source / "here"
    assert made.options.dataset_folders["b"] == tmp_path / "data2"
    assert made.options.output_folders == {"res": tmp_path / "out"}
    environment = dict(made.spec.environment)
    assert (environment["A"], environment["B"], environment["TOKEN"]) == ("1", "x", "t")
    assert (made.spec.shm_size, made.spec.nodes, made.spec.max_duration) == (512 << 20, 2, 3600)
    assert (made.spec.gpus, made.options.memory) == ("none", 1 << 30)
    assert made.options.runs == tmp_path / "all-runs"


@pytest.mark.parametrize(
    "run",
    [{"colour": "red"}, {"datasets": "a=b"}, {"gpus": {"a": 1}}, {"nodes": "2"}, {"nodes": True}, {"env": {"A B": 1}}],
)
def test_a_bad_setting_names_the_file(source: Path, settings: Settings, run: dict[str, object]) -> None:
    with pytest.raises(InputError):
        plan(RunRequest("train.py"), replace(settings, run=run), source)


@pytest.mark.parametrize(
    "request_",
    [
        RunRequest("train.py", datasets=("a=.", "a=.")),
        RunRequest("train.py", datasets=("a=nope",)),
        RunRequest("train.py", env=("NOT_SET_HERE",)),
        RunRequest("train.py", preempt="soon"),
        RunRequest("nope.py"),
        RunRequest(""),
    ],
)
def test_what_cannot_work_is_an_input_error(source: Path, settings: Settings, request_: RunRequest) -> None:
    with pytest.raises(InputError):
        plan(request_, settings, source)


def test_an_interactive_run_without_a_script_is_a_shell(source: Path, settings: Settings) -> None:
    made = plan(RunRequest("", interactive=True), settings, source)
    assert (made.spec.command, made.spec.name) == (SHELL, "shell")


def test_the_printed_plan_is_complete_and_without_secrets(source: Path, settings: Settings) -> None:
    (source / ".amlignore").write_text("*.bin\n")
    (source / "big.bin").write_text("x")
    (source / "odd\nname").write_text("x")
    request = RunRequest("train.py", ("a b",), datasets=("d=.",), env=("API_KEY=canary",), preempt="30s", nodes=2)
    made = plan(request, settings, source)
    text, value = plan_as_text(made, "himl:1"), plan_as_json(made, "himl:1")
    assert "canary" not in text + json.dumps(value)
    for part in (
        "image          himl:1",
        "command        python train.py 'a b'",
        "big.bin by .amlignore:1 (*.bin)",
        "train.py (15)",
        "'odd\\nname'"[1:-1],
        "30 s after start 1",
        f"INPUT_0 <- {source} (read-only)",
    ):
        assert part in text
    assert len(value["nodes"]) == 2  # type: ignore[arg-type]
    assert not (source / "runs").exists()
