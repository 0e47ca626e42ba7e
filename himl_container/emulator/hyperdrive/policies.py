"""Early termination: whether a child of a search is to be cancelled (``train/hyperdrive/policy.py`` of the SDK).

Each time a child logs the primary metric counts as one interval. A policy looks at a child at every multiple of
``evaluation_interval`` that is not below ``delay_evaluation``, and compares it with what others had reached by the same
interval. Where the SDK's docstrings leave something open, the reading is said at the place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from himl_container.emulator.hyperdrive.space import bad

Goal = Literal["maximize", "minimize"]
Kind = Literal["none", "bandit", "median", "truncation"]

_KINDS: Mapping[str, Kind] = {
    "default": "none",
    "bandit": "bandit",
    "medianstopping": "median",
    "truncationselection": "truncation",
}
_MAX_INTERVAL = 10**9


@dataclass(frozen=True)
class Policy:
    """An early termination policy.

    :param slack_factor, slack_amount: of the bandit policy; one of them is None.
    :param truncation_percentage: 1 to 99.
    :param exclude_finished: whether truncation compares only with children that still run.
    """

    kind: Kind = "none"
    evaluation_interval: int = 1
    delay_evaluation: int = 0
    slack_factor: float | None = None
    slack_amount: float | None = None
    truncation_percentage: int = 0
    exclude_finished: bool = False

    def due(self, interval: int) -> bool:
        """Whether the policy looks at a child at its interval of this number (from 1)."""
        return (
            self.kind != "none"
            and interval >= max(self.delay_evaluation, 1)
            and interval % self.evaluation_interval == 0
        )


class History:
    """What a child has logged of the primary metric, in the order of logging.

    Kept as what policies ask for, because they ask at every interval of every child: the best value and the sum so far.
    Both are signed so that more is better. NaN counts as an interval and is worse than any number.

    :param finished: whether the child has ended.
    """

    def __init__(self, goal: Goal, values: Iterable[float] = (), *, finished: bool = False) -> None:
        self.sign = 1.0 if goal == "maximize" else -1.0
        self.finished = finished
        self._best: list[float] = []
        self._sums: list[tuple[float, int]] = []
        for value in values:
            self.add(value)

    def __len__(self) -> int:
        return len(self._best)

    def add(self, value: float) -> None:
        """Add what was logged next."""
        total, number = self._sums[-1] if self._sums else (0.0, 0)
        if not math.isnan(value):
            total, number = total + self.sign * value, number + 1
        self._sums.append((total, number))
        self._best.append(max(self.best(), -math.inf if math.isnan(value) else self.sign * value))

    def best(self, interval: int | None = None) -> float:
        """Return the best value up to an interval, or of all; minus infinity where there is none."""
        values = self._best
        end = len(values) if interval is None else min(interval, len(values))
        return values[end - 1] if end else -math.inf

    def average(self, interval: int) -> float | None:
        """Return the average up to an interval; None where nothing was logged."""
        end = min(interval, len(self._sums))
        total, number = self._sums[end - 1] if end else (0.0, 0)
        return total / number if number else None


def read_policy(document: Mapping[str, Any]) -> Policy:
    """Read a policy as the SDK sends it.

    :raises Refusal: 400, there is none of this name, or a property is missing or out of range.
    """
    kind = _KINDS.get(str(document.get("name")).lower())
    if kind is None:
        raise bad(f"there is no early termination policy {str(document.get('name'))[:50]!r}")
    if kind == "none":
        return Policy()
    given = document.get("properties") or {}
    if not isinstance(given, Mapping):
        raise bad("the properties of the early termination policy are not an object")
    interval = _whole(given, "evaluation_interval", 1, low=1)
    delay = _whole(given, "delay_evaluation", 0, low=0)
    if kind == "bandit":
        factor, amount = _slack(given, "slack_factor"), _slack(given, "slack_amount")
        if (factor is None) is (amount is None):
            raise bad("the bandit policy has either slack_factor or slack_amount")
        return Policy(kind, interval, delay, slack_factor=factor, slack_amount=amount)
    if kind == "truncation":
        percentage = _whole(given, "truncation_percentage", 0, low=1, high=99)
        excluded = given.get("exclude_finished_jobs", False)
        return Policy(
            kind, interval, delay, truncation_percentage=percentage, exclude_finished=excluded in (True, "true", "True")
        )
    return Policy(kind, interval, delay)


def reason_to_stop(policy: Policy, own: str, histories: Mapping[str, History], interval: int) -> str:
    """Return why a child is to be cancelled at one of its intervals, in a sentence for the log; empty for go on.

    :param own: the child's key in ``histories``, which holds all children of the search.
    """
    if not policy.due(interval):
        return ""
    # All numbers below are signed so that more is better.
    mine, sign = histories[own].best(interval), histories[own].sign
    if policy.kind == "bandit":
        bound = _bandit_bound(policy, max(item.best(interval) for item in histories.values()))
        what = f"is outside the slack, which ends at {_shown(bound, sign)}"
    elif policy.kind == "median":
        # "The median of the running averages for intervals 1:N across all runs": of the child's own too, and of a run
        # that has not come to N the average of what it has.
        averages = [item.average(interval) for item in histories.values()]
        bound = median([average for average in averages if average is not None] or [-math.inf])
        what = f"is worse than the median of the running averages, {_shown(bound, sign)}"
    else:
        bound = _truncation_bound(policy, own, histories, interval)
        what = f"is among the lowest {policy.truncation_percentage} percent"
    return f"at interval {interval} its best value {_shown(mine, sign)} {what}" if mine < bound else ""


def _bandit_bound(policy: Policy, best: float) -> float:
    """Return the least value that is within the slack of the best one.

    The docstring's rule for a factor, ``Y + Y * factor < best``, is for positive metrics that are to be maximized, and
    so compares the smaller number plus its slack with the larger one. For minimizing that is ``best + best * factor
    < Y``. Of negative metrics the magnitude counts; else the best child would cancel itself.
    """
    if not math.isfinite(best):
        return best
    if policy.slack_amount is not None:
        return best - policy.slack_amount
    factor = policy.slack_factor or 0.0
    # The number of smaller magnitude is the base: of positive metrics the worse one when maximizing, else the best.
    return best / (1 + factor) if best > 0 else best * (1 + factor)


def _truncation_bound(policy: Policy, own: str, histories: Mapping[str, History], interval: int) -> float:
    """Return the least value that is not cut off.

    A child is compared with those that came as far as it has. Equal values are cut off together or not at all: not.
    """
    rivals = sorted(
        item.best(interval)
        for key, item in histories.items()
        if key == own or (len(item) >= interval and not (policy.exclude_finished and item.finished))
    )
    return rivals[len(rivals) * policy.truncation_percentage // 100]


def _shown(value: float, sign: float) -> str:
    return f"{sign * value:.6g}"


def _whole(given: Mapping[str, Any], name: str, default: int, *, low: int, high: int = _MAX_INTERVAL) -> int:
    found = given.get(name)
    number = default if found is None else found
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise bad(f"{name} is a whole number from {low} to {high}")
    return number


def _slack(given: Mapping[str, Any], name: str) -> float | None:
    found = given.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 1e300:
        raise bad(f"{name} is a number that is not below 0")
    return float(found)
