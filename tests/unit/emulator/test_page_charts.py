"""Axes, lines and pictures of searches: everything inside the picture, whatever the values are."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.emulator.page.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart, metric_charts
from himl_container.emulator.page.scales import categorical, numeric, wants_log
from himl_container.emulator.page.search_charts import Point as Child
from himl_container.emulator.page.search_charts import parallel, scatter, shades
from himl_container.emulator.page.words import duration, moment, number, size, without_secrets
from himl_container.emulator.state.metrics import Metric, Point

ANY = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-1e3, 1e3) | st.integers(-5, 5).map(float)
PLACE = re.compile(r"[ML](-?[\d.]+(?:e-?\d+)?) (-?[\d.]+(?:e-?\d+)?)")


@given(st.lists(ANY, max_size=30), st.booleans(), st.booleans())
def test_all_values_and_ticks_lie_on_the_axis(values: list[float], whole: bool, log: bool) -> None:
    scale = numeric(values, 10, 110, whole=whole, log=log and wants_log(values))
    for tick in scale.ticks:
        assert 9.99 <= tick.at <= 110.01
        assert tick.label
    assert len(scale.ticks) <= 12
    for value in values:
        if abs(value) < 1e300:
            assert 9.99 <= scale.at(value) <= 110.01


def test_ticks_are_round_numbers() -> None:
    assert [tick.label for tick in numeric([0, 0.93], 0, 100).ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [tick.label for tick in numeric([3, 30], 0, 100, whole=True, count=8).ticks][:3] == ["0", "5", "10"]
    assert [tick.label for tick in numeric([1e-5, 0.1], 0, 100, log=True).ticks] == [
        "1e-5",
        "1e-4",
        "1e-3",
        "1e-2",
        "1e-1",
    ]
    assert [tick.label for tick in numeric([-2, 2], 0, 100).ticks] == ["-2", "-1", "0", "1", "2"]


def test_an_axis_is_logarithmic_where_values_ask_for_it() -> None:
    assert wants_log([0.1, 0.001, 1.0])
    assert not wants_log([0.1, 0.5])
    assert not wants_log([0.0, 0.001, 1.0])
    assert not wants_log([-1.0, 0.001, 1.0])
    assert not wants_log([])
    assert wants_log([float("nan"), 0.1, 1000.0])


def test_categories_stand_at_equal_distances() -> None:
    scale = categorical(["b", "a", "b", "c"], 0, 300)
    assert [(tick.label, tick.at) for tick in scale.ticks] == [("b", 50), ("a", 150), ("c", 250)]
    assert categorical(["only"], 0, 300).of("only") == 150


@given(st.lists(st.lists(ANY, min_size=1, max_size=50), min_size=1, max_size=10))
def test_all_lines_lie_inside_the_picture(rows: list[list[float]]) -> None:
    group = {f"s{index}": [Point(None, value, 0.0) for value in row] for index, row in enumerate(rows)}
    chart = line_chart("title", group)
    for line in chart.lines:
        places = [(float(x), float(y)) for x, y in PLACE.findall(line.path)]
        assert len(places) == line.path.count("M") + line.path.count("L")
        for x, y in (*places, *line.dots):
            assert LEFT - 0.01 <= x <= WIDTH - RIGHT + 0.01
            assert TOP - 0.01 <= y <= HEIGHT - BOTTOM + 0.01
    assert len(chart.rows) <= 202


def test_a_line_is_interrupted_where_a_value_is_no_number() -> None:
    values = [1.0, 2.0, math.nan, 3.0, math.inf, 4.0, 5.0]
    line = line_chart("x", {"x": [Point(None, value, 0.0) for value in values]}).lines[0]
    assert line.path.count("M") == 3
    assert len(line.dots) == 5


def test_a_long_series_is_thinned_and_keeps_its_peaks() -> None:
    values = [0.0] * 50_000
    values[31_234] = 9.0
    chart = line_chart("x", {"x": [Point(index, value, 0.0) for index, value in enumerate(values)]})
    places = PLACE.findall(chart.lines[0].path)
    assert len(places) < 1300
    assert min(float(y) for _, y in places) < TOP + 30
    assert "50000 values between 0 and 9" in chart.summary
    assert chart.rows[-1][0] == "49999"


def test_steps_are_used_where_every_value_has_its_own() -> None:
    with_steps = [Point(10, 1.0, 0.0), Point(20, 2.0, 0.0)]
    assert line_chart("x", {"x": with_steps}).x_label == "step"
    assert line_chart("x", {"x": [Point(10, 1.0, 0.0), Point(10, 2.0, 0.0)]}).x_label != "step"
    assert line_chart("x", {"x": [*with_steps, Point(None, 2.0, 0.0)]}).x_label != "step"


def test_a_table_with_a_counter_is_drawn_over_it() -> None:
    columns = {"epoch": "int", "train": "double", "note": "string", "good": "bool"}
    series = {
        "acc.epoch": [Point(None, 2.0 * index, 0.0) for index in range(3)],
        "acc.train": [Point(None, index / 3, 0.0) for index in range(3)],
        "acc.good": [Point(None, 1.0, 0.0)] * 3,
        "once": [Point(None, 1.0, 0.0)],
        "val.loss": [Point(None, 1.0, 0.0)] * 2,
    }
    heads = [
        Metric("acc", "azureml.v1.table", columns),
        Metric("once", "azureml.v1.scalar", {"once": "double"}),
        Metric("val.loss", "azureml.v1.scalar", {"val.loss": "double"}),
    ]
    accuracy, loss = metric_charts(heads, series)
    assert (accuracy.title, accuracy.x_label, accuracy.columns) == ("acc", "epoch", ("epoch", "train"))
    assert [row[0] for row in accuracy.rows] == ["0", "2", "4"]
    assert (loss.title, [line.label for line in loss.lines]) == ("val.loss", ["val.loss"])


def children(*cells: dict[str, float | str]) -> list[Child]:
    return [Child(f"r{index}", f"run {index}", row, index % 6) for index, row in enumerate(cells)]


def test_parallel_coordinates() -> None:
    points = children(
        {"lr": 0.1, "opt": "adam", "loss": 1.0}, {"lr": 0.2, "opt": "sgd", "loss": 2.0}, {"lr": 0.3, "opt": "adam"}
    )
    view = parallel(points, ["lr", "opt", "loss"])
    assert view is not None
    assert [axis.name for axis in view.axes] == ["lr", "opt", "loss"]
    assert [mark.point.run_id for mark in view.marks] == ["r2", "r1", "r0"], "the best are drawn last"
    assert [mark.path.count("L") for mark in view.marks] == [1, 2, 2], "a line ends where there is no value"
    assert parallel(points, ["lr"]) is None
    assert parallel([], ["lr", "loss"]) is None
    many = parallel(points, [f"p{index}" for index in range(30)] + ["loss"])
    assert many is not None
    assert [axis.name for axis in many.axes][-1] == "loss"
    assert len(many.axes) == 10


CELL = st.one_of(ANY, st.integers(), st.text(max_size=5))


@given(st.lists(st.dictionaries(st.sampled_from("abc"), CELL), max_size=20))
def test_pictures_of_a_search_take_any_values(rows: list[dict[str, float | str]]) -> None:
    points = children(*rows)
    view = parallel(points, ["a", "b", "c"])
    if view is not None:
        for mark in view.marks:
            for x, y in PLACE.findall(mark.path):
                assert 0 <= float(x) <= view.width
                assert 0 <= float(y) <= view.height
    plot = scatter(points, "a", "b")
    for mark in plot.marks if plot else ():
        assert LEFT - 0.01 <= mark.x <= WIDTH - RIGHT + 0.01
        assert TOP - 0.01 <= mark.y <= HEIGHT - BOTTOM + 0.01


def test_shades_are_fifths_by_rank() -> None:
    values: dict[str, float | None] = {str(index): float(index) for index in range(10)}
    found = shades({**values, "none": None, "nan": math.nan}, greater_is_better=False)
    assert [found[str(index)] for index in range(10)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (found["none"], found["nan"]) == (5, 5)
    assert shades(values, greater_is_better=True)["9"] == 0
    assert set(shades({"a": 1.0, "b": 1.0}, greater_is_better=True).values()) == {0}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (754, "12 min 34 s"), (7325, "2 h 02 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(100.0, 100.0 + seconds) == text


def test_words() -> None:
    assert duration(None, 1.0) == ""
    assert duration(5.0, 4.0) == "0 s"
    assert moment(0.0) == "1970-01-01 00:00:00 UTC"
    assert [size(count) for count in (None, 0, 999, 1000, 1_234_567, 5 * 10**9)] == [
        "",
        "0 B",
        "999 B",
        "1.0 KB",
        "1.2 MB",
        "5.0 GB",
    ]
    assert [number(value) for value in (0.1 + 0.2, math.nan, None, True, 12345678, "x")] == [
        "0.3",
        "nan",
        "",
        "True",
        "12345678",
        "x",
    ]


def test_secrets_are_hidden_wherever_they_are() -> None:
    given_ = {
        "API_KEY": "a",
        "wandb_token": "b",
        "nested": [{"connectionString": "c", "path": "https://x.blob/y?sv=1&sig=abc%2F&se=2"}],
        "keyboard": "qwerty",
        "monkey": "m",
        "count": 3,
        "PASSWORD": "",
    }
    assert without_secrets("", given_) == {
        "API_KEY": "(hidden)",
        "wandb_token": "(hidden)",
        "nested": [{"connectionString": "(hidden)", "path": "https://x.blob/y?sv=1&sig=(hidden)&se=2"}],
        "keyboard": "qwerty",
        "monkey": "m",
        "count": 3,
        "PASSWORD": "",
    }
