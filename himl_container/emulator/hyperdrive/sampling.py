"""Which parameters the children of a search get: grid, random, and Bayesian as random."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, Literal

from himl_container.emulator.hyperdrive.space import (
    MAX_OPTIONS,
    Expression,
    bad,
    count,
    distributions,
    points,
    sample,
)

Sampling = Literal["grid", "random", "bayesian"]

_METHODS: Mapping[str, Sampling] = {"grid": "grid", "random": "random", "bayesianoptimization": "bayesian"}
_SUPPORTED = {"grid": {"choice"}, "bayesian": {"choice", "quniform", "uniform"}}
_TRIES = 10_000
"""Draws in a row that were there before, after which a space counts as exhausted."""


def read_method(name: object, space: Mapping[str, Expression]) -> Sampling:
    """Return the sampling of a name on the wire.

    :raises Refusal: 400, there is none of this name, or it cannot do what the space asks for.
    """
    method = _METHODS.get(str(name).lower())
    if method is None:
        raise bad(f"there is no sampling {str(name)[:50]!r}")
    if method in _SUPPORTED:
        used = {kind for expression in space.values() for kind in distributions(expression)}
        if others := sorted(used - _SUPPORTED[method]):
            allowed = ", ".join(sorted(_SUPPORTED[method]))
            raise bad(f"{method} sampling takes only {allowed}, and the space has {', '.join(others)}")
    if method == "grid":
        for parameter, expression in space.items():
            if (count(expression) or 0) > MAX_OPTIONS:
                raise bad(f"parameter {parameter} has more than {MAX_OPTIONS} values")
    return method


def samples(method: Sampling, space: Mapping[str, Expression], seed: str) -> Iterator[dict[str, Any]]:
    """Yield the parameters of one child after the other, each once; ends where the space has no more.

    The same seed gives the same sequence, on every machine and in every version of Python.
    """
    if method == "grid":
        return _grid(space)
    sizes = [count(expression) for expression in space.values()]
    if all(size is not None for size in sizes):
        size = math.prod(size or 0 for size in sizes)
        if size <= MAX_OPTIONS:
            return _shuffled(space, seed)
    return _drawn(space, seed)


def _grid(space: Mapping[str, Expression]) -> Iterator[dict[str, Any]]:
    # product() holds the values of each parameter, of which there are not too many, and not their combinations.
    values = [points(expression) for expression in space.values()]
    return (dict(zip(space, row, strict=True)) for row in product(*(part or () for part in values)))


def _shuffled(space: Mapping[str, Expression], seed: str) -> Iterator[dict[str, Any]]:
    """Yield the points of a small space in a random order: drawing until the last is found would take too long."""
    draw = _draws(seed)
    rest = list(_grid(space))
    for last in range(len(rest) - 1, -1, -1):
        chosen = min(int(draw() * (last + 1)), last)
        rest[chosen], rest[last] = rest[last], rest[chosen]
        yield rest.pop()


def _drawn(space: Mapping[str, Expression], seed: str) -> Iterator[dict[str, Any]]:
    draw = _draws(seed)
    seen: set[str] = set()
    tries = 0
    while tries < _TRIES:
        values = {name: sample(expression, draw) for name, expression in space.items()}
        key = json.dumps(values, sort_keys=True)
        if key in seen:
            tries += 1
            continue
        seen.add(key)
        tries = 0
        yield values


def _draws(seed: str) -> Callable[[], float]:
    # Only random() itself is promised to stay the same between versions (docs.python.org, "Notes on Reproducibility").
    return random.Random(seed).random  # noqa: S311 - it is to be repeatable


def argument_words(parameters: Mapping[str, Any]) -> list[str]:
    """Return parameters as arguments of a script: ``--name value``, with the name as it is where it has a hyphen."""
    words = []
    for name, value in parameters.items():
        words += [name if name.startswith("-") else f"--{name}", as_text(value)]
    return words


def as_text(value: Any) -> str:
    """Return a value as a script gets it: text as it is, numbers as Python writes them, lists and objects as JSON."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, list | dict):
        return json.dumps(value)
    return str(value)
