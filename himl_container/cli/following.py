"""Waiting for a run in AzureML on the command line: its log on standard output, its end as an exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from himl_container.errors import RunFailedError

if TYPE_CHECKING:
    from azureml.core import Run

    from himl_container.azureml.following import RunEnd
    from himl_container.cli.output import Output

INTERRUPTED = 130
_SHOWN = 5


def wait_for(run: Run, output: Output, *, show: bool, value: Mapping[str, object]) -> int:
    """Wait for a run, and return the exit code that says how it ended.

    Ctrl-C ends the waiting and not the run.

    :param show: write the run's log to standard output; with JSON, to standard error.
    :param value: what the result has beside the run's end.
    :raises RunFailedError: the run did not complete.
    """
    from himl_container.azureml.following import Follower
    from himl_container.azureml.service_failures import explained

    stream = sys.stderr.buffer if output.as_json else sys.stdout.buffer

    def write(data: bytes) -> None:
        if show:
            stream.write(data)
            stream.flush()

    sys.stdout.flush()
    follower = Follower(run, write, tell=output.reporter.info)
    try:
        with explained(f"run {run.id}"):
            end = with_children(run, follower.follow())
    except KeyboardInterrupt:
        output.reporter.warn(
            f"no longer waiting; the run goes on. 'himl-container cancel {run.id}' ends it, "
            f"'himl-container logs --follow {run.id}' goes on showing its log."
        )
        return INTERRUPTED
    tell_end(end, output, value)
    return 0


def with_children(run: Run, end: RunEnd) -> RunEnd:
    """Return how a run ended, its children counted in: a search completes although some of its runs have failed.

    Those that an early termination has cancelled did what they should.
    """
    if not end.completed or getattr(run, "type", "") != "hyperdrive":
        return end
    failed = [child.id for child in run.get_children() if child.get_status() == "Failed"]
    if not failed:
        return end
    return end._replace(status="Failed", reason=f"{len(failed)} of its runs failed: {', '.join(failed[:_SHOWN])}")


def tell_end(end: RunEnd, output: Output, value: Mapping[str, object]) -> None:
    """Say how a run ended.

    :raises RunFailedError: it did not complete.
    """
    if end.completed:
        output.reporter.info(f"run {end.run} completed")
    output.result({**value, "run": end.run, "status": end.status, "reason": end.reason}, "")
    if end.completed:
        return
    words = {"Failed": "failed", "Canceled": "was cancelled", "NotResponding": "does not respond any more"}
    reason = f": {end.reason}" if end.reason else ""
    raise RunFailedError(
        f"run {end.run} {words.get(end.status, end.status)}{reason}",
        hint=f"'himl-container logs {end.run}' shows its log, 'himl-container download {end.run}' fetches its files.",
    )
