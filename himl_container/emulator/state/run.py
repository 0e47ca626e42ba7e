"""A run and its status, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Any


class Status(str, Enum):
    """A run's status, in the words of the wire (``core/run.py`` of the SDK, ``RunStatus``)."""

    NOT_STARTED = "NotStarted"
    QUEUED = "Queued"
    PREPARING = "Preparing"
    PROVISIONING = "Provisioning"
    STARTING = "Starting"
    RUNNING = "Running"
    CANCEL_REQUESTED = "CancelRequested"
    FINALIZING = "Finalizing"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"

    @property
    def ended(self) -> bool:
        """Whether nothing comes after it."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELED)


@dataclass(frozen=True)
class Run:
    """One run.

    :param number: counts the runs of an experiment, from 1.
    :param parent_id: empty for a run without a parent; :param root_id: its own id then.
    :param run_type: ``azureml.scriptrun``, ``hyperdrive``, ``azureml.PipelineRun`` and so on, as the SDK names it.
    :param created: times are seconds since the epoch; None for what has not happened.
    :param submitter: the run whose job has submitted this one; empty where a user has.
    :param definition: the run configuration as submitted; empty for a run that was started from outside.
    :param error: the ``error`` object of the wire; empty where nothing failed.
    :param tags: one without a value (``run.tag("checked")``) is None.
    :param name: what the SDK calls the run's name, from which it makes those of children; not the display name.
    :param run_type_v2: ``orchestrator`` and ``traits``.
    :param options: what else a client may set and only reads again (``primaryMetricName``, ``heartbeatEnabled``).
    :param queueing_info: why it waits, for ``get_detailed_status``.
    """

    run_id: str
    experiment: str
    experiment_id: str
    number: int
    status: Status
    created: float
    parent_id: str = ""
    root_id: str = ""
    run_type: str = "azureml.scriptrun"
    started: float | None = None
    ended: float | None = None
    display_name: str = ""
    description: str = ""
    target: str = ""
    created_by: str = ""
    submitter: str = ""
    snapshot_id: str = ""
    tags: Mapping[str, str | None] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    definition: Mapping[str, Any] = field(default_factory=dict)
    input_datasets: tuple[Mapping[str, Any], ...] = ()
    output_datasets: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[Mapping[str, Any], ...] = ()
    error: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    script_name: str = ""
    hidden: bool = False
    run_type_v2: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    queueing_info: str = ""

    @property
    def data_container_id(self) -> str:
        """Under which name its files are kept."""
        return f"dcid.{self.run_id}"


def iso(seconds: float | None) -> str | None:
    """Return a time as the wire has it (``2026-11-23T09:00:00.123456+00:00``); None for None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")


def text_map(values: Mapping[Any, Any] | None) -> dict[str, str]:
    """Return properties with text for both."""
    return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in (values or {}).items()}


def tag_map(values: Mapping[Any, Any] | None) -> dict[str, str | None]:
    """Return tags with text for the name, and text or None for the value."""
    return {**text_map(values), **{str(name): None for name, value in (values or {}).items() if value is None}}
