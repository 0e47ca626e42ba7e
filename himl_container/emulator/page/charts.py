"""Line charts of metrics, as geometry that a template draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from himl_container.emulator.page.scales import Scale, drawable, numeric, wants_log
from himl_container.emulator.state.metrics import Metric, Point

WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 44

STYLES = 8
"""How many lines can be told apart by colour and dashes; a chart has no more."""

_MOST_POINTS = 600
"""Of a line: more than the picture has columns would be drawn one over the other."""

_ROWS = 200
_NUMBERS = ("int", "double")
_COUNTERS = ("epoch", "step", "iteration", "global_step")
"""Columns of a table by which its rows are counted."""


@dataclass(frozen=True)
class Line:
    """One line.

    :param path: of SVG; :param dots: places of single points, which a path does not show.
    :param style: which of the colours.
    """

    label: str
    style: int
    path: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """A picture.

    :param summary: the same in a sentence, for who cannot see it.
    :param columns, rows: the same as a table; of a long series, every so many values.
    """

    title: str
    x_label: str
    y_label: str
    x: Scale
    y: Scale
    lines: tuple[Line, ...]
    summary: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def metric_charts(heads: Iterable[Metric], series: Mapping[str, Sequence[Point]]) -> list[Chart]:
    """Return a chart for each metric that was logged more than once; columns of one table share a chart.

    :param heads: metrics without their values; :param series: as ``Metrics.series`` names them.
    """
    charts = []
    for head in heads:
        prefix = "" if head.name in head.columns else f"{head.name}."
        columns = [column for column, kind in head.columns.items() if kind in _NUMBERS]
        group = {column: series[prefix + column] for column in columns if len(series.get(prefix + column, ())) > 1}
        x_name = next((column for column in group if prefix and column.lower() in _COUNTERS), "")
        if x_name and len(group) > 1 and all(len(points) == len(group[x_name]) for points in group.values()):
            counter = group.pop(x_name)
            group = {name: _placed(points, counter) for name, points in group.items()}
        else:
            x_name = ""
        if group:
            charts.append(line_chart(head.name, group, x_name))
    return charts


def _placed(points: Sequence[Point], counter: Sequence[Point]) -> list[Point]:
    """Take the steps of a table's rows from one of its columns, as far as it counts in whole numbers."""
    return [
        point._replace(step=int(place.value) if drawable(place.value) and place.value == int(place.value) else None)
        for point, place in zip(points, counter, strict=True)
    ]


def line_chart(title: str, group: Mapping[str, Sequence[Point]], x_name: str = "") -> Chart:
    """Return a chart of several series, of which the first :data:`STYLES` are shown.

    :param x_name: what the steps count; empty for ``step``.
    """
    shown = dict(list(group.items())[:STYLES])
    steps = all(_has_steps(points) for points in shown.values())
    places = {
        name: [
            (float(point.step) if steps and point.step is not None else index + 1.0, point.value)
            for index, point in enumerate(points)
        ]
        for name, points in shown.items()
    }
    values = [value for points in places.values() for _, value in points]
    x = numeric((place for points in places.values() for place, _ in points), LEFT, WIDTH - RIGHT, whole=True, count=8)
    y = numeric(values, HEIGHT - BOTTOM, TOP, log=wants_log(values))
    lines = tuple(Line(name, style, *_drawn(points, x, y)) for style, (name, points) in enumerate(places.items()))
    return Chart(
        title=title,
        x_label=(x_name or "step") if steps else "value logged, counted from 1",
        y_label=f"{title} (logarithmic)" if y.log else title,
        x=x,
        y=y,
        lines=lines,
        summary="; ".join(_summary(name, points) for name, points in places.items()),
        columns=((x_name or "step") if steps else "number", *places),
        rows=_table(places),
    )


def _has_steps(points: Sequence[Point]) -> bool:
    steps = [point.step for point in points]
    return None not in steps and len(set(steps)) == len(steps)


def _drawn(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> tuple[str, tuple[tuple[float, float], ...]]:
    """Return the path of a line, interrupted where a value cannot be drawn, and the dots."""
    path: list[str] = []
    pieces: list[list[tuple[float, float]]] = [[]]
    for place, value in _thinned(sorted(points, key=lambda point: point[0])):
        if drawable(value):
            pieces[-1].append((x.at(place), y.at(value)))
        elif pieces[-1]:
            pieces.append([])
    for piece in pieces:
        path += [f"{'L' if index else 'M'}{a} {b}" for index, (a, b) in enumerate(piece)]
    few = len(points) <= 40
    return "".join(path), tuple(dot for piece in pieces for dot in piece if few or len(piece) == 1)


def _thinned(points: Sequence[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """Keep the least and the greatest of every few points, so that no peak is lost."""
    if len(points) <= _MOST_POINTS:
        return points
    size = math.ceil(len(points) / (_MOST_POINTS // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        part = [point for point in points[start : start + size] if drawable(point[1])]
        if part:
            ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
            kept += sorted(ends)
        else:
            kept.append(points[start])
    return kept


def _summary(name: str, points: Sequence[tuple[float, float]]) -> str:
    finite = [value for _, value in points if drawable(value)]
    if not finite:
        return f"{name}: {len(points)} values, none of them a finite number"
    return f"{name}: {len(points)} values between {min(finite):.6g} and {max(finite):.6g}, the last {points[-1][1]:.6g}"


def _table(places: Mapping[str, Sequence[tuple[float, float]]]) -> tuple[tuple[str, ...], ...]:
    by_place = {name: dict(points) for name, points in places.items()}
    keys = sorted({place for points in places.values() for place, _ in points})
    every = math.ceil(len(keys) / _ROWS)
    wanted = [*keys[::every], *([keys[-1]] if (len(keys) - 1) % every else [])]
    return tuple(
        (f"{key:g}", *(f"{by_place[name][key]:.6g}" if key in by_place[name] else "" for name in places))
        for key in wanted
    )
