"""From flags and settings to the plan of a submission, and the plan as it is printed; nothing is asked of AzureML."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from himl_container.azureml.datasets import DatasetConfig
from himl_container.azureml.dry_run import request_as_json, request_as_text
from himl_container.azureml.request import SubmitPlan, SubmitRequest, plan_submission, what_runs
from himl_container.errors import InputError
from himl_container.launch.request import RunRequest, plan_run
from himl_container.launch.spec import Dataset
from himl_container.settings import Settings


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print()\n")
    (folder / "tool.sh").write_text("#!/bin/sh\n")
    (folder / "tool.sh").chmod(0o755)
    return folder


@pytest.fixture
def settings(source: Path, tmp_path: Path) -> Settings:
    where = source / "pyproject.toml"
    return Settings(source, (), tmp_path / "lock", tmp_path / "cache", source=where, run={"cluster": "cpu"})


def plan(request: SubmitRequest, settings: Settings, cwd: Path, **environ: str) -> SubmitPlan:
    return plan_submission(request, settings, cwd=cwd, environ=environ)


def test_a_script_alone(source: Path, settings: Settings) -> None:
    made = plan(SubmitRequest("train.py", ("--lr", "1")), settings, source)
    assert (made.spec.command, made.spec.arguments) == (("python", "train.py"), ("--lr", "1"))
    assert (made.target.compute, made.target.experiment, made.target.tags) == ("cpu", "train", None)
    assert made.search is None
    assert made.settings.azureml_environment == "image"


def test_flags_win_over_the_settings_and_tables_are_joined(source: Path, settings: Settings) -> None:
    (source / "data").mkdir()
    (source / "data" / "a.csv").write_text("1")
    settings = replace(
        settings,
        run={
            **{"cluster": "cpu", "experiment": "from-settings", "datastore": "store", "shm-size": "1g", "nodes": 3},
            **{"max-duration": "1h", "tags": {"a": "1", "b": 2}, "env": {"A": "1"}, "ignore": ["data"]},
            "datasets": {"iris": {"local": "x", "version": 2, "name": "flowers/iris"}, "second": "data"},
            "outputs": {"model": "datastore=other,mode=upload"},
            # Those that concern this machine alone.
            **{"gpus": "none", "memory": "1g", "runs-dir": "all"},
        },
    )
    request = SubmitRequest(
        "train.py",
        **{"cluster": "gpu", "tags": ("b=3", "c=x=y"), "env": ("TOKEN",), "nodes": 2},
        datasets=("third=mode=download,target=/data/third",),
    )
    made = plan(request, settings, source, TOKEN="t")
    assert (made.target.compute, made.target.experiment) == ("gpu", "from_settings")
    assert made.target.tags == {"a": "1", "b": "3", "c": "x=y"}
    assert (made.spec.shm_size, made.spec.nodes, made.spec.max_duration) == (1 << 30, 2, 3600.0)
    assert dict(made.spec.environment)["TOKEN"] == "t"
    assert made.spec.datasets == (
        Dataset("iris"),
        Dataset("second"),
        Dataset("third", mount_path="/data/third", mode="download"),
    )
    assert made.target.input_datasets == (
        DatasetConfig("flowers/iris", "store", 2, use_mounting=True, local_folder=source / "x"),
        DatasetConfig("second", "store", use_mounting=True, local_folder=source / "data"),
        DatasetConfig("third", "store", use_mounting=False, target_folder="/data/third"),
    )
    assert made.target.output_datasets == (DatasetConfig("model", "other", use_mounting=False),)
    assert [file.path for file in made.snapshot.files] == ["tool.sh", "train.py"]
    assert {item.path: item.rule for item in made.snapshot.ignored} == {"data/a.csv": "--ignore"}


def test_both_places_take_one_table_and_make_the_same_of_it(source: Path, settings: Settings) -> None:
    (source / "data").mkdir()
    settings = replace(
        settings,
        run={
            **{"cluster": "cpu", "tags": {"a": "1"}, "experiment": "e", "wait": True, "search": "none.yml"},
            **{"ignore": ["data"], "datastore": "d", "workspace-config": "x", "show-output": True, "emulator": True},
            "datasets": {"iris": {"local": "data", "version": 1, "mode": "download", "target": "/data"}},
            "outputs": {"model": {"local": "out", "mode": "upload"}},
            **{"shm-size": "512m", "nodes": 2, "max-duration": "5m", "env": {"A": "1"}, "gpus": "none"},
        },
    )
    words = ("--lr", "a b")
    here = plan_run(RunRequest("train.py", words), settings, cwd=source, environ={}).spec
    there_settings = replace(settings, run={key: value for key, value in settings.run.items() if key != "search"})
    there = plan(SubmitRequest("train.py", words), there_settings, source).spec
    assert replace(here, gpus="auto") == there


def test_a_program_is_made_executable_first(source: Path, settings: Settings) -> None:
    made = plan(SubmitRequest("tool.sh", ("a b",)), settings, source)
    assert made.spec.command == ("sh", "-c", 'chmod +x "$0" && exec "$0" "$@"', "./tool.sh")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"script": ""}, "nothing to run"),
        ({"script": "no.py"}, "no such script"),
        ({"script": "../outside.py"}, "inside of the source folder"),
        ({"cluster": "../x"}, "cannot be the name of a cluster"),
        ({"cluster": " "}, "no cluster is named"),
        ({"experiment": "two words"}, "cannot be the name of an experiment"),
        ({"experiment": "ä"}, "cannot be the name of an experiment"),
        ({"tags": ("novalue",)}, "is not NAME=VALUE"),
        ({"tags": tuple(f"t{n}=1" for n in range(51))}, "more than AzureML takes"),
        ({"datasets": ("a", "a")}, "'a' is given twice"),
        ({"datasets": ("a=name=x", "b=name=x/")}, "are both the dataset"),
        ({"outputs": ("a=name=x", "b=name=x")}, "are both the dataset"),
        ({"datasets": ("a=target=relative",)}, "not an absolute path"),
        ({"env": ("MISSING",)}, "not set here"),
        ({"shm_size": "1"}, "not a usable size"),
        ({"nodes": 0}, "not a number of nodes"),
        ({"max_duration": "soon"}, "not a duration"),
        ({"ignore": ("..",)}, "no folder below"),
        ({"ignore": (".",)}, "no folder below"),
        ({"source": Path("nowhere")}, "does not exist"),
        ({"search": Path("nowhere.yml")}, "nowhere.yml"),
    ],
)
def test_what_cannot_be_submitted(source: Path, settings: Settings, change: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(SubmitRequest(**{"script": "train.py", **change}), settings, source)
    assert what in str(caught.value)


def test_without_a_cluster(source: Path, settings: Settings) -> None:
    with pytest.raises(InputError, match="no cluster is named") as caught:
        plan(SubmitRequest("train.py"), replace(settings, run={}), source)
    assert "--cluster NAME" in caught.value.hint


def test_one_dataset_may_be_there_in_two_versions(source: Path, settings: Settings) -> None:
    made = plan(SubmitRequest("train.py", datasets=("a=name=x,version=1", "b=name=x,version=2")), settings, source)
    assert [item.version for item in made.target.input_datasets] == [1, 2]


def test_a_snapshot_over_the_limits(source: Path, settings: Settings) -> None:
    with (source / "large.bin").open("wb") as file:
        file.truncate(301 << 20)
    with pytest.raises(InputError, match=r"the snapshot is 301.0 MB; AzureML takes at most 300.0 MB"):
        plan(SubmitRequest("train.py"), settings, source)
    assert plan(SubmitRequest("train.py", ignore=("large.bin",)), settings, source).snapshot.size < 100


def test_what_would_be_sent(source: Path, settings: Settings) -> None:
    request = SubmitRequest(
        "train.py",
        ("--lr", "1"),
        datasets=("iris=version=2",),
        outputs=("model",),
        env=("API_KEY=hidden", "A=1"),
        tags=("who=me",),
    )
    made = plan(request, settings, source)
    value = request_as_json(made)
    text = request_as_text(value)
    assert "hidden" not in json.dumps(value) + text
    configuration = value["configuration"]
    assert isinstance(configuration, dict)
    assert (configuration["script"], configuration["arguments"]) == ("train.py", ["--lr", "1"])
    assert configuration["target"] == "cpu"
    assert configuration["environmentVariables"]["API_KEY"] == "***"
    assert configuration["environment"]["python"]["interpreterPath"] == "/opt/himl/bin/python"
    for line in ("experiment     train", "tag            who=me", "  train.py (8)"):
        assert line in text.splitlines()
    assert "INPUT_0        iris of the default datastore, version 2, mount" in text


def test_what_azureml_would_build_is_json_to_the_last_value(source: Path, settings: Settings) -> None:
    (source / "environment.yml").write_text("dependencies:\n- python=3.12\n- pip:\n  - numpy==1.26\n")
    (source / "more.yml").write_text("dependencies:\n- scipy\n")
    settings = replace(
        settings,
        conda_files=(source / "environment.yml", source / "more.yml"),
        wheels=(source / "ours-1-py3-none-any.whl",),
        pip_index_url="https://mirror.example/simple",
        pip_extra_index_urls=("https://me:hidden@private.example/simple",),
        base_image="base:1",
    )
    made = plan(SubmitRequest("train.py", build_in_azureml=True), settings, source)
    value = json.loads(json.dumps(request_as_json(made)))
    assert value["launch"]["image"] == "built by AzureML"
    environment = value["configuration"]["environment"]
    *conda, section = environment["python"]["condaDependencies"]["dependencies"]
    assert conda == ["python=3.12", "scipy"]
    assert section["pip"][:3] == [
        "numpy==1.26",
        "--index-url https://private.example/simple",
        "--extra-index-url https://mirror.example/simple",
    ]
    assert section["pip"][-1].startswith("ours-1-py3-none-any.whl")
    assert environment["docker"]["baseImage"] == "base:1"
    assert "hidden" not in request_as_text(value)


def test_nothing_that_azureml_could_build(source: Path, settings: Settings) -> None:
    made = plan(SubmitRequest("train.py", build_in_azureml=True), settings, source)
    with pytest.raises(InputError, match=r"himl-container init"):
        request_as_json(made)


@pytest.mark.parametrize(
    ("script", "arguments", "shown"),
    [
        ("train.py", ("--password", "x"), "python train.py"),
        ("tool.sh", ("x",), "./tool.sh"),
        ("-m", ("package.module", "x"), "python -m package.module"),
        ("pytest", ("x",), "pytest"),
    ],
)
def test_what_a_list_of_runs_shows(
    script: str, arguments: tuple[str, ...], shown: str, source: Path, settings: Settings
) -> None:
    assert what_runs(plan(SubmitRequest(script, arguments), settings, source).spec) == shown


def test_a_tilde_is_home_and_any_other_name_is_one(
    source: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = ("a=~/a", "b=~nobody-of-this-name/b")
    made = plan(SubmitRequest("train.py", datasets=given), settings, source).target.input_datasets
    assert [one.local_folder for one in made] == [Path("/home/me/a"), source / "~nobody-of-this-name" / "b"]
