"""Metrics as JSON, in the form of today (``MetricV2Dto``) and in the one before it (``RunMetricDto``)."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from himl_container.emulator.http import Refusal
from himl_container.emulator.services.odata import seconds
from himl_container.emulator.state.metrics import ARTIFACT, LIST, SCALAR, TABLE, Metric, Value
from himl_container.emulator.state.run import Run, iso

_LONGEST_NAME = 512
_NUMBERS = ("double", "float")


def metric_of(document: Mapping[str, Any], now: float) -> Metric:
    """Return a metric of today's form.

    :param now: the time of values that say none; seconds since the epoch.
    :raises Refusal: 400, it has another form.
    """
    properties, columns, values = document.get("properties"), document.get("columns"), document.get("value")
    if not isinstance(columns, dict) or not isinstance(values, list):
        raise _bad("has no columns or no values")
    kind = properties.get("uxMetricType") if isinstance(properties, dict) else None
    return Metric(
        _name(document),
        str(kind or SCALAR),
        {str(name): _type(kind) for name, kind in columns.items()},
        tuple(_value(value, now) for value in values),
    )


def legacy_metric(document: Mapping[str, Any], now: float) -> Metric:
    """Return a metric of the older form, which says the value cell by cell: ``[{"a": 1}, {"a": 2}, {"b": 3}, ...]``.

    :raises Refusal: 400, it has another form.
    """
    name, kind = _name(document), str(document.get("metricType") or SCALAR)
    schema = document.get("schema")
    declared = schema.get("properties") if isinstance(schema, dict) else None
    columns = {
        str(item.get("propertyId")): _type(item.get("type")) for item in declared or () if isinstance(item, dict)
    }
    cells = document.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise _bad("has no cells")
    metric_id, time = str(document.get("metricId") or uuid.uuid4()), _time(document, now)
    if kind not in (SCALAR, LIST, TABLE):
        inside = cells[0].get(name) if cells else None
        rows: list[dict[str, Any]] = [{name: document.get("dataLocation") or inside}]
        columns = {name: ARTIFACT}
    elif kind == TABLE:
        rows = _rows(cells)
    else:
        rows = [dict(cell) for cell in cells]
    # Several rows have one id in this form, and one each in ours.
    ids = (metric_id if number == 0 else f"{metric_id}.{number}" for number in range(len(rows)))
    return Metric(name, kind, columns, tuple(Value(one, time, row) for one, row in zip(ids, rows, strict=False)))


def _rows(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for cell in cells:
        for column, value in cell.items():
            number = seen.get(column, 0)
            seen[column] = number + 1
            if number == len(rows):
                rows.append({})
            rows[number][column] = value
    return rows


def metric_document(metric: Metric, run: Run, token: str | None) -> dict[str, Any]:
    """Return a metric of today's form.

    :param token: where its next page begins.
    """
    return {
        "dataContainerId": run.data_container_id,
        "name": metric.name,
        "columns": dict(metric.columns),
        "value": [
            {
                "metricId": value.metric_id,
                "createdUtc": iso(value.created),
                "step": value.step,
                "data": _cells(metric, value),
            }
            for value in metric.values
        ],
        "continuationToken": token,
        "nextLink": None,
        "properties": {"uxMetricType": metric.kind},
    }


def legacy_documents(metric: Metric, run: Run) -> Iterator[dict[str, Any]]:
    """Yield a metric's values in the older form, one document each, which the SDK puts together again."""
    properties = [
        {"propertyId": column, "name": metric.name, "type": "string" if kind == ARTIFACT else kind}
        for column, kind in metric.columns.items()
    ]
    inline = metric.kind in (SCALAR, LIST, TABLE)
    for value in metric.values:
        yield {
            "runId": run.run_id,
            "metricId": value.metric_id,
            "metricType": metric.kind,
            "createdUtc": iso(value.created),
            "name": metric.name,
            "description": "",
            "label": None,
            "numCells": 1,
            "dataLocation": None if inline else value.data.get(metric.name),
            "cells": [_cells(metric, value)] if inline else [{metric.name: None}],
            "schema": {"numProperties": len(properties), "properties": properties},
        }


def _cells(metric: Metric, value: Value) -> dict[str, Any]:
    """Return a cell for every column: the SDK raises where one is missing, or is no number in a column of numbers."""
    cells = {}
    for column, kind in metric.columns.items():
        cell = value.data.get(column)
        cells[column] = math.nan if cell is None and kind in _NUMBERS else cell
    return cells


def _value(document: object, now: float) -> Value:
    if not isinstance(document, dict) or not isinstance(document.get("data"), dict):
        raise _bad("has a value without data")
    step = document.get("step")
    if step is not None and (not isinstance(step, int) or abs(step) >= 2**63):
        raise _bad("has a step that is not a whole number")
    return Value(str(document.get("metricId") or uuid.uuid4()), _time(document, now), document["data"], step)


def _time(document: Mapping[str, Any], now: float) -> float:
    given = document.get("createdUtc")
    return seconds(str(given)) if given else now


def _name(document: Mapping[str, Any]) -> str:
    name = document.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise _bad(f"has no name of 1 to {_LONGEST_NAME} letters")
    return name


def _type(kind: object) -> str:
    kind = str(kind or "none").lower()
    return "double" if kind == "float" else kind


def _bad(what: str) -> Refusal:
    return Refusal(400, "UserError", f"A metric {what}.")
