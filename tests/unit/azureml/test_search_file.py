"""Files of hyperparameter searches: what is read, what is refused and where, and what HyperDrive makes of it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from himl_container.azureml.search import EarlyTermination, Parameter, Search, hyperdrive_config
from himl_container.azureml.search_file import read_search
from himl_container.errors import InputError

WHOLE = """
sampling: random
parameters:
  --kernel: [linear, rbf]
  --penalty: {uniform: [0.5, 1.5]}
  --rate: {loguniform: [-6, -1]}
  --units: {quniform: [8, 256, 8]}
  --layers: {randint: 4}
  --noise: {normal: [0, 1e-3]}
  --flag: {choice: [true, 1, 2.5, "1"]}
metric: Accuracy
goal: Maximize
max_total_runs: 12
max_concurrent_runs: 4
max_duration: 90s
early_termination:
  bandit: {slack_factor: 0.1, evaluation_interval: 2, delay_evaluation: 5}
"""
SMALL = """
parameters:
  --kernel: [linear]
metric: m
goal: minimize
max_total_runs: 2
"""


def read(folder: Path, text: str) -> Search:
    path = folder / "search.yml"
    path.write_text(textwrap.dedent(text).lstrip("\n"))
    return read_search(path)


def test_a_whole_file(tmp_path: Path) -> None:
    assert read(tmp_path, WHOLE) == Search(
        parameters=(
            Parameter("--kernel", "choice", ("linear", "rbf")),
            Parameter("--penalty", "uniform", (0.5, 1.5)),
            Parameter("--rate", "loguniform", (-6, -1)),
            Parameter("--units", "quniform", (8, 256, 8)),
            Parameter("--layers", "randint", (4,)),
            Parameter("--noise", "normal", (0, 0.001)),
            Parameter("--flag", "choice", (True, 1, 2.5, "1")),
        ),
        metric="Accuracy",
        goal="maximize",
        max_total_runs=12,
        sampling="random",
        max_concurrent_runs=4,
        max_minutes=2,
        early_termination=EarlyTermination(
            "bandit", (("slack_factor", 0.1), ("evaluation_interval", 2), ("delay_evaluation", 5))
        ),
    )


def test_the_smallest_file(tmp_path: Path) -> None:
    found = read(tmp_path, SMALL)
    assert (found.sampling, found.max_concurrent_runs, found.max_minutes) == ("random", None, 10080)


def test_what_looks_like_a_number_only_to_python_stays_text(tmp_path: Path) -> None:
    found = read(tmp_path, SMALL.replace("[linear]", "[nan, inf, 1e400, 1e3, '1e3', 1_0]"))
    assert found.parameters[0].values == ("nan", "inf", "1e400", 1000.0, "1e3", 10)


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("metric: m", "metrik: m", 3, "unknown key 'metrik'"),
        ("goal: minimize", "goal: small", 4, "goal cannot be 'small'"),
        ("max_total_runs: 2", "max_total_runs: 0", 5, "between 1 and 1000"),
        ("max_total_runs: 2", "max_total_runs: 1001", 5, "between 1 and 1000"),
        ("max_total_runs: 2", "max_total_runs: true", 5, "between 1 and 1000"),
        ("max_total_runs: 2", "max_total_runs: 2\nmax_concurrent_runs: 3", 6, "between 1 and 2"),
        ("max_total_runs: 2", "max_total_runs: 2\nmax_duration: soon", 6, "not a duration"),
        ("max_total_runs: 2", "max_total_runs: 2\nmax_duration: 8d", 6, "at most 7 days"),
        ("max_total_runs: 2", "max_total_runs: 2\nsampling: any", 6, "sampling cannot be 'any'"),
        ("metric: m", "metric: ''", 3, "metric is empty"),
        ("[linear]", "[]", 2, "nothing to choose from"),
        ("[linear]", "linear", 2, "is a string, not a mapping"),
        ("[linear]", "[[1]]", 2, "must be one value"),
        ("[linear]", "[1, ~]", 2, "a value is missing"),
        ("[linear]", "{gauss: [0, 1]}", 2, "no distribution 'gauss'"),
        ("[linear]", "{uniform: [0, 1], normal: [0, 1]}", 2, "one distribution"),
        ("[linear]", "{uniform: [1]}", 2, "takes two numbers: low, high"),
        ("[linear]", "{uniform: [1, 1]}", 2, "not below"),
        ("[linear]", "{uniform: [a, b]}", 2, "'a' is not a number"),
        ("[linear]", "{uniform: [0, .inf]}", 2, "is not a number"),
        ("[linear]", "{quniform: [0, 1, 0]}", 2, "the step is not above zero"),
        ("[linear]", "{normal: [0, -1]}", 2, "the deviation is not above zero"),
        ("[linear]", "{randint: 2.5}", 2, "a whole number"),
        ("--kernel: [linear]", "--kernel: [a]\n  kernel: [b]", 3, "is there twice"),
        ("--kernel: [linear]", "'two words': [a]", 2, "cannot be the name"),
        ("  --kernel: [linear]", "  --: [a]", 2, "cannot be the name"),
    ],
)
def test_mistakes_are_told_with_file_and_line(tmp_path: Path, old: str, new: str, line: int, what: str) -> None:
    assert old in SMALL
    with pytest.raises(InputError) as caught:
        read(tmp_path, SMALL.replace(old, new))
    assert what in caught.value.what
    assert caught.value.where == f"{tmp_path / 'search.yml'}:{line}"


@pytest.mark.parametrize("key", ["parameters", "metric", "goal", "max_total_runs"])
def test_what_is_needed(tmp_path: Path, key: str) -> None:
    text = SMALL.replace("parameters:\n  --kernel: [linear]\n", "") if key == "parameters" else ""
    text = text or "\n".join(line for line in SMALL.splitlines() if not line.startswith(key))
    with pytest.raises(InputError, match=f"has no '{key}'"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("sampling", "parameter", "what"),
    [
        ("grid", "{uniform: [0, 1]}", "grid sampling cannot draw from 'uniform'"),
        ("bayesian", "{normal: [0, 1]}", "bayesian sampling cannot draw from 'normal'"),
        ("bayesian", "{quniform: [0, 1, 0.5]}", "whole numbers"),
    ],
)
def test_what_a_sampling_cannot_do(tmp_path: Path, sampling: str, parameter: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        read(tmp_path, f"sampling: {sampling}\n" + SMALL.replace("[linear]", parameter).lstrip())


@pytest.mark.parametrize(
    ("policy", "what"),
    [
        ("{}", "needs one policy"),
        ("{median: {}, bandit: {slack_factor: 1}}", "needs one policy"),
        ("{random: {}}", "needs one policy"),
        ("{bandit: {}}", "either slack_factor or slack_amount"),
        ("{bandit: {slack_factor: 1, slack_amount: 1}}", "either slack_factor or slack_amount"),
        ("{bandit: {slack_factor: 0}}", "not above zero"),
        ("{truncation: {}}", "needs the percentage"),
        ("{truncation: {percentage: 100}}", "between 1 and 99"),
        ("{median: {delay: 1}}", "has no 'delay'"),
        ("{median: {evaluation_interval: 0}}", "between 1 and"),
    ],
)
def test_policies_that_cannot_be(tmp_path: Path, policy: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        read(tmp_path, SMALL + f"early_termination: {policy}\n")


def test_bayesian_sampling_takes_no_policy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes no early termination"):
        read(tmp_path, SMALL + "sampling: bayesian\nearly_termination: {median: {}}\n")


@pytest.mark.parametrize("text", ["", "[]", "a: [", "\0"])
def test_what_is_no_search(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert "docs/hyperparameter-search.md" in caught.value.hint


def test_hyperdrive_takes_it(tmp_path: Path) -> None:
    from azureml.core import ScriptRunConfig

    (tmp_path / "train.py").write_text("")
    config = hyperdrive_config(read(tmp_path, WHOLE), ScriptRunConfig(str(tmp_path), "train.py"))
    made = config._generator_config
    assert made["name"] == "RANDOM"
    assert made["parameter_space"] == {
        "--kernel": ["choice", [["linear", "rbf"]]],
        "--penalty": ["uniform", [0.5, 1.5]],
        "--rate": ["loguniform", [-6, -1]],
        "--units": ["quniform", [8, 256, 8]],
        "--layers": ["randint", [4]],
        "--noise": ["normal", [0, 0.001]],
        "--flag": ["choice", [[True, 1, 2.5, "1"]]],
    }
    assert config._primary_metric_config == {"name": "Accuracy", "goal": "maximize"}
    assert (config._max_total_runs, config._max_concurrent_runs, config._max_duration_minutes) == (12, 4, 2)
    policy = config._policy_config
    assert (policy["name"], policy["properties"]["slack_factor"]) == ("Bandit", 0.1)


@pytest.mark.parametrize(
    ("policy", "name"), [("median: {}", "MedianStopping"), ("truncation: {percentage: 20}", "TruncationSelection")]
)
def test_hyperdrive_takes_the_other_policies(tmp_path: Path, policy: str, name: str) -> None:
    from azureml.core import ScriptRunConfig

    (tmp_path / "train.py").write_text("")
    search = read(tmp_path, SMALL + f"sampling: grid\nearly_termination: {{{policy}}}\n")
    config = hyperdrive_config(search, ScriptRunConfig(str(tmp_path), "train.py"))
    assert config._policy_config["name"] == name
    assert config._generator_config["name"] == "GRID"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    for document in (text, f"parameters: {{x: {text}}}\nmetric: m\ngoal: minimize\nmax_total_runs: 1\n"):
        path = tmp_path / "any.yml"
        path.write_text(document, encoding="utf-8")
        try:
            found = read_search(path)
        except InputError as error:
            assert str(path) in error.where
        else:
            assert found.parameters
