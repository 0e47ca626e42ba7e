"""How a job ended, in the words of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from himl_container.emulator.http import Refusal
from himl_container.emulator.names import REGION
from himl_container.emulator.state.runs import Status
from himl_container.errors import EngineError, HimlError, StorageError
from himl_container.launch.supervise import Attempt
from himl_container.launch.verdict import judge

Wish = Literal["", "cancel", "stop"]
"""What was asked of a job from outside: by a user, or by the emulator that is told to end."""

PREEMPTED = "Low priority compute preemption warning: a node has been preempted."
"""The sentence that AzureML's page shows, as hi-ml's documentation quotes it."""

STOPPED = "The emulator was stopped while the job was running."
NO_CLUSTER = "The compute target {name} does not exist any more."
KILLED = "The emulator ended while the job was running; the job was found dead at its next start."


@dataclass(frozen=True)
class JobEnd:
    """How a job ended.

    :param error: the error document of the wire; empty where nothing failed.
    :param warning: a sentence for the run's warnings; empty for none.
    """

    status: Status
    error: Mapping[str, Any] = field(default_factory=dict)
    warning: str = ""


CANCELED = JobEnd(Status.CANCELED)


def error_document(code: str, message: str, inner: str = "") -> dict[str, Any]:
    """Return an error as the SDK's ``ErrorResponse`` has it.

    :param code: ``UserError`` or ``ServiceError``; :param inner: the narrower reason.
    """
    return {
        "error": {
            "code": code,
            "message": message,
            "messageFormat": None,
            "messageParameters": {},
            "details": [],
            "innerError": {"code": inner, "innerError": None} if inner else None,
        },
        "correlation": {},
        "environment": REGION,
        "location": REGION,
        "time": datetime.now(timezone.utc).isoformat(),
        "componentName": "compute",
    }


def failed(code: str, message: str, inner: str = "") -> JobEnd:
    """Return the end of a job that failed."""
    return JobEnd(Status.FAILED, error_document(code, message, inner))


def end_of_attempt(attempt: Attempt, wish: Wish, max_duration: float | None, tails: Mapping[int, str]) -> JobEnd:
    """Say how a job ended whose processes ended like this; not for one that was preempted.

    :param tails: the last lines of each rank's log.
    """
    if wish == "stop":
        return failed("ServiceError", STOPPED, "EmulatorStopped")
    verdict = judge(attempt, max_duration)
    if wish == "cancel" or verdict.state == "cancelled":
        return CANCELED
    if verdict.state == "completed":
        return JobEnd(Status.COMPLETED)
    if verdict.state == "timed_out":
        # "The system will attempt to automatically cancel the run" (documentation of max_run_duration_seconds).
        return JobEnd(Status.CANCELED, warning=f"The run was canceled: {verdict.reason}.")
    if verdict.state == "lost":
        return failed("ServiceError", f"The job was lost: {verdict.reason}.", "EngineGone")
    rank = attempt.first_failure or 0
    ended = attempt.ended[rank]
    reason = f" ({verdict.reason})" if verdict.reason else ""
    tail = tails.get(rank, "")
    lines = f"\nThe last lines of its log:\n{tail}" if tail else ""
    inner = "OutOfMemory" if ended.oom_killed else "NonZeroExitCode"
    return failed("UserError", f"The script ended with exit code {ended.exit_code}{reason}.{lines}", inner)


def end_of_error(error: BaseException) -> JobEnd:
    """Say how a job ended that could not be prepared or started."""
    if isinstance(error, EngineError | StorageError):
        return failed("ServiceError", str(error))
    if isinstance(error, HimlError):
        return failed("UserError", str(error), "JobNotStarted")
    if isinstance(error, OSError):
        return failed("ServiceError", f"A file of the job cannot be written: {error.strerror or error}", "Disk")
    if isinstance(error, Refusal):
        return failed("UserError", error.message, error.code)
    return failed("ServiceError", f"The emulator has a defect: {type(error).__name__}: {error}")
