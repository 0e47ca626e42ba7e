"""Parameter expressions and sampling, with the SDK's own functions as the source of expressions."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.search_fakes import sdk

from himl_container.emulator.http import Refusal
from himl_container.emulator.hyperdrive.sampling import argument_words, read_method, samples
from himl_container.emulator.hyperdrive.space import Expression, read_expression, read_space, sample

NUMBERS = st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6)
DRAWS = st.floats(0, 1, exclude_max=True)


def expression(name: str, *arguments: Any) -> Expression:
    return read_expression([name, list(arguments)], "x")


def value(name: str, *arguments: Any, draw: float) -> Any:
    return sample(expression(name, *arguments), lambda: draw)


def take(method: Any, space: dict[str, Any], count: int, seed: str = "1") -> list[dict[str, Any]]:
    return list(itertools.islice(samples(method, read_space(space), seed), count))


@pytest.mark.parametrize(
    ("name", "arguments", "draw", "expected"),
    [
        ("choice", [["a", "b", "c"]], 0.0, "a"),
        ("choice", [["a", "b", "c"]], 0.34, "b"),
        ("choice", [["a", "b", "c"]], 0.999, "c"),
        ("randint", [10], 0.0, 0),
        ("randint", [10], 0.55, 5),
        ("randint", [10], 0.9999999999999999, 9),
        ("uniform", [2, 4], 0.25, 2.5),
        ("quniform", [0, 10, 3], 0.5, 6),
        ("loguniform", [0, 2], 0.5, math.e),
        ("qloguniform", [0, 4], 0.5, None),
        ("qloguniform", [0, 4, 2], 0.5, 8),  # exp(2) is 7.39
        ("normal", [5, 2], 0.5, 5.0),
        ("qnormal", [5, 2, 4], 0.5, 4),  # 1.25 rounds to 1
        ("lognormal", [0, 3], 0.5, 1.0),
        ("qlognormal", [3, 0, 5], 0.1, 20),  # exp(3) is 20.09
    ],
)
def test_known_values(name: str, arguments: list[Any], draw: float, expected: Any) -> None:
    if expected is None:
        with pytest.raises(Refusal, match="has 3 finite numbers"):
            expression(name, *arguments)
        return
    found = value(name, *arguments, draw=draw)
    assert found == pytest.approx(expected) if isinstance(expected, float) else found == expected


def test_quantized_values_are_whole_numbers_where_q_is_one() -> None:
    assert isinstance(value("quniform", 1, 9, 2, draw=0.5), int)
    assert isinstance(value("quniform", 1, 9, 2.0, draw=0.5), float)


@given(low=NUMBERS, width=st.floats(1e-3, 1e6), q=st.integers(1, 1000), draw=DRAWS)
def test_uniform_values_stay_inside(low: float, width: float, q: int, draw: float) -> None:
    high = low + width
    assert low <= value("uniform", low, high, draw=draw) <= high
    quantized = value("quniform", low, high, q, draw=draw)
    assert quantized % q == 0
    assert low - q / 2 - 1e-6 <= quantized <= high + q / 2 + 1e-6


@given(low=st.floats(-50, 50), width=st.floats(0, 50), draw=DRAWS)
def test_logarithmic_values_stay_inside(low: float, width: float, draw: float) -> None:
    found = value("loguniform", low, low + width, draw=draw)
    assert math.exp(low) * (1 - 1e-9) <= found <= math.exp(low + width) * (1 + 1e-9)


@given(mu=NUMBERS, sigma=st.floats(0, 1e6), draw=DRAWS)
def test_normal_values_are_finite_and_ordered(mu: float, sigma: float, draw: float) -> None:
    found = value("normal", mu, sigma, draw=draw)
    assert math.isfinite(found)
    assert (found >= mu) or draw < 0.5


def test_draws_follow_the_distribution() -> None:
    values = [point["x"] for point in take("random", {"x": ["normal", [10, 2]]}, 4000)]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((item - mean) ** 2 for item in values) / len(values))
    assert mean == pytest.approx(10, abs=0.15)
    assert deviation == pytest.approx(2, abs=0.15)
    options = Counter(
        point["a"] for point in take("random", {"a": ["choice", [[1, 2]]], "x": ["uniform", [0, 1]]}, 2000)
    )
    assert 900 < options[1] < 1100


def test_the_sdks_own_expressions_are_understood() -> None:
    hyperdrive = sdk("azureml.train.hyperdrive")
    space = {
        "a": hyperdrive.choice(1, 2, 3),
        "b": hyperdrive.choice(range(5)),
        "c": hyperdrive.choice(["x", "y"]),
        "d": hyperdrive.randint(7),
        "e": hyperdrive.uniform(0, 1),
        "f": hyperdrive.quniform(1, 100, 5),
        "g": hyperdrive.loguniform(-5, -1),
        "h": hyperdrive.qloguniform(1, 5, 2),
        "i": hyperdrive.normal(0, 1),
        "j": hyperdrive.qnormal(10, 3, 1),
        "k": hyperdrive.lognormal(0, 1),
        "l": hyperdrive.qlognormal(2, 1, 1),
    }
    sent = json.loads(json.dumps(hyperdrive.RandomParameterSampling(space).to_json()))
    found = take(read_method(sent["name"], read_space(sent["parameter_space"])), sent["parameter_space"], 3)
    assert [list(point) for point in found] == [list(space)] * 3
    assert {type(found[0][name]) for name in "abdfhjl"} == {int}
    for sampling in (hyperdrive.GridParameterSampling, hyperdrive.BayesianParameterSampling):
        name = sampling({"a": space["a"]}).to_json()["name"]
        assert read_method(name, read_space({"a": space["a"]})) in ("grid", "bayesian")


def test_a_grid_is_walked_through_in_order() -> None:
    space = {"lr": ["choice", [[0.1, 0.2]]], "size": ["choice", [[8, 16, 32]]]}
    found = take("grid", space, 100)
    assert [(point["lr"], point["size"]) for point in found] == list(itertools.product([0.1, 0.2], [8, 16, 32]))


def test_options_may_hold_expressions() -> None:
    nested = {
        "model": [
            "choice",
            [[{"name": "tree", "depth": ["choice", [[2, 3]]]}, ["choice", [["linear", "mean"]]], ["plain", 1]]],
        ]
    }
    assert [point["model"] for point in take("grid", nested, 100)] == [
        {"name": "tree", "depth": 2},
        {"name": "tree", "depth": 3},
        "linear",
        "mean",
        ["plain", 1],
    ]
    drawn = take("random", {"lr": ["choice", [[["uniform", [0, 1]], ["uniform", [5, 6]]]]]}, 50)
    assert {int(point["lr"]) for point in drawn} == {0, 5}


def test_a_seed_decides_everything() -> None:
    space = {"x": ["uniform", [0, 1]], "n": ["choice", [list(range(1000))]]}
    first = take("random", space, 20, seed="7")
    assert first == take("random", space, 20, seed="7")
    assert first[:5] == take("random", space, 5, seed="7"), "what comes does not depend on how many are wanted"
    assert first != take("random", space, 20, seed="8")
    # Computed once: another version of Python must not search elsewhere.
    assert first[0]["x"] == pytest.approx(0.7124376338974682, abs=1e-12), first[0]


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3), seed=st.text(max_size=5))
def test_a_small_space_is_exhausted_without_repetition(sizes: list[int], seed: str) -> None:
    space = {f"p{index}": ["choice", [list(range(size))]] for index, size in enumerate(sizes)}
    found = take("random", space, 1000, seed)
    assert len(found) == math.prod(sizes)
    assert len({tuple(point.values()) for point in found}) == len(found)


def test_a_space_of_rounded_numbers_ends_too() -> None:
    found = take("random", {"x": ["quniform", [0, 4, 1]]}, 1000)
    assert sorted(point["x"] for point in found) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "no parameter"),
        ([], "no parameter"),
        ({"x": 3}, "not an expression"),
        ({"x": ["nonsense", [1]]}, "not an expression"),
        ({"x": ["choice", [[]]]}, "no options"),
        ({"x": ["choice", []]}, "no options"),
        ({"x": ["uniform", [1, 1]]}, "not below"),
        ({"x": ["uniform", [2, 1]]}, "not below"),
        ({"x": ["uniform", [0, float("nan")]]}, "finite"),
        ({"x": ["uniform", [0, float("inf")]]}, "finite"),
        ({"x": ["uniform", [False, True]]}, "finite"),
        ({"x": ["uniform", ["0", "1"]]}, "finite"),
        ({"x": ["uniform", [0, 1, 2]]}, "2 finite"),
        ({"x": ["quniform", [0, 1, 0]]}, "q is"),
        ({"x": ["randint", [0]]}, "randint"),
        ({"x": ["randint", [2.5]]}, "randint"),
        ({"x": ["normal", [0, -1]]}, "sigma"),
        ({"x": ["loguniform", [0, 1000]]}, "logarithms"),
        ({"x": ["lognormal", [0, 1000]]}, "logarithms"),
        ({"--": ["randint", [2]]}, "name of a parameter"),
        ({"a b": ["randint", [2]]}, "name of a parameter"),
        ({"a\n": ["randint", [2]]}, "name of a parameter"),
        ({"x": ["choice", [[float("inf")]]]}, "finite"),
    ],
)
def test_what_is_no_space_is_refused(space: Any, message: str) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        read_space(space)
    assert refused.value.status == 400


def test_nesting_without_end_is_refused() -> None:
    deep: Any = ["choice", [[1]]]
    for _ in range(20):
        deep = ["choice", [[deep]]]
    with pytest.raises(Refusal, match="deeper"):
        read_space({"x": deep})
    wide: Any = 1
    for _ in range(20):
        wide = [wide]
    with pytest.raises(Refusal, match="deeper"):
        read_space({"x": ["choice", [[wide]]]})


def test_a_grid_takes_choices_only_and_not_too_many() -> None:
    with pytest.raises(Refusal, match="grid sampling takes only choice, and the space has uniform"):
        read_method("GRID", read_space({"x": ["choice", [[["uniform", [0, 1]]]]]}))
    with pytest.raises(Refusal, match="bayesian"):
        read_method("BayesianOptimization", read_space({"x": ["normal", [0, 1]]}))
    many = ["choice", [list(range(1000))]]
    with pytest.raises(Refusal, match="more than"):
        read_method("grid", read_space({"x": ["choice", [[{"a": many, "b": many, "c": many}]]]}))
    with pytest.raises(Refusal, match="no sampling"):
        read_method("annealing", read_space({"x": many}))


def test_arguments_are_words_of_a_command_line() -> None:
    parameters = {"lr": 0.1, "--batch-size": 8, "-n": "two words", "flags": ["a", 1], "on": True, "off": None}
    assert argument_words(parameters) == [
        *("--lr", "0.1"),
        *("--batch-size", "8"),
        *("-n", "two words"),
        *("--flags", '["a", 1]'),
        *("--on", "True"),
        *("--off", "null"),
    ]
