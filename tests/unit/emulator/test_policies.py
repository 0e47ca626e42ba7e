"""Early termination, by the examples of the SDK's docstrings and by what must hold for any values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.search_fakes import sdk

from himl_container.emulator.http import Refusal
from himl_container.emulator.hyperdrive.policies import Goal, History, Policy, read_policy, reason_to_stop

VALUES = st.floats(-1e6, 1e6)
GOALS: st.SearchStrategy[Goal] = st.sampled_from(["maximize", "minimize"])
POLICIES = st.sampled_from(
    [
        Policy("bandit", slack_factor=0.2),
        Policy("bandit", slack_amount=0.5),
        Policy("bandit", slack_amount=0.0),
        Policy("median"),
        Policy("truncation", truncation_percentage=40),
        Policy("truncation", truncation_percentage=99),
    ]
)


def stopped(policy: Policy, runs: dict[str, list[float]], own: str, interval: int, goal: Goal = "maximize") -> bool:
    return bool(reason_to_stop(policy, own, {key: History(goal, values) for key, values in runs.items()}, interval))


def test_the_slack_factor_of_the_docstring() -> None:
    """X is the best with 0.8 after 100 intervals; a run with Y is cancelled where Y + Y * 0.2 is below 0.8."""
    policy = Policy("bandit", evaluation_interval=100, slack_factor=0.2)
    runs = {"x": [0.8] * 100, "bad": [0.66] * 100, "good": [0.67] * 100}
    assert stopped(policy, runs, "bad", 100)
    assert not stopped(policy, runs, "good", 100)
    assert not stopped(policy, runs, "bad", 99), "it is looked at every 100 intervals only"
    late = Policy("bandit", evaluation_interval=100, slack_factor=0.2, delay_evaluation=200)
    assert not stopped(late, runs, "bad", 100)
    assert stopped(late, {key: values * 2 for key, values in runs.items()}, "bad", 200)


def test_the_slack_amount_of_the_docstring() -> None:
    """The best has 0.8 after 100 iterations; below 0.6 with a slack of 0.2 a run is cancelled."""
    policy = Policy("bandit", evaluation_interval=100, slack_amount=0.2)
    runs = {"3": [0.8] * 100, "bad": [0.59] * 100, "good": [0.61] * 100}
    assert stopped(policy, runs, "bad", 100)
    assert not stopped(policy, runs, "good", 100)


def test_slack_when_minimizing() -> None:
    factor = Policy("bandit", slack_factor=0.2)
    runs = {"best": [1.0], "good": [1.19], "bad": [1.21]}
    assert [stopped(factor, runs, key, 1, "minimize") for key in runs] == [False, False, True]
    amount = Policy("bandit", slack_amount=0.1)
    assert [stopped(amount, runs, key, 1, "minimize") for key in runs] == [False, True, True]


def test_negative_metrics_have_a_slack_on_the_right_side() -> None:
    policy = Policy("bandit", slack_factor=0.2)
    runs = {"best": [-1.0], "good": [-1.19], "bad": [-1.21]}
    assert [stopped(policy, runs, key, 1) for key in runs] == [False, False, True]


def test_the_best_value_so_far_counts_and_only_the_past_of_others() -> None:
    policy = Policy("bandit", slack_factor=0.2)
    runs = {"own": [0.8, 0.1], "ahead": [0.5, 0.6, 0.99]}
    assert not stopped(policy, runs, "own", 2)
    assert stopped(policy, {**runs, "own": [0.1, 0.1, 0.3]}, "own", 3)


def test_the_median_of_running_averages() -> None:
    policy = Policy("median", evaluation_interval=1, delay_evaluation=2)
    # Averages over 1:2 are 0.2, 0.5 and 0.8; the median is 0.5.
    runs = {"low": [0.1, 0.3, 9.0], "middle": [0.4, 0.6], "high": [0.7, 0.9]}
    assert stopped(policy, runs, "low", 2)
    assert not stopped(policy, runs, "middle", 2)
    assert not stopped(policy, runs, "high", 2)
    assert not stopped(policy, runs, "low", 1), "the first evaluation is delayed"
    assert not stopped(policy, {**runs, "low": [0.1, 0.5]}, "low", 2), "equal to the median is not worse"


def test_truncation_cuts_the_lowest_of_those_that_came_as_far() -> None:
    policy = Policy("truncation", truncation_percentage=20, evaluation_interval=1, delay_evaluation=5)
    runs = {str(number): [number / 10] * 5 for number in range(10)}
    assert [key for key in runs if stopped(policy, runs, key, 5)] == ["0", "1"]
    assert [key for key in runs if stopped(policy, runs, key, 4)] == []
    # Four that have logged less are not compared with: of six, 20 percent is one.
    young = {key: values if int(key) < 6 else values[:3] for key, values in runs.items()}
    assert [key for key in young if stopped(policy, young, key, 5)] == ["0"]


def test_a_young_run_is_compared_with_the_past_of_older_ones() -> None:
    policy = Policy("truncation", truncation_percentage=50)
    runs = {"old": [0.1, 0.9], "young": [0.2]}
    assert not stopped(policy, runs, "young", 1)
    assert stopped(policy, runs, "old", 1)


def test_finished_runs_can_be_left_out_of_a_truncation() -> None:
    policy = Policy("truncation", truncation_percentage=50)
    histories = {
        "done": History("maximize", [0.9], finished=True),
        "own": History("maximize", [0.5]),
    }
    assert reason_to_stop(policy, "own", histories, 1)
    alone = Policy("truncation", truncation_percentage=50, exclude_finished=True)
    assert not reason_to_stop(alone, "own", histories, 1)


def test_equal_runs_are_not_cut() -> None:
    runs = {str(number): [0.5] for number in range(10)}
    assert not any(stopped(Policy("truncation", truncation_percentage=50), runs, key, 1) for key in runs)


@given(st.lists(VALUES, min_size=1, max_size=20), GOALS, POLICIES)
def test_no_policy_stops_the_best(values: list[float], goal: Goal, policy: Policy) -> None:
    runs = {str(number): [value] for number, value in enumerate(values)}
    best = (max if goal == "maximize" else min)(runs, key=lambda key: runs[key][0])
    assert not stopped(policy, runs, best, 1, goal)


@given(st.lists(VALUES, min_size=2, max_size=12), GOALS, POLICIES)
def test_who_is_better_than_one_that_goes_on_goes_on(values: list[float], goal: Goal, policy: Policy) -> None:
    runs = {str(number): [value] for number, value in enumerate(values)}
    order = sorted(runs, key=lambda key: runs[key][0], reverse=goal == "maximize")
    fates = [stopped(policy, runs, key, 1, goal) for key in order]
    assert fates == sorted(fates), "first those that go on, then those that are stopped"


@given(st.lists(VALUES, min_size=1, max_size=10), POLICIES)
def test_minimizing_amounts_to_maximizing_the_opposite(values: list[float], policy: Policy) -> None:
    if policy.slack_factor is not None:
        return  # a ratio depends on which of the two numbers is the larger one
    runs = {str(number): [value] for number, value in enumerate(values)}
    mirrored = {key: [-item for item in row] for key, row in runs.items()}
    for key in runs:
        assert stopped(policy, runs, key, 1) == stopped(policy, mirrored, key, 1, "minimize")


@given(st.lists(st.just(float("nan")) | VALUES, max_size=30), GOALS)
def test_nan_counts_as_an_interval_and_as_nothing_else(values: list[float], goal: Goal) -> None:
    history = History(goal, values)
    numbers = [value for value in values if value == value]
    assert len(history) == len(values)
    if numbers:
        assert history.sign * history.best() == (max if goal == "maximize" else min)(numbers)
        assert history.average(len(values)) == pytest.approx(history.sign * sum(numbers) / len(numbers), abs=1e-6)
    else:
        assert history.average(len(values)) is None
    runs = {"nothing": [float("nan")], "one": [1.0]}
    assert stopped(Policy("bandit", slack_factor=0.1), runs, "nothing", 1)
    assert not stopped(Policy("bandit", slack_factor=0.1), {"nothing": [float("nan")]}, "nothing", 1)


def test_what_the_sdk_sends() -> None:
    hyperdrive = sdk("azureml.train.hyperdrive")

    def sent(policy: Any) -> Policy:
        return read_policy(json.loads(json.dumps(policy.to_json())))

    assert sent(hyperdrive.NoTerminationPolicy()) == Policy()
    assert sent(hyperdrive.BanditPolicy(2, slack_factor=0.1, delay_evaluation=4)) == Policy("bandit", 2, 4, 0.1)
    assert sent(hyperdrive.BanditPolicy(slack_amount=0.3)) == Policy("bandit", slack_amount=0.3)
    assert sent(hyperdrive.MedianStoppingPolicy(3, 5)) == Policy("median", 3, 5)
    truncation = sent(hyperdrive.TruncationSelectionPolicy(20, 2, 6))
    assert truncation == Policy("truncation", 2, 6, truncation_percentage=20)


@pytest.mark.parametrize(
    "document",
    [
        {"name": "Unknown"},
        {},
        {"name": "Bandit"},
        {"name": "Bandit", "properties": 3},
        {"name": "Bandit", "properties": {"slack_factor": 0.1, "slack_amount": 0.1}},
        {"name": "Bandit", "properties": {"slack_factor": -0.1}},
        {"name": "Bandit", "properties": {"slack_factor": float("nan")}},
        {"name": "Bandit", "properties": {"slack_factor": 0.1, "evaluation_interval": 0}},
        {"name": "MedianStopping", "properties": {"evaluation_interval": "1"}},
        {"name": "MedianStopping", "properties": {"delay_evaluation": -1}},
        {"name": "TruncationSelection", "properties": {}},
        {"name": "TruncationSelection", "properties": {"truncation_percentage": 100}},
    ],
)
def test_what_is_no_policy_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        read_policy(document)
    assert refused.value.status == 400
