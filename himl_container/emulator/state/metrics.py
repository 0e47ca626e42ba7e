"""Metrics of runs: what was logged under which name, in which columns, at which step."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from himl_container.emulator.http import Refusal, not_found
from himl_container.emulator.state.database import Database

SCALAR, LIST, TABLE = "azureml.v1.scalar", "azureml.v1.list", "azureml.v1.table"
"""Kinds whose values are in the metric itself (``core/_metrics.py`` of the SDK, ``INLINE_METRICS``)."""

ARTIFACT = "artifact"
"""Type of the column of a metric whose value is a file of the run (images, confusion matrices and the like)."""


class Point(NamedTuple):
    """One number of a series. ``step`` is what the script gave, or None; ``time`` in seconds since the epoch."""

    step: int | None
    value: float
    time: float


@dataclass(frozen=True)
class Value:
    """What one call logged, or one row of it.

    :param metric_id: chosen by the client; a value that is sent again (a retry) is stored once.
    :param data: a cell for each column.
    """

    metric_id: str
    created: float
    data: Mapping[str, Any]
    step: int | None = None


@dataclass(frozen=True)
class Metric:
    """A metric of a run.

    :param kind: the SDK's ``uxMetricType``.
    :param columns: name → type (``int``, ``double``, ``string``, ``bool``, ``none``, ``artifact``), in the order of
        their first value.
    """

    name: str
    kind: str
    columns: Mapping[str, str]
    values: tuple[Value, ...] = field(default=())


@dataclass(frozen=True)
class Rejected:
    """A metric that was not stored, and why."""

    metric: Metric
    reason: str


_TABLES = """
CREATE TABLE IF NOT EXISTS metrics (
    run_id TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, columns TEXT NOT NULL, PRIMARY KEY (run_id, name));
CREATE TABLE IF NOT EXISTS metric_values (
    number INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, name TEXT NOT NULL, metric_id TEXT NOT NULL,
    created REAL NOT NULL, step INTEGER, data TEXT NOT NULL, UNIQUE (run_id, metric_id));
