"""Child runs on the page: a table that can be sorted, and the pictures of a search."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from himl_container.emulator.http import Request, parse_json
from himl_container.emulator.page.lists import run_duration
from himl_container.emulator.page.search_charts import (
    Cell,
    ParallelView,
    Point,
    ScatterView,
    parallel,
    scatter,
    shades,
)
from himl_container.emulator.page.words import number
from himl_container.emulator.state.metrics import Metrics
from himl_container.emulator.state.run import Run

MOST_CHILDREN = 500
"""Rows of the table; of more, the newest."""

_MOST_METRICS = 6


@dataclass(frozen=True)
class Column:
    """A column of the table. ``key`` is what the query names it by; ``numeric`` whether all that it has are numbers."""

    key: str
    title: str
    numeric: bool = False


@dataclass(frozen=True)
class ChildRow:
    """A row of the table, with a cell's text for each column."""

    run: Run
    cells: tuple[str, ...]
    best: bool = False


@dataclass(frozen=True)
class ChildrenView:
    """The child runs of a run.

    :param sort: key of the column by which they are sorted; :param descending: the largest first.
    :param total: how many there are.
    :param axes: columns from which the scatter plot's axes can be chosen; empty where the run is no search.
    :param metric: the primary metric; :param goal: ``maximize`` or ``minimize``. Empty where the run is no search.
    """

    columns: tuple[Column, ...]
    rows: tuple[ChildRow, ...]
    sort: str
    descending: bool
    total: int
    metric: str = ""
    goal: str = ""
    axes: tuple[str, ...] = ()
    parallel: ParallelView | None = None
    scatter: ScatterView | None = None


def children_view(parent: Run, children: Sequence[Run], metrics: Metrics, request: Request, now: float) -> ChildrenView:
    """Return the table of a run's children, and pictures where the run is a search.

    :param request: its query says how to sort (``sort``, ``order``) and what the scatter plot shows (``x``, ``y``).
    """
    total, children = len(children), children[-MOST_CHILDREN:]
    metric, goal = _primary(parent)
    parameters = {run.run_id: _parameters(run) for run in children}
    values = {run.run_id: _last_values(run, metrics, metric, goal) for run in children}
    names = list(dict.fromkeys(name for row in parameters.values() for name in row))
    logged = list(dict.fromkeys([*([metric] if metric else []), *(name for row in values.values() for name in row)]))
    logged = logged[:_MOST_METRICS]

    keys: dict[str, dict[str, Any]] = {
        run.run_id: {
            "run": run.number,
            "status": run.status.value,
            "duration": ((run.ended or now) - run.started) if run.started else None,
            **{f"p:{name}": parameters[run.run_id].get(name) for name in names},
            **{f"m:{name}": values[run.run_id].get(name) for name in logged},
        }
        for run in children
    }
    columns = (
        Column("run", "Run"),
        Column("status", "Status"),
        Column("duration", "Duration", numeric=True),
        *(Column(f"p:{name}", name, _all_numbers(row.get(name) for row in parameters.values())) for name in names),
        *(Column(f"m:{name}", name, numeric=True) for name in logged),
    )
    sort, descending = _order(request, columns, metric, goal)
    rank = shades({key: row.get(metric) for key, row in values.items()}, greater_is_better=goal == "maximize")
    best = parent.properties.get("best_child_run_id", "")
    rows = tuple(
        ChildRow(run, _texts(run, columns, keys[run.run_id], now), run.run_id == best)
        for run in _sorted(children, lambda run: keys[run.run_id].get(sort), descending)
    )
    if not metric:
        return ChildrenView(columns, rows, sort, descending, total)
    points = [
        Point(run.run_id, _label(run, parameters[run.run_id], values[run.run_id]), cells, rank[run.run_id])
        for run in children
        if (cells := {**parameters[run.run_id], **values[run.run_id]})
    ]
    axes = (*names, *logged)
    x = request.first("x") if request.first("x") in axes else (names or logged)[0] if axes else ""
    y = request.first("y") if request.first("y") in axes else metric
    return ChildrenView(
        columns,
        rows,
        sort,
        descending,
        total,
        metric,
        goal,
        axes,
        parallel(points, [*names, metric]),
        scatter(points, x, y) if x else None,
    )


def _primary(run: Run) -> tuple[str, str]:
    """Return the primary metric of a search and its goal; empty where the run is none."""
    if run.run_type != "hyperdrive":
        return "", ""
    try:
        document = parse_json(run.properties.get("primary_metric_config", ""))
        return str(document["name"]), str(document["goal"])
    except (ValueError, KeyError, TypeError):
        return "", ""  # anybody may change a run's properties


def _parameters(run: Run) -> dict[str, Cell]:
    try:
        document = parse_json(run.tags.get("hyperparameters") or "{}")
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    return {
        str(name): value
        if isinstance(value, int | float) and not isinstance(value, bool)
        else value
        if isinstance(value, str)
        else json.dumps(value)
        for name, value in document.items()
    }


def _last_values(run: Run, metrics: Metrics, metric: str, goal: str) -> dict[str, float]:
    """Return the last number of each metric; of the primary metric the best."""
    found = {}
    for name, points in metrics.series(run.run_id).items():
        values = [point.value for point in points]
        real = [value for value in values if not math.isnan(value)] or values
        found[name] = (max(real) if goal == "maximize" else min(real)) if name == metric else values[-1]
    return found


def _order(request: Request, columns: Sequence[Column], metric: str, goal: str) -> tuple[str, bool]:
    wanted = request.first("sort")
    if wanted in {column.key for column in columns}:
        return wanted, request.first("order") == "desc"
    return (f"m:{metric}", goal == "maximize") if metric else ("run", False)


def _sorted(children: Sequence[Run], key: Any, descending: bool) -> list[Run]:
    """Sort by a column: numbers before words, and what has no value at the end, whatever the direction."""
    there = [run for run in children if not _missing(key(run))]
    numbers = [run for run in there if not isinstance(key(run), str)]
    words = [run for run in there if isinstance(key(run), str)]
    missing = [run for run in children if run not in there]
    parts = [sorted(part, key=key, reverse=descending) for part in (numbers, words)]
    return [*(parts[1] + parts[0] if descending else parts[0] + parts[1]), *missing]


def _missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _texts(run: Run, columns: Sequence[Column], keys: Mapping[str, Any], now: float) -> tuple[str, ...]:
    fixed = {"run": run.display_name or run.run_id, "status": run.status.value, "duration": run_duration(run, now)}
    return tuple(fixed[column.key] if column.key in fixed else number(keys.get(column.key)) for column in columns)


def _label(run: Run, parameters: Mapping[str, Cell], values: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name} = {number(value)}" for name, value in {**parameters, **values}.items())
    return f"{run.display_name or run.run_id}: {shown}"


def _all_numbers(cells: Any) -> bool:
    return all(not isinstance(cell, str) for cell in cells)
