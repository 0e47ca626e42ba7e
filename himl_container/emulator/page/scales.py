"""From values to places in a picture: linear, logarithmic and categorical axes with their ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_LARGEST = 1e300
_SPREAD = 1000.0
"""From this ratio of the largest to the smallest value on, an axis of positive values is logarithmic."""


@dataclass(frozen=True)
class Tick:
    """A label of an axis. ``at`` is where it stands, in units of the picture."""

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """An axis.

    :param low, high: values at its ends (logarithms of ten, for a logarithmic one).
    :param start, end: where its ends are in the picture.
    :param names: of a categorical axis, in their order.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    names: tuple[str, ...] = ()
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """Return where a value stands."""
        number = math.log10(value) if self.log else value
        return round(self.start + (number - self.low) / (self.high - self.low) * (self.end - self.start), 2)

    def of(self, name: str) -> float:
        """Return where a category stands."""
        return self.at(float(self.names.index(name)))


def drawable(value: float) -> bool:
    """Whether a number has a place in a picture: finite, and not so large that differences have none."""
    return abs(value) < _LARGEST


def wants_log(values: Sequence[float]) -> bool:
    """Whether values are read better on a logarithmic axis: all above 0, and spread over three orders of magnitude."""
    finite = [value for value in values if drawable(value)]
    return bool(finite) and min(finite) > 1 / _LARGEST and max(finite) / _SPREAD >= min(finite)


def numeric(
    values: Iterable[float], start: float, end: float, *, log: bool = False, whole: bool = False, count: int = 5
) -> Scale:
    """Return an axis for numbers, of which those that cannot be drawn do not count.

    :param whole: whether ticks stand at whole numbers only; :param count: about how many ticks.
    """
    finite = [value for value in values if drawable(value)] or [0.0]
    if log:
        return _logarithmic(min(finite), max(finite), start, end)
    low, high = min(finite), max(finite)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        # A single value stands in the middle.
        margin = abs(low) / 2 or 0.5
        low, high = low - margin, high + margin
    step = _step(low / count, high / count, whole)
    first = math.floor(low / step)
    last = math.ceil(high / step)
    ticks = [number * step for number in range(first, last + 1)]
    scale = Scale(first * step, last * step, start, end)
    return _with(scale, ((tick, _label(tick, step)) for tick in ticks))


def categorical(names: Iterable[str], start: float, end: float) -> Scale:
    """Return an axis for words, in the order given."""
    found = tuple(dict.fromkeys(names))
    # Half a step of room at each end; a single word stands in the middle.
    scale = Scale(-0.5, len(found) - 0.5, start, end, names=found)
    return _with(scale, ((float(index), _shortened(name)) for index, name in enumerate(found)))


def _logarithmic(least: float, greatest: float, start: float, end: float) -> Scale:
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(greatest))
    high = max(high, low + 1)
    every = max(1, math.ceil((high - low) / 6))
    scale = Scale(low, high, start, end, log=True)
    return _with(scale, ((10.0**power, f"1e{power}") for power in range(low, high + 1, every) if power < 308))


def _with(scale: Scale, ticks: Iterable[tuple[float, str]]) -> Scale:
    placed = tuple(Tick(scale.at(value), label) for value, label in ticks)
    return Scale(scale.low, scale.high, scale.start, scale.end, scale.log, scale.names, placed)


def _step(low: float, high: float, whole: bool) -> float:
    """Return a round number for the distance of two ticks: 1, 2 or 5 times a power of ten."""
    raw = max(high - low, 1e-300)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= raw), 10 * power)
    return max(step, 1.0) if whole else step


def _label(value: float, step: float) -> str:
    if abs(value) < step / 2:
        return "0"
    if step >= 1e-4 and abs(value) < 1e6:
        return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
    return f"{value:.3g}"


def _shortened(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
