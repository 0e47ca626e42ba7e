"""What a search tells: its log, its tags, and the metric in which it notes its best child."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from himl_container.emulator.http import Refusal
from himl_container.emulator.hyperdrive.definition import Search
from himl_container.emulator.state.metrics import TABLE, Metric, Metrics, Value
from himl_container.emulator.state.run import Run, iso
from himl_container.emulator.state.runs import Runs
from himl_container.errors import StorageError

LOG = "azureml-logs/hyperdrive.txt"
"""What the SDK streams of a search (``train/hyperdrive/run.py``)."""

BEST = "best_child_by_primary_metric"
"""The metric of the parent from which ``get_best_run_by_primary_metric`` reads first."""

_SYSTEM = "_aml_system_"
"""Before the names of tags, since newer versions; the SDK reads both."""

_COLUMNS = {
    "metric_name": "string",
    "timestamp": "string",
    "run_id": "string",
    "metric_value": "double",
    "final": "bool",
}

_log = logging.getLogger(__name__)


class LogFiles(Protocol):
    """Where logs go (:class:`himl_container.emulator.state.artifacts.Artifacts`)."""

    def append_log(self, run_id: str, path: str, data: bytes) -> None:
        """Append to a file of a run."""


class Journal:
    """Writes down what happens to searches."""

    def __init__(self, runs: Runs, metrics: Metrics, files: LogFiles, clock: Callable[[], float]) -> None:
        self._runs, self._metrics, self._files, self._clock = runs, metrics, files, clock

    def say(self, run_id: str, part: str, text: str, level: str = "INFO") -> None:
        """Write a line of a search's log. A storage that fails keeps no search from going on.

        :param part: which part of a search speaks: ``API``, ``GENERATOR``, ``SCHEDULER``, ``CONTROLLER``, ``POLICY``.
        """
        line = f"[{iso(self._clock())}][{part}][{level}] {' '.join(text.split())}\n"
        try:
            self._files.append_log(run_id, LOG, line.encode("utf-8", "replace"))
        except (StorageError, Refusal) as error:
            _log.warning("log of search %s: %s", run_id, error)

    def note_sample(self, run_id: str, child_id: str, parameters: Mapping[str, Any]) -> None:
        """Note a child's parameters in the parent's tags, from where ``get_hyperparameters`` reads them."""
        text = json.dumps(parameters)
        tags = {f"{_SYSTEM}{child_id}": text, child_id: text}
        self._runs.change(run_id, lambda run: replace(run, tags={**run.tags, **tags}))

    def note_progress(self, run_id: str, *, all_generated: bool, cancelled: bool) -> None:
        """Note how far a search is, in its tags."""
        now = {"all_jobs_generated": _word(all_generated), "cancellation_requested": _word(cancelled)}
        tags = {**now, **{f"{_SYSTEM}{name}": text for name, text in now.items()}}

        def change(run: Run) -> Run:
            return run if tags.items() <= run.tags.items() else replace(run, tags={**run.tags, **tags})

        self._runs.change(run_id, change)

    def best(self, run_id: str) -> tuple[str, float] | None:
        """Return the best child that was noted last, and its value."""
        try:
            metric, _ = self._metrics.metric(run_id, BEST)
        except Refusal:
            return None
        last = metric.values[-1].data if metric.values else {}
        return (str(last["run_id"]), float(last["metric_value"])) if last.get("run_id") else None

    def note_best(self, run_id: str, search: Search, best: tuple[str, float], *, final: bool) -> None:
        """Note the best child so far, or at the end."""
        now = self._clock()
        child_id, value = best
        row = {
            "metric_name": search.metric,
            "timestamp": iso(now),
            "run_id": child_id,
            "metric_value": value,
            "final": final,
        }
        self._metrics.add(run_id, [Metric(BEST, TABLE, _COLUMNS, (Value(str(uuid.uuid4()), now, row),))])
        if final:
            found = {"score": repr(value), "best_child_run_id": child_id, "best_metric_status": "Succeeded"}
            self._runs.change(run_id, lambda run: replace(run, properties={**run.properties, **found}))


def parent_tags(search: Search) -> dict[str, str]:
    """Return the tags of a search, out of which the SDK makes its ``HyperDriveConfig`` again."""
    document = search.document
    tags = {name: json.dumps(document.get(name)) for name in ("platform_config", "resume_child_runs")}
    tags |= {
        name: json.dumps(document[name]) for name in ("generator_config", "primary_metric_config", "policy_config")
    }
    tags |= {
        "max_concurrent_jobs": str(search.max_concurrent),
        "max_total_jobs": str(search.max_total),
        "max_duration_minutes": str(search.max_minutes),
        "all_jobs_generated": _word(False),
        "cancellation_requested": _word(False),
    }
    return {**tags, **{f"{_SYSTEM}{name}": text for name, text in tags.items()}}


def parent_properties(search: Search) -> dict[str, str]:
    """Return the properties of a search."""
    document = search.document
    properties = {
        "primary_metric_config": json.dumps(document["primary_metric_config"]),
        "resume_from": json.dumps(document.get("resume_from")),
        "resume_child_runs": json.dumps(document.get("resume_child_runs")),
        "runTemplate": "HyperDrive",
        "azureml.runsource": "hyperdrive",
        "platform": "AML",
    }
    return {**properties, **({"ContentSnapshotId": search.snapshot_id} if search.snapshot_id else {})}


def child_tags(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a child."""
    text = json.dumps(parameters)
    return {f"{_SYSTEM}hyperparameters": text, "hyperparameters": text}


def _word(value: bool) -> str:
    return "true" if value else "false"
