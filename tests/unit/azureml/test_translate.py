"""A run's description as AzureML takes it."""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himl_container.azureml.datasets import DatasetConfig
from himl_container.azureml.translate import SCRIPT_LATER, AzureTarget, command_line, run_configuration, size_text
from himl_container.launch.parse import parse_size
from himl_container.launch.spec import ImageRef, LaunchSpec, with_defaults

WORKSPACE = cast("Any", SimpleNamespace(name="w"))
TARGET = AzureTarget("cpu-cluster")


def spec(*command: str, **fields: Any) -> LaunchSpec:
    return LaunchSpec(name="run", image=ImageRef(""), command=command, **fields)


def test_a_python_script_is_a_script_with_arguments() -> None:
    made = run_configuration(spec("python", "sub/train.py", arguments=("--a", "b c", "")), TARGET, None, WORKSPACE)
    assert (made.script, made.arguments, made.command) == ("sub/train.py", ["--a", "b c", ""], "")
    assert made.target == "cpu-cluster"


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        (("python", "-m"), ("package.module", "a b"), "python -m package.module 'a b'"),
        (("./run.sh",), ("$HOME",), "./run.sh '$HOME'"),
        (("pytest",), (), "pytest"),
    ],
)
def test_anything_else_is_one_line_for_a_shell(command: tuple[str, ...], arguments: tuple[str, ...], line: str) -> None:
    made = run_configuration(spec(*command, arguments=arguments), TARGET, None, WORKSPACE)
    assert (made.command, made.script) == (line, None)


def test_a_script_may_come_later() -> None:
    made = run_configuration(spec(*SCRIPT_LATER), TARGET, None, WORKSPACE)
    assert (made.script, made.command, made.arguments) == (None, "", [])


def test_variables_belong_to_the_run() -> None:
    from azureml.core import Environment

    environment = Environment("mine")
    made = run_configuration(
        spec("python", "a.py", environment=with_defaults({"A": "1"})), TARGET, environment, WORKSPACE
    )
    assert made.environment is environment
    assert made.environment_variables["A"] == "1"
    assert made.environment_variables["AZUREML_OUTPUT_UPLOAD_TIMEOUT_SEC"] == "3600"
    assert "A" not in environment.environment_variables


def test_resources() -> None:
    made = run_configuration(
        spec("python", "a.py", nodes=3, shm_size=60 << 30, max_duration=90.5), TARGET, None, WORKSPACE
    )
    assert (made.docker.use_docker, made.docker.shm_size) == (True, "60g")
    assert made.max_run_duration_seconds == 90
    assert (made.node_count, made.mpi.node_count, made.mpi.process_count_per_node) == (3, 3, 1)
    assert (made.framework, made.communicator) == ("Python", "IntelMpi")


def test_less_than_a_second_is_a_limit() -> None:
    made = run_configuration(spec("python", "a.py", max_duration=0.5), TARGET, None, WORKSPACE)
    assert made.max_run_duration_seconds == 1


def test_one_node_needs_no_mpi_and_no_limit_is_none() -> None:
    made = run_configuration(spec("python", "a.py"), TARGET, None, WORKSPACE)
    assert (made.node_count, made.communicator, made.max_run_duration_seconds) == (1, "None", None)
    assert made.docker.shm_size == "2g"
    assert not made.data
    assert not made.output_data


def test_datasets_in_their_order_and_in_the_default_datastore(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    for name in ("to_input_dataset", "to_output_dataset"):

        def made(self: DatasetConfig, _workspace: object, index: int, kind: str = name) -> Any:
            seen.append((self.name, self.datastore))
            return SimpleNamespace(name=f"{kind}{index}")

        monkeypatch.setattr(DatasetConfig, name, made)
    inputs = (DatasetConfig("a"), DatasetConfig("b", datastore="theirs"))
    target = AzureTarget("c", input_datasets=inputs, output_datasets=(DatasetConfig("o"),), default_datastore="ours")
    result = run_configuration(spec("python", "a.py"), target, None, WORKSPACE)
    assert {key: item.name for key, item in result.data.items()} == {
        "INPUT_0": "to_input_dataset0",
        "INPUT_1": "to_input_dataset1",
    }
    assert list(result.output_data) == ["OUTPUT_0"]
    assert seen == [("a", "ours"), ("b", "theirs"), ("o", "ours")]
    assert inputs[0].datastore == ""  # the caller's own object stays as it is


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
@settings(max_examples=100, deadline=None)
def test_every_word_reaches_the_program_as_it_is(words: list[str]) -> None:
    assert shlex.split(command_line(words[:1], words[1:])) == words


@given(st.integers(1 << 16, 1 << 45))
@settings(max_examples=100, deadline=None)
def test_sizes_are_exact(size: int) -> None:
    assert parse_size(size_text(size), "size") == size
