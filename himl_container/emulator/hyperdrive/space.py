"""Parameter expressions: what a search may try for one parameter (``train/hyperdrive/parameter_expressions.py``).

On the wire an expression is ``[name, [arguments]]``. Every distribution is computed from one number between 0 and 1, so
that a search draws the same values in every version of Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist
from typing import Any

from himl_container.emulator.http import Refusal

Draw = Callable[[], float]
"""Returns the next number of a sequence, at least 0 and below 1."""

MAX_OPTIONS = 100_000
"""Of one choice; and how many points a grid may have that is walked through."""

_DEEPEST = 8
# What keeps every result, also divided by q, inside a double.
_LARGEST = 1e280
_LARGEST_EXPONENT = 640.0
_LEAST_Q = 1e-9
_FARTHEST = 9.0  # sigmas that a draw of 53 bits can lie from the mean
_STANDARD = NormalDist()


@dataclass(frozen=True)
class Choice:
    """One of several options, each as likely. An option may be an expression, or an object or list that holds some."""

    options: tuple[Any, ...]


@dataclass(frozen=True)
class Distribution:
    """A number.

    :param numbers: the arguments, as they were given: a ``q`` that is an ``int`` gives whole numbers of type ``int``.
    """

    name: str
    numbers: tuple[float, ...]


Expression = Choice | Distribution

_ARGUMENTS = {
    "randint": 1,
    "uniform": 2,
    "quniform": 3,
    "loguniform": 2,
    "qloguniform": 3,
    "normal": 2,
    "qnormal": 3,
    "lognormal": 2,
    "qlognormal": 3,
}
NAMES = ("choice", *_ARGUMENTS)


def read_space(document: object) -> dict[str, Expression]:
    """Read a parameter space: name → expression.

    :raises Refusal: 400, it is empty, or an expression is none, or can give no number.
    """
    if not isinstance(document, Mapping) or not document:
        raise bad("parameter_space has no parameter")
    return {_parameter(name): read_expression(value, str(name)) for name, value in document.items()}


def read_expression(document: object, where: str, depth: int = 0) -> Expression:
    """Read one expression.

    :param where: the parameter's name, for the error.
    :raises Refusal: 400, it is none, or can give no number.
    """
    if not _is_expression(document):
        raise bad(f"parameter {where}: this is not an expression of {', '.join(NAMES)}")
    assert isinstance(document, Sequence)
    name, arguments = document[0].lower(), document[1]
    if name != "choice":
        return _distribution(name, arguments, where)
    options = arguments[0] if len(arguments) == 1 else None
    if not isinstance(options, list) or not options:
        raise bad(f"parameter {where}: choice has no options")
    if len(options) > MAX_OPTIONS:
        raise bad(f"parameter {where}: choice has more than {MAX_OPTIONS} options")
    if depth >= _DEEPEST:
        raise bad(f"parameter {where}: choices are nested deeper than {_DEEPEST}")
    return Choice(tuple(_option(option, where, depth + 1) for option in options))


def sample(expression: Expression, draw: Draw) -> Any:
    """Draw a value."""
    if isinstance(expression, Distribution):
        return _FORMULAS[expression.name](*expression.numbers, draw())
    return _sample_option(
        expression.options[min(int(draw() * len(expression.options)), len(expression.options) - 1)], draw
    )


def points(expression: Expression) -> Iterator[Any] | None:
    """Return all values of an expression, in order; None where there is no end of them (a distribution)."""
    if isinstance(expression, Distribution):
        return iter(range(int(expression.numbers[0]))) if expression.name == "randint" else None
    parts = [_option_points(option) for option in expression.options]
    known = [part for part in parts if part is not None]
    return (value for part in known for value in part) if len(known) == len(parts) else None


def count(expression: Expression) -> int | None:
    """Return how many values :func:`points` has, without making them."""
    if isinstance(expression, Distribution):
        return int(expression.numbers[0]) if expression.name == "randint" else None
    counts = [_option_count(option) for option in expression.options]
    known = [number for number in counts if number is not None]
    return sum(known) if len(known) == len(counts) else None


def distributions(expression: Expression) -> set[str]:
    """Return the names of all expressions inside one, its own too."""
    if isinstance(expression, Distribution):
        return {expression.name}
    found = {"choice"}
    for option in expression.options:
        found |= _inside(option)
    return found


def bad(text: str) -> Refusal:
    """Return the refusal of a search that cannot be carried out."""
    return Refusal(400, "UserError", f"The HyperDrive configuration cannot be used: {text}.")


# --- reading ---


def _parameter(name: object) -> str:
    text = str(name)
    if not text.strip("-") or len(text) > 255 or not text.isprintable() or any(letter.isspace() for letter in text):
        raise bad(f"{text[:50]!r} is not the name of a parameter")
    return text


def _is_expression(document: object) -> bool:
    return (
        isinstance(document, list)
        and len(document) == 2
        and isinstance(document[0], str)
        and document[0].lower() in NAMES
        and isinstance(document[1], list)
    )


def _option(option: object, where: str, depth: int) -> Any:
    """Read an option: expressions wherever they are in it, everything else as it is."""
    if _is_expression(option):
        return read_expression(option, where, depth)
    if depth > _DEEPEST:
        raise bad(f"parameter {where}: options are nested deeper than {_DEEPEST}")
    if isinstance(option, list):
        return [_option(item, where, depth + 1) for item in option]
    if isinstance(option, dict):
        return {str(name): _option(item, where, depth + 1) for name, item in option.items()}
    if isinstance(option, float) and not math.isfinite(option):
        raise bad(f"parameter {where}: an option is not a finite number")
    return option


def _distribution(name: str, arguments: Sequence[object], where: str) -> Distribution:
    numbers = tuple(
        number
        for number in arguments
        if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < _LARGEST
    )
    if len(numbers) != len(arguments) or len(numbers) != _ARGUMENTS[name]:
        raise bad(f"parameter {where}: {name} has {_ARGUMENTS[name]} finite numbers as arguments")
    if name == "randint":
        if not isinstance(numbers[0], int) or numbers[0] < 1:
            raise bad(f"parameter {where}: randint has a whole number above 0")
        return Distribution(name, numbers)
    if name.startswith("q") and numbers[2] < _LEAST_Q:
        raise bad(f"parameter {where}: q is at least {_LEAST_Q}")
    first, second = numbers[0], numbers[1]
    if "uniform" in name:
        if first > second or (first == second and "log" not in name):
            raise bad(f"parameter {where}: the least value of {name} is not below the greatest")
        greatest = second
    else:
        if second < 0:
            raise bad(f"parameter {where}: sigma is not below 0")
        greatest = first + _FARTHEST * second
    if "log" in name and greatest > _LARGEST_EXPONENT:
        raise bad(f"parameter {where}: {name} can give numbers that are too large; its arguments are logarithms")
    return Distribution(name, numbers)


# --- drawing ---


def _uniform(low: float, high: float, chance: float) -> float:
    # Rounding may give a number just outside.
    return min(max(low + (high - low) * chance, low), high)


def _normal(mu: float, sigma: float, chance: float) -> float:
    # The least number above 0 that a draw of 53 bits has.
    return mu + sigma * _STANDARD.inv_cdf(max(chance, 2.0**-54))


def _quantized(value: float, q: float) -> float:
    return round(value / q) * q


_FORMULAS: dict[str, Callable[..., float]] = {
    # As the SDK's docstrings give them; randint has its numbers below the upper one.
    "randint": lambda upper, chance: min(int(upper * chance), upper - 1),
    "uniform": _uniform,
    "quniform": lambda low, high, q, chance: _quantized(_uniform(low, high, chance), q),
    "loguniform": lambda low, high, chance: math.exp(_uniform(low, high, chance)),
    "qloguniform": lambda low, high, q, chance: _quantized(math.exp(_uniform(low, high, chance)), q),
    "normal": _normal,
    "qnormal": lambda mu, sigma, q, chance: _quantized(_normal(mu, sigma, chance), q),
    "lognormal": lambda mu, sigma, chance: math.exp(_normal(mu, sigma, chance)),
    "qlognormal": lambda mu, sigma, q, chance: _quantized(math.exp(_normal(mu, sigma, chance)), q),
}


def _sample_option(option: Any, draw: Draw) -> Any:
    if isinstance(option, Choice | Distribution):
        return sample(option, draw)
    if isinstance(option, list):
        return [_sample_option(item, draw) for item in option]
    if isinstance(option, dict):
        return {name: _sample_option(item, draw) for name, item in option.items()}
    return option


# --- walking through ---


def _option_points(option: Any) -> Iterator[Any] | None:
    if isinstance(option, Choice | Distribution):
        return points(option)
    if isinstance(option, list | dict):
        items = list(option.values()) if isinstance(option, dict) else option
        parts = [_option_points(item) for item in items]
        known = [part for part in parts if part is not None]
        if len(known) != len(parts):
            return None
        names = list(option) if isinstance(option, dict) else None
        return (list(row) if names is None else dict(zip(names, row, strict=True)) for row in product(*known))
    return iter((option,))


def _option_count(option: Any) -> int | None:
    if isinstance(option, Choice | Distribution):
        return count(option)
    if isinstance(option, list | dict):
        counts = [_option_count(item) for item in (option.values() if isinstance(option, dict) else option)]
        known = [number for number in counts if number is not None]
        return math.prod(known) if len(known) == len(counts) else None
    return 1


def _inside(option: Any) -> set[str]:
    if isinstance(option, Choice | Distribution):
        return distributions(option)
    items = option.values() if isinstance(option, dict) else option if isinstance(option, list) else ()
    return {name for item in items for name in _inside(item)}