CREATE INDEX IF NOT EXISTS metric_values_of_run ON metric_values (run_id, name, created, number);
"""


class Metrics:
    """All metrics of all runs."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        database.make_tables(_TABLES)

    def add(self, run_id: str, metrics: Iterable[Metric]) -> list[Rejected]:
        """Append values in one transaction.

        A metric keeps the kind that it was first logged with. Columns may be added and an ``int`` column becomes
        ``double``; what contradicts that is returned and not stored, the rest is.
        """
        rejected = []
        with self._database.write() as connection:
            for metric in metrics:
                known = self._head(run_id, metric.name)
                reason = "" if known is None else _conflict(known, metric)
                if reason:
                    rejected.append(Rejected(metric, reason))
                    continue
                columns = _joined({} if known is None else known.columns, metric.columns)
                if known is None or columns != known.columns:
                    connection.execute(
                        "INSERT INTO metrics VALUES (?, ?, ?, ?)"
                        " ON CONFLICT (run_id, name) DO UPDATE SET columns = excluded.columns",
                        (run_id, metric.name, metric.kind, json.dumps(columns)),
                    )
                connection.executemany(
                    "INSERT OR IGNORE INTO metric_values (run_id, name, metric_id, created, step, data)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (run_id, metric.name, v.metric_id, v.created, v.step, json.dumps(dict(v.data)))
                        for v in metric.values
                    ],
                )
        return rejected

    def heads(self, run_id: str) -> list[Metric]:
        """Return a run's metrics without their values, in the order in which they were first logged."""
        rows = self._database.rows("SELECT * FROM metrics WHERE run_id = ? ORDER BY rowid", (run_id,))
        return [_metric(row) for row in rows]

    def metric(
        self,
        run_id: str,
        name: str,
        *,
        start: float = -math.inf,
        end: float = math.inf,
        after: str = "",
        limit: int = -1,
    ) -> tuple[Metric, str]:
        """Return a metric with its values in the order of logging, and where the next page begins (empty: nowhere).

        The SDK sends batches side by side, so the order is that of the values' times, not that of their arrival.

        :param start: oldest time of a value; :param end: newest time; seconds since the epoch.
        :param after: what the page before returned; :param limit: how many values at most, -1 for all.
        :raises Refusal: 404, nothing was logged under that name; 400, ``after`` is nothing that was returned.
        """
        head = self._head(run_id, name)
        if head is None:
            raise not_found(f"Metric {name} of run {run_id}")
        rows = self._database.rows(
            "SELECT * FROM metric_values WHERE run_id = ? AND name = ? AND (created, number) > (?, ?)"
            " AND created >= ? AND created <= ? ORDER BY created, number LIMIT ?",
            (run_id, name, *_position(after), start, end, limit),
        )
        following = f"{rows[-1]['created']!r}/{rows[-1]['number']}" if len(rows) == limit else ""
        return replace(head, values=tuple(_value(row) for row in rows)), following

    def series(self, run_id: str) -> Mapping[str, Sequence[Point]]:
        """Return every column of numbers as a series, in the order of logging.

        The series of a scalar or a list has the metric's name, that of a row or a table is ``name.column``. What is
        not a number is left out.
        """
        found: dict[str, list[Point]] = {}
        sql = "SELECT name, step, created, data FROM metric_values WHERE run_id = ? ORDER BY created, number"
        for row in self._database.rows(sql, (run_id,)):
            for column, cell in json.loads(row["data"]).items():
                number = _number(cell)
                if number is not None:
                    series = row["name"] if column == row["name"] else f"{row['name']}.{column}"
                    found.setdefault(series, []).append(Point(row["step"], number, row["created"]))
        return found

    def numbers(self, run_id: str, name: str, after: int = 0) -> tuple[list[float], int]:
        """Return the numbers of one series in the order of arrival, and where the next call goes on.

        :param name: of a scalar or a list; :param after: what the call before returned.
        """
        sql = "SELECT number, data FROM metric_values WHERE run_id = ? AND name = ? AND number > ? ORDER BY number"
        rows = self._database.rows(sql, (run_id, name, after))
        cells = (_number(json.loads(row["data"]).get(name)) for row in rows)
        found = [cell for cell in cells if cell is not None]
        return found, rows[-1]["number"] if rows else after

    def _head(self, run_id: str, name: str) -> Metric | None:
        row = self._database.row("SELECT * FROM metrics WHERE run_id = ? AND name = ?", (run_id, name))
        return None if row is None else _metric(row)


def _number(cell: object) -> float | None:
    if not isinstance(cell, (int, float)):
        return None
    try:
        return float(cell)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf if cell > 0 else -math.inf


def _conflict(known: Metric, new: Metric) -> str:
    if known.kind != new.kind:
        return f"Metric {new.name} was first logged as {known.kind}, and now as {new.kind}."
    for column, kind in new.columns.items():
        old = known.columns.get(column, kind)
        if _wider(old, kind) is None:
            return f"Column {column} of metric {new.name} was first logged as {old}, and now as {kind}."
    return ""


def _joined(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    joined = dict(old)
    for column, kind in new.items():
        joined[column] = _wider(joined.get(column, kind), kind) or kind
    return joined


def _wider(old: str, new: str) -> str | None:
    if new in (old, "none"):
        return old
    if old == "none":
        return new
    return "double" if {old, new} == {"int", "double"} else None


def _position(token: str) -> tuple[float, int]:
    created, _, number = (token or "-inf/0").partition("/")
    with suppress(ValueError):
        if len(number) < 19:  # SQLite's numbers have 64 bits
            return float(created), int(number)
    raise Refusal(400, "UserError", "The continuation token is not one of this service.")


def _metric(row: sqlite3.Row) -> Metric:
    return Metric(row["name"], row["kind"], json.loads(row["columns"]))


def _value(row: sqlite3.Row) -> Value:
    return Value(row["metric_id"], row["created"], json.loads(row["data"]), row["step"])
