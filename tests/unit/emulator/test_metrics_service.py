from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.history_rig import Rig, job

from himl_container.emulator.http import Refusal
from himl_container.emulator.services.metric_documents import legacy_metric, metric_of
from himl_container.emulator.state.metrics import LIST, SCALAR, TABLE, Metric, Point, Value

RUN = "metric/v2.0:/runs/r1"
OLD = "history/v1.0:/experiments/e"


def metric(name: str, kind: str, columns: dict[str, str], *rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    value = [{"metricId": f"{name}-{number}-{row}", "data": row, **more} for number, row in enumerate(rows)]
    return {"name": name, "columns": columns, "value": value, "properties": {"uxMetricType": kind}}


def post(rig: Rig, *metrics: dict[str, Any]) -> Any:
    return rig.json("POST", f"{RUN}/batch", {"values": list(metrics), "reportErrors": True})


def full(rig: Rig, name: str, **asked: Any) -> Any:
    return rig.json("POST", f"{RUN}/full", {"metricName": name, **asked})


def test_values_come_back_in_order_with_steps_and_columns() -> None:
    rig = Rig()
    rig.run()
    post(rig, metric("loss", SCALAR, {"loss": "double"}, {"loss": 1.5}, step=1))
    post(rig, metric("loss", SCALAR, {"loss": "double"}, {"loss": 0.5}, step=2))
    post(rig, metric("t", TABLE, {"a": "int", "b": "string"}, {"a": 1, "b": "x"}, {"a": 2, "b": "y"}))
    found = full(rig, "loss")
    assert [(value["step"], value["data"]) for value in found["value"]] == [(1, {"loss": 1.5}), (2, {"loss": 0.5})]
    assert found["properties"] == {"uxMetricType": SCALAR}
    assert found["dataContainerId"] == "dcid.r1"
    assert [row["data"] for row in full(rig, "t")["value"]] == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    names = [one["metricKey"]["name"] for one in rig.json("POST", f"{RUN}/list", {})["value"]]
    assert names == ["loss", "t"]
    assert rig.status("POST", f"{RUN}/full", {"metricName": "none"}) == 404
    assert rig.status("POST", "metric/v2.0:/runs/none/list", {}) == 404


def test_a_value_that_is_sent_again_is_stored_once() -> None:
    rig = Rig()
    rig.run()
    for _ in range(2):
        post(rig, metric("a", SCALAR, {"a": "int"}, {"a": 1}))
    assert len(full(rig, "a")["value"]) == 1


def test_columns_widen_and_what_contradicts_is_reported_and_the_rest_stored() -> None:
    rig = Rig()
    rig.run()
    post(rig, metric("a", SCALAR, {"a": "none"}, {"a": None}), metric("row", TABLE, {"x": "int"}, {"x": 1}))
    post(rig, metric("a", SCALAR, {"a": "int"}, {"a": 2}), metric("row", TABLE, {"y": "float"}, {"y": 2.0}))
    post(rig, metric("a", SCALAR, {"a": "float"}, {"a": 2.5}))
    answer = rig.ask(
        "POST",
        f"{RUN}/batch",
        {
            "values": [
                metric("a", LIST, {"a": "int"}, {"a": 7}),
                metric("a", SCALAR, {"a": "string"}, {"a": "text"}),
                metric("b", SCALAR, {"b": "int"}, {"b": 1}),
            ]
        },
    )
    assert answer.status == 207
    # The SDK raises where a cell is missing, or is not a number among floats.
    values = [value["data"]["a"] for value in full(rig, "a")["value"]]
    assert math.isnan(values[0])
    assert values[1:] == [2, 2.5]
    rows = [value["data"] for value in full(rig, "row")["value"]]
    assert rows[0]["x"] == 1
    assert math.isnan(rows[0]["y"])
    assert rows[1] == {"x": None, "y": 2.0}
    assert full(rig, "b")["value"]


def test_a_bad_batch_is_not_half_there() -> None:
    rig = Rig()
    rig.run()
    good = metric("a", SCALAR, {"a": "int"}, {"a": 1})
    for bad in (
        {**good, "name": ""},
        {**good, "name": "x" * 513},
        {**good, "columns": None},
        {**good, "value": [{"data": 3}]},
        {**good, "value": [{"data": {"a": 1}, "step": "one"}]},
        {**good, "value": [{"data": {"a": 1}, "step": 2**63}]},
        {**good, "value": [{"data": {"a": 1}, "createdUtc": "yesterday"}]},
        {**good, "value": [{"data": {"a": 1}, "createdUtc": "9999-12-31T23:59:59-14:00"}]},
        "text",
    ):
        assert rig.status("POST", f"{RUN}/batch", {"values": [good, bad]}) == 400
    assert rig.metrics.heads("r1") == []
    assert rig.status("POST", f"{RUN}/batch", b"{") == 400


def test_a_long_metric_comes_in_pages_and_by_time() -> None:
    rig = Rig()
    rig.run()
    values = tuple(Value(str(number), float(number), {"a": number}) for number in range(5001))
    rig.metrics.add("r1", [Metric("a", LIST, {"a": "int"}, values)])
    first = full(rig, "a")
    rest = full(rig, "a", continuationToken=first["continuationToken"])
    assert [value["data"]["a"] for value in first["value"] + rest["value"]] == list(range(5001))
    assert rest["continuationToken"] is None
    assert len(full(rig, "a", startTime="1970-01-01T00:00:10Z", endTime="1970-01-01T00:00:12Z")["value"]) == 3
    for token in ("x", "1", "1/x", "1e999999/" + "9" * 30):
        assert rig.status("POST", f"{RUN}/full", {"metricName": "a", "continuationToken": token}) == 400, token


def test_the_order_is_that_of_logging_not_of_arrival() -> None:
    rig = Rig()
    rig.run()
    for second in (3, 1, 2):
        values = tuple(Value(f"{second}-{number}", float(second), {"a": 10 * second + number}) for number in range(2))
        rig.metrics.add("r1", [Metric("a", LIST, {"a": "int"}, values)])
    assert [value["data"]["a"] for value in full(rig, "a")["value"]] == [10, 11, 20, 21, 30, 31]
    assert [point.value for point in rig.metrics.series("r1")["a"]] == [10, 11, 20, 21, 30, 31]
    one, token = rig.metrics.metric("r1", "a", limit=3)
    two, end = rig.metrics.metric("r1", "a", after=token)
    assert [value.data["a"] for value in (*one.values, *two.values)] == [10, 11, 20, 21, 30, 31]
    assert end == ""


def test_series() -> None:
    rig = Rig()
    rig.run()
    time = {"createdUtc": "1970-01-01T00:00:10Z"}
    post(
        rig,
        metric("loss", SCALAR, {"loss": "double"}, {"loss": 1}, step=3, **time),
        metric("name", SCALAR, {"name": "string"}, {"name": "x"}),
        metric("row", TABLE, {"a": "int", "b": "string"}, {"a": 1, "b": "x"}, {"a": 2, "b": "y"}, **time),
    )
    assert rig.metrics.series("r1") == {
        "loss": [Point(3, 1.0, 10.0)],
        "row.a": [Point(None, 1.0, 10.0), Point(None, 2.0, 10.0)],
    }
    assert rig.metrics.series("none") == {}
    post(rig, metric("big", SCALAR, {"big": "int"}, {"big": -(10**400)}))
    assert rig.metrics.series("r1")["big"][0].value == -math.inf


def test_a_job_logs_to_its_own_run_and_its_children() -> None:
    rig = Rig()
    rig.run("r1")
    rig.run("child", parent_id="r1")
    rig.run("other")
    body = {"values": [metric("a", SCALAR, {"a": "int"}, {"a": 1})]}
    for run_id, status in (("r1", 200), ("child", 200), ("other", 403)):
        assert rig.status("POST", f"metric/v2.0:/runs/{run_id}/batch", body, job("r1")) == status
        assert rig.status("POST", f"{OLD}/runs/{run_id}/metrics", legacy("b", SCALAR, {"b": 1}), job("r1")) == status
        assert rig.status("POST", f"metric/v2.0:/runs/{run_id}/list", {}, job("r1")) == 200


def legacy(name: str, kind: str, *cells: dict[str, Any], **more: Any) -> dict[str, Any]:
    columns = {column: type(value).__name__ for cell in cells for column, value in cell.items()}
    schema = {"properties": [{"propertyId": column, "type": kind} for column, kind in columns.items()]}
    return {"metricId": f"id-{name}", "name": name, "metricType": kind, "cells": list(cells), "schema": schema, **more}


def test_the_older_form_is_the_same_metric() -> None:
    rig = Rig()
    rig.run()
    table = legacy("t", TABLE, {"a": 1}, {"a": 2}, {"b": "x"}, {"b": "y"})
    image = legacy("i", "azureml.v2.image", {"i": None}, dataLocation="aml://artifactId/ExperimentRun/dcid.r1/i.png")
    rig.json("POST", f"{OLD}/runs/r1/batch/metrics", {"values": [table, image, legacy("s", SCALAR, {"s": 0.5})]})
    assert [row["data"] for row in full(rig, "t")["value"]] == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert full(rig, "i")["value"][0]["data"] == {"i": "aml://artifactId/ExperimentRun/dcid.r1/i.png"}
    asked = {"filter": "(RunId eq r1 and name eq t)"}
    found = rig.json("POST", f"{OLD}/metrics:query", asked)["value"]
    assert [one["cells"] for one in found] == [[{"a": 1, "b": "x"}], [{"a": 2, "b": "y"}]]
    assert len({one["metricId"] for one in found}) == 2
    image_back = rig.json("POST", f"{OLD}/metrics:query", {"filter": "name eq i"})["value"][0]
    assert image_back["dataLocation"].endswith("i.png")
    assert rig.status("POST", f"{OLD}/runs/r1/metrics", legacy("t", SCALAR, {"t": 1})) == 400
    assert rig.status("POST", "history/v1.0:/experiments/x/runs/r1/metrics", legacy("n", SCALAR, {"n": 1})) == 404


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["name", "columns", "value", "properties", "metricId", "metricType", "cells", "schema", "dataLocation"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
@pytest.mark.parametrize("read", [metric_of, legacy_metric])
def test_whatever_is_sent_is_read_or_refused(read: Any, document: dict[str, Any]) -> None:
    try:
        assert isinstance(read(document, 0.0), Metric)
    except Refusal as refusal:
        assert refusal.status == 400
