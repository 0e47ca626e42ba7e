"""What the page of one run shows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from himl_container.emulator.compute.definition import section, value
from himl_container.emulator.http import Refusal
from himl_container.emulator.page.charts import Chart, metric_charts
from himl_container.emulator.page.words import moment, number, without_secrets
from himl_container.emulator.state.artifacts import RUN_ORIGIN, container_of
from himl_container.emulator.state.metrics import ARTIFACT, Metric, Metrics
from himl_container.emulator.state.run import Run

MOST_ROWS = 200
"""Of a table of a metric; of more, the newest."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FILE = "aml://artifactId/"
_IMAGES = ("azureml.v1.image", "azureml.v2.image")


@dataclass(frozen=True)
class MetricTable:
    """A metric as a table. ``more`` is how many older rows are left out."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0


@dataclass(frozen=True)
class Picture:
    """A metric whose value is a picture among the run's files."""

    title: str
    path: str


@dataclass(frozen=True)
class MetricsView:
    """A run's metrics.

    :param values: those that were logged once: name and value.
    :param files: those whose value is another file: name and path.
    """

    values: tuple[tuple[str, str], ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[MetricTable, ...] = ()
    pictures: tuple[Picture, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class JobView:
    """How a run's job was described.

    :param facts: name and value, in order; :param digest: of the image; empty where it has none by name.
    :param variables: environment variables, secrets hidden.
    :param data: direction, name, how, and where, of inputs and outputs.
    """

    facts: tuple[tuple[str, str], ...] = ()
    digest: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    data: tuple[tuple[str, str, str, str], ...] = ()
    definition: str = ""


@dataclass(frozen=True)
class ErrorView:
    """Why a run failed."""

    code: str = ""
    message: str = ""
    details: tuple[str, ...] = field(default=())


def metrics_view(run: Run, metrics: Metrics) -> MetricsView:
    """Return a run's metrics, each in the form that suits it."""
    heads = metrics.heads(run.run_id)
    series = metrics.series(run.run_id)
    charts = metric_charts(heads, series)
    drawn = {chart.title: set(chart.columns) for chart in charts}
    values: list[tuple[str, str]] = []
    tables: list[MetricTable] = []
    pictures: list[Picture] = []
    files: list[tuple[str, str]] = []
    for head in heads:
        try:
            metric, _ = metrics.metric(run.run_id, head.name)
        except Refusal:
            continue
        if ARTIFACT in head.columns.values():
            for path in _paths(run, metric):
                if head.kind in _IMAGES:
                    pictures.append(Picture(head.name, path))
                else:
                    files.append((head.name, path))
        elif head.name in head.columns:
            if head.name not in drawn:
                values.append((head.name, ", ".join(number(item.data.get(head.name)) for item in metric.values[-20:])))
        elif not set(head.columns) <= drawn.get(head.name, set()):
            # A chart has its values as a table below it.
            tables.append(_table(metric))
    return MetricsView(tuple(values), tuple(charts), tuple(tables), tuple(pictures), tuple(files))


def job_view(run: Run) -> JobView:
    """Return how a run's job was described; empty where it has none."""
    definition = run.definition
    if not definition:
        return JobView()
    environment = _section(definition, "environment")
    docker = _section(environment, "docker")
    image = str(value(docker, "baseImage", "") or "")
    command = value(definition, "command", "")
    if isinstance(command, list):
        command = " ".join(str(word) for word in command)
    arguments = " ".join(str(word) for word in value(definition, "arguments", []) or [])
    version = value(environment, "version", "")
    name = str(value(environment, "name", "") or "")
    facts = {
        "Command": str(command or ""),
        "Script": "" if command else str(value(definition, "script", "") or ""),
        "Arguments": "" if command else arguments,
        "Nodes": str(value(definition, "nodeCount", "") or ""),
        "Environment": f"{name}:{version}" if name and version else name,
        "Image": image,
        "Interpreter": str(value(_section(environment, "python"), "interpreterPath", "") or ""),
        "Longest duration": _seconds(value(definition, "maxRunDurationSeconds")),
    }
    variables = {**_section(environment, "environmentVariables"), **_section(definition, "environmentVariables")}
    digest = _DIGEST.search(image)
    return JobView(
        facts=tuple((title, text) for title, text in facts.items() if text),
        digest=digest[0] if digest else "",
        variables=tuple((str(key), str(without_secrets(str(key), text))) for key, text in sorted(variables.items())),
        data=(
            *(("input", *row) for row in _data(_section(definition, "data"))),
            *(("input", *row) for row in _references(_section(definition, "dataReferences"))),
            *(("output", *row) for row in _data(_section(definition, "outputData"))),
        ),
        definition=json.dumps(without_secrets("", definition), indent=2, ensure_ascii=False),
    )


def error_view(run: Run) -> ErrorView | None:
    """Return why a run failed; None where it did not."""
    if not run.error:
        return None
    error = run.error.get("error", run.error)
    if not isinstance(error, Mapping):
        return ErrorView(message=str(error))
    details = error.get("details")
    lines = [str(item.get("message") or "") for item in details or () if isinstance(item, Mapping)]
    return ErrorView(
        str(error.get("code") or ""), str(error.get("message") or ""), tuple(line for line in lines if line)
    )


def times_of(run: Run) -> list[tuple[str, str]]:
    """Return the moments of a run that have come."""
    moments = (("Created", run.created), ("Started", run.started), ("Ended", run.ended))
    return [(name, moment(time)) for name, time in moments if time is not None]


def _paths(run: Run, metric: Metric) -> list[str]:
    """Return the run's own files that a metric's values name (``core/_metrics.py``), and no file of another run."""
    prefix = f"{_FILE}{RUN_ORIGIN}/{container_of(run.run_id)}/"
    found = [str(item.data.get(metric.name) or "") for item in metric.values]
    # A picture may be called by the absolute path of its file, and is kept without the slash before it.
    return [path.removeprefix(prefix).removeprefix("/") for path in dict.fromkeys(found) if path.startswith(prefix)]


def _table(metric: Metric) -> MetricTable:
    columns = tuple(metric.columns)
    rows = [tuple(number(item.data.get(column)) for column in columns) for item in metric.values]
    return MetricTable(metric.name, columns, tuple(rows[-MOST_ROWS:]), max(0, len(rows) - MOST_ROWS))


def _section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    try:
        return section(document, name)
    except Refusal:
        return {}  # a definition is shown, whatever is in it


def _data(items: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    return [(str(name), _mechanism(item), _place(item)) for name, item in items.items() if isinstance(item, Mapping)]


def _mechanism(item: Mapping[str, Any]) -> str:
    return str(value(item, "mechanism", "") or value(item, "mode", "") or "")


def _place(item: Mapping[str, Any]) -> str:
    location = _section(item, "dataLocation") or _section(item, "outputLocation")
    dataset = _section(location, "dataset")
    store = _section(location, "dataPath") or _section(location, "datapath")
    return (
        str(value(dataset, "name", "") or value(dataset, "id", "") or "")
        or "/".join(str(part) for part in (value(store, "datastoreName"), value(store, "relativePath")) if part)
        or str(value(item, "pathOnCompute", "") or "")
    )


def _references(items: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    return [
        (
            str(name),
            str(value(item, "mode", "") or ""),
            "/".join(str(part) for part in (value(item, "dataStoreName"), value(item, "pathOnDataStore")) if part),
        )
        for name, item in items.items()
        if isinstance(item, Mapping)
    ]


def _seconds(number_of: object) -> str:
    return f"{number_of} s" if number_of else ""
