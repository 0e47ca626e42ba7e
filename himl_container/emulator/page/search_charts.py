"""Pictures of a search: parallel coordinates of its children, and a scatter plot of two of their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from himl_container.emulator.page.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from himl_container.emulator.page.scales import Scale, categorical, drawable, numeric, wants_log

MOST_CHILDREN = 500
"""That a picture shows; of more, the first."""

SHADES = 5
"""Colours from the best fifth of the children to the worst; one more for those without the primary metric."""

_MOST_AXES = 10
_PARALLEL_WIDTH = 1160
_AXIS_TOP, _AXIS_BOTTOM = 44, 300

Cell = float | str
"""A number, or a word for everything else."""


@dataclass(frozen=True)
class Point:
    """One child.

    :param cells: its parameters and its primary metric.
    :param shade: 0 for the best fifth; :data:`SHADES` where it has not logged the primary metric.
    """

    run_id: str
    label: str
    cells: Mapping[str, Cell]
    shade: int


@dataclass(frozen=True)
class AxisView:
    """An axis of parallel coordinates. ``at`` is its place from the left."""

    name: str
    at: float
    scale: Scale


@dataclass(frozen=True)
class Mark:
    """A child in a picture: a line (``path``) or a dot (``x``, ``y``)."""

    point: Point
    path: str = ""
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class ParallelView:
    """Parallel coordinates."""

    width: int
    height: int
    axes: tuple[AxisView, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class ScatterView:
    """A scatter plot of two columns."""

    x_name: str
    y_name: str
    x: Scale
    y: Scale
    marks: tuple[Mark, ...]


def shades(values: Mapping[str, float | None], *, greater_is_better: bool) -> dict[str, int]:
    """Return the shade of each child by the rank of its primary metric."""
    known = {key: value for key, value in values.items() if value is not None and drawable(value)}
    order = sorted(known.values(), reverse=greater_is_better)
    return {key: order.index(known[key]) * SHADES // len(order) if key in known else SHADES for key in values}


def parallel(points: Sequence[Point], columns: Sequence[str]) -> ParallelView | None:
    """Return parallel coordinates of children; None where there is nothing to compare."""
    points = points[:MOST_CHILDREN]
    columns = [*columns[: _MOST_AXES - 1], columns[-1]] if len(columns) > _MOST_AXES else list(columns)
    if len(columns) < 2 or not points:
        return None
    width = max(_PARALLEL_WIDTH, 130 * len(columns))
    axes = tuple(
        AxisView(name, 70 + index * (width - 160) / (len(columns) - 1), _scale(points, name, _AXIS_BOTTOM, _AXIS_TOP))
        for index, name in enumerate(columns)
    )
    marks = []
    # The best are drawn last, above the others.
    for point in sorted(points, key=lambda point: -point.shade):
        places = [(axis.at, _place(axis.scale, point.cells.get(axis.name))) for axis in axes]
        # A line is interrupted where a child has no such value.
        drawn, begun = "", False
        for at, place in places:
            drawn += "" if place is None else f"{'L' if begun else 'M'}{at:g} {place:g}"
            begun = place is not None
        marks.append(Mark(point, path=drawn))
    return ParallelView(width, _AXIS_BOTTOM + 24, axes, tuple(marks))


def scatter(points: Sequence[Point], x_name: str, y_name: str) -> ScatterView | None:
    """Return a scatter plot of two columns; None where no child has both."""
    both = [point for point in points if point.cells.get(x_name) is not None and point.cells.get(y_name) is not None]
    if not both:
        return None
    x = _scale(both, x_name, LEFT, WIDTH - RIGHT)
    y = _scale(both, y_name, HEIGHT - BOTTOM, TOP)
    marks = []
    for point in sorted(both[:MOST_CHILDREN], key=lambda point: -point.shade):
        at_x, at_y = _place(x, point.cells[x_name]), _place(y, point.cells[y_name])
        if at_x is not None and at_y is not None:
            marks.append(Mark(point, x=at_x, y=at_y))
    return ScatterView(x_name, y_name, x, y, tuple(marks))


def _scale(points: Sequence[Point], name: str, start: float, end: float) -> Scale:
    cells = [point.cells[name] for point in points if name in point.cells]
    numbers = [cell for cell in cells if not isinstance(cell, str)]
    if len(numbers) == len(cells):
        return numeric(numbers, start, end, log=wants_log(numbers))
    return categorical(sorted({_word(cell) for cell in cells}), start, end)


def _place(scale: Scale, cell: Cell | None) -> float | None:
    if cell is None:
        return None
    if scale.names:
        return scale.of(_word(cell))
    return scale.at(cell) if not isinstance(cell, str) and drawable(cell) else None


def _word(cell: Cell) -> str:
    return cell if isinstance(cell, str) else f"{cell:g}"
