"""What clients tell of a run: that it started, lives, failed (``_restclient/contracts/events.py`` of the SDK)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from himl_container.emulator.http import Refusal
from himl_container.emulator.state.runs import Run, Runs, Status

_PREFIX = "microsoft.machinelearning.run."

_STATUSES = {
    "start": Status.RUNNING,
    "queued": Status.QUEUED,
    "completed": Status.COMPLETED,
    "failed": Status.FAILED,
    "canceled": Status.CANCELED,
    "cancelrequested": Status.CANCEL_REQUESTED,
}


def event_run(event: Mapping[str, Any]) -> str:
    """Return the run that an event of a batch is about; empty where it does not say."""
    data = event.get("data")
    return str(data.get("RunId") or data.get("runId") or "") if isinstance(data, Mapping) else ""


def apply_event(runs: Runs, run_id: str, event: Mapping[str, Any]) -> Run:
    """Change a run as an event says. A status that comes after the end changes nothing.

    :raises Refusal: 400, it is not an event that is known; 404, there is no such run.
    """
    name = str(event.get("name") or "").lower().removeprefix(_PREFIX)
    data = event.get("data")
    if not isinstance(data, Mapping):
        data = {}
    if name in _STATUSES:
        return runs.set_status(run_id, _STATUSES[name])
    if name == "heartbeat":
        # Azure calls a run NotResponding whose heartbeats stop; here nothing waits for them.
        return runs.get(run_id)
    if name == "error":
        error = data.get("ErrorResponse") or data.get("errorResponse")
        if not isinstance(error, Mapping):
            raise Refusal(400, "UserError", "The event has no ErrorResponse.")
        return runs.change(run_id, lambda run: replace(run, error=error))
    if name == "warning":
        warning = {"source": _text(data, "Source"), "message": _text(data, "Message")}
        return runs.change(run_id, lambda run: replace(run, warnings=(*run.warnings, warning)))
    if name == "queueinginfo":
        return runs.change(run_id, lambda run: replace(run, queueing_info=_text(data, "Message")))
    raise Refusal(400, "UserError", "There is no such event of a run.")


def _text(data: Mapping[str, Any], name: str) -> str:
    return str(data.get(name) or data.get(name.lower()) or "")
