"""Metrics of every kind through the SDK: logged from outside, read back."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from azureml.core import Experiment, Run, Workspace

pytestmark = pytest.mark.emulator

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc0000003010100c9fe92ef"
    "0000000049454e44ae426082"
)


@pytest.fixture
def experiment(workspace: Workspace) -> Experiment:
    from azureml.core import Experiment

    return Experiment(workspace, f"metrics-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def run(experiment: Experiment) -> Iterator[Run]:
    run = experiment.start_logging(snapshot_directory=None)
    yield run
    run.complete()


def matrix(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"schema_type": kind, "schema_version": "1.0.0", "data": data}


def test_every_kind(run: Run) -> None:
    run.log("once", 0.5)
    for step in range(3):
        run.log("loss", 1 / (step + 1), step=step)
    run.log("count", 3)
    run.log("word", "good")
    run.log("flag", True)
    run.log("nothing", float("nan"))
    run.log_list("list", [1, 2.5, 3])
    run.log_row("point", x=1, y=2.0)
    run.log_row("points", x=1, y=2.0)
    run.log_row("points", x=2, y=4.0)
    run.log_table("table", {"a": [1, 2], "b": ["x", "y"]})
    Path("plot.png").write_bytes(PNG)
    run.log_image("image", path="./plot.png")
    absolute = str(Path("plot.png").resolve())
    run.log_image("absolute", path=absolute)
    confusion = matrix("confusion_matrix", {"class_labels": ["0", "1"], "matrix": [[3, 1], [0, 4]]})
    run.log_confusion_matrix("confusion", confusion)
    for log, name in (
        (run.log_accuracy_table, "accuracy"),
        (run.log_residuals, "residuals"),
        (run.log_predictions, "predictions"),
    ):
        log(name, matrix(name, {"values": [1, 2]}))
    run.flush()

    found = run.get_metrics()
    assert math.isnan(found.pop("nothing"))
    place = f"aml://artifactId/ExperimentRun/dcid.{run.id}"
    assert found == {
        "once": 0.5,
        "loss": [1.0, 0.5, 1 / 3],
        "count": 3,
        "word": "good",
        "flag": True,
        "list": [1.0, 2.5, 3.0],
        "point": {"x": 1, "y": 2.0},
        "points": {"x": [1, 2], "y": [2.0, 4.0]},
        "table": {"a": [1, 2], "b": ["x", "y"]},
        "image": f"{place}/./plot.png",
        "absolute": f"{place}/{absolute}",
        **{name: f"{place}/{name}" for name in ("confusion", "accuracy", "residuals", "predictions")},
    }
    assert run.get_metrics(name="loss") == {"loss": [1.0, 0.5, 1 / 3]}
    assert run.get_metrics(name="none") == {}
    populated = run.get_metrics(name="confusion", populate=True)["confusion"]
    assert populated.convert_to_object() == confusion
    assert run.get_metrics(name="image", populate=True)["image"].data == PNG
    assert run.get_metrics(name="absolute", populate=True)["absolute"].data == PNG
    assert {"plot.png", absolute[1:], "confusion", "accuracy", "residuals", "predictions"} <= set(run.get_file_names())
    steps = [(value.step, value.data["loss"]) for value in run._client.metrics.get_metric_dto_for_run_v2("loss").value]
    assert steps == [(0, 1.0), (1, 0.5), (2, 1 / 3)]


def test_columns_that_change(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.log("a", 1)
    run.log("a", 1.5)
    run.log_row("row", x=1)
    run.log_row("row", x=2, y=0.5)
    run.log("word", "text")
    run.log("word", 3)
    run.flush()
    found = run.get_metrics()
    assert found["a"] == [1.0, 1.5]
    assert found["row"]["x"] == [1, 2]
    assert math.isnan(found["row"]["y"][0])
    assert found["word"] == "text"
    assert "Column word of metric word was first logged as string, and now as int." in caplog.text


def test_recursive(run: Run) -> None:
    child = run.child_run()
    grandchild = child.child_run()
    for number, one in enumerate((run, child, grandchild)):
        one.log("n", number)
        one.flush()
    assert run.get_metrics() == {"n": 0}
    assert run.get_metrics(recursive=True) == {run.id: {"n": 0}, child.id: {"n": 1}, grandchild.id: {"n": 2}}
    assert child.get_metrics(recursive=True, name="n") == {child.id: {"n": 1}, grandchild.id: {"n": 2}}
    grandchild.complete()
    child.complete()


def test_legacy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that the SDK takes with ``AZUREML_USE_METRICS_V2=``, which it reads when it is imported."""
    from azureml._run_impl import run_history_facade

    monkeypatch.setattr(run_history_facade, "_use_v2_metrics", "")
    child = run.child_run()
    for one in (run, child):
        for number in range(3):
            one.log("loss", number / 2)
        one.log("once", "text")
        one.log_list("list", [1, 2, 3])
        one.log_row("points", x=1, y=2.0)
        one.log_row("points", x=2, y=4.0)
        one.log_table("table", {"a": [1, 2], "b": ["x", "y"]})
        one.log_confusion_matrix("confusion", matrix("confusion_matrix", {"matrix": [[1]]}))
        one.flush()

    def wanted(run_id: str) -> dict[str, Any]:
        return {
            "loss": [0.0, 0.5, 1.0],
            "once": "text",
            "list": [1, 2, 3],
            "points": {"x": [1, 2], "y": [2.0, 4.0]},
            "table": {"a": [1, 2], "b": ["x", "y"]},
            "confusion": f"aml://artifactId/ExperimentRun/dcid.{run_id}/confusion",
        }

    assert run.get_metrics() == wanted(run.id)
    recursive = run.get_metrics(recursive=True)
    assert recursive[run.id] == wanted(run.id)
    assert recursive[child.id]["loss"] == [0.0, 0.5, 1.0]
    # Both forms are one store.
    monkeypatch.undo()
    assert run.get_metrics() == wanted(run.id)
    child.complete()


def test_a_thousand_at_once(run: Run) -> None:
    begin = time.perf_counter()
    for step in range(1000):
        run.log("loss", step / 1000, step=step)
    run.flush()
    seconds = time.perf_counter() - begin
    assert run.get_metrics()["loss"] == [step / 1000 for step in range(1000)]
    assert seconds < 20  # two or three where the machine does nothing else
