"""Hyperparameters and metrics as a flat table: what a run of AzureML can show."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

Primitive = bool | int | float | str


def flat(params: Any) -> dict[str, Primitive]:
    """Return hyperparameters by name: nested ones as ``outer/inner``, what is no number or text as its text.

    :param params: a mapping, an :class:`argparse.Namespace`, or None.
    """
    return {name: _primitive(value) for name, value in _leaves(params)}


def flat_metrics(metrics: Any) -> dict[str, Any]:
    """Return metrics by name: nested ones as ``outer/inner``, tensors and numpy's numbers as plain numbers."""
    return {name: _number(value) for name, value in _leaves(metrics)}


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if not isinstance(value, Mapping):
        if prefix:
            yield prefix, value
        return
    for name, inner in value.items():
        yield from _leaves(inner, f"{prefix}/{name}" if prefix else str(name))


def _primitive(value: Any) -> Primitive:
    if isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _number(value: Any) -> Any:
    # Tensors and numpy's scalars have it; PyTorch is not imported to ask.
    item = getattr(value, "item", None)
    return item() if callable(item) else value
