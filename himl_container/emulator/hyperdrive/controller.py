"""One search, step by step: start children, read their metrics, cancel the hopeless, end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from himl_container.emulator.hyperdrive.definition import Search, child_definition
from himl_container.emulator.hyperdrive.journal import Journal, child_tags
from himl_container.emulator.hyperdrive.policies import History, reason_to_stop
from himl_container.emulator.hyperdrive.sampling import samples
from himl_container.emulator.hyperdrive.space import count
from himl_container.emulator.hyperdrive.store import Sample, SearchStore
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.run import Run, Status
from himl_container.emulator.state.runs import Runs


class Starter(Protocol):
    """What a search asks of the compute (:class:`himl_container.emulator.compute.model.Compute`)."""

    def submit(self, run_id: str) -> None:
        """Queue a run's job."""

    def cancel(self, run_id: str) -> None:
        """Stop a job."""


class Numbers(Protocol):
    """Where primary metrics are read (:class:`himl_container.emulator.state.metrics.Metrics`)."""

    def numbers(self, run_id: str, name: str, after: int = 0) -> tuple[list[float], int]:
        """Return what is new of a series, and where the next call goes on."""


@dataclass(frozen=True)
class Surroundings:
    """What all searches work with. ``clock`` in seconds since the epoch."""

    database: Database
    runs: Runs
    store: SearchStore
    compute: Starter
    metrics: Numbers
    journal: Journal
    clock: Callable[[], float]


@dataclass
class _Child:
    """What is known of a child, beside its run.

    :param read: where its metric was read to; :param judged: up to which interval the policy was asked.
    :param stopped: whether its cancellation was asked for.
    """

    history: History
    read: int = 0
    judged: int = 0
    stopped: bool = False


class Controller:
    """Carries out one search. Everything that counts after a kill is in the state, the rest is read again."""

    def __init__(self, run_id: str, search: Search, around: Surroundings) -> None:
        self._run_id, self._search, self._around = run_id, search, around
        known = around.store.samples(run_id)
        self._children = {sample.child_id: _Child(History(search.goal)) for sample in known}
        self._samples = islice(self._all_samples(), len(known), search.max_total)
        self._exhausted = False
        self._best = around.journal.best(run_id)

    def step(self) -> bool:
        """Do what can be done now; false where the search has ended.

        :raises Refusal: the compute does not take a child. :raises HimlError: the state or the storage failed.
        """
        run = self._around.runs.get(self._run_id)
        if run.status is Status.NOT_STARTED:
            run = self._begin()
        statuses = self._read()
        if run.status.ended:
            # Somebody else said so, by an event.
            self._cancel(statuses, "The search was ended from outside.")
            return False
        reason = self._reason_to_end(run)
        if reason:
            self._cancel(statuses, reason)
            if all(status.ended for status in statuses.values()):
                self._end(Status.CANCELED, reason)
                return False
            return True
        self._judge(statuses)
        live = sum(not status.ended for status in statuses.values())
        while live < self._search.max_concurrent and self._start_one(run):
            live += 1
        if live == 0:
            self._finish(statuses)
            return False
        return True

    def fail(self, message: str, error: Mapping[str, Any]) -> None:
        """End a search that cannot go on, and its children."""
        self._cancel(self._statuses(), message)
        self._end(Status.FAILED, message, error)

    # --- children ---

    def _begin(self) -> Run:
        search, say = self._search, self._say
        say("API", "The search has been created.")
        for note in search.notes:
            say("API", note, "WARNING")
        sizes = [count(expression) for expression in search.space.values()]
        size = math.prod(number or 0 for number in sizes) if None not in sizes else None
        points = "without end" if size is None else f"of {size} points"
        say("GENERATOR", f"{search.method.capitalize()} sampling of a space {points}; at most {search.max_total} runs.")
        return self._around.runs.set_status(self._run_id, Status.RUNNING)

    def _all_samples(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield parameters, and the earlier child of which a child goes on."""
        for earlier in self._search.resumed:
            sample = self._around.store.sample_of(earlier)
            if sample is not None:
                yield dict(sample.parameters), earlier
        seed = self._search.seed or self._run_id
        for parameters in samples(self._search.method, self._search.space, seed):
            yield parameters, ""

    def _start_one(self, parent: Run) -> bool:
        following = None if self._exhausted else next(self._samples, None)
        if following is None:
            if not self._exhausted:
                self._exhausted = True
                self._say("GENERATOR", f"All {len(self._children)} runs have been generated.")
                self._around.journal.note_progress(self._run_id, all_generated=True, cancelled=False)
            return False
        parameters, earlier = following
        number = len(self._children)
        child_id = f"{self._run_id}_{number}"
        with self._around.database.write():
            # All of it or nothing: a child that a kill leaves has its parameters and its job.
            self._around.store.add_sample(self._run_id, Sample(number, child_id, parameters))
            self._around.journal.note_sample(self._run_id, child_id, parameters)
            self._around.runs.create(
                parent.experiment,
                child_id,
                parent_id=self._run_id,
                definition=child_definition(self._search, parameters, earlier),
                snapshot_id=self._search.snapshot_id,
                target=parent.target,
                created_by=parent.created_by,
                submitter=parent.submitter,
                tags=child_tags(parameters),
                properties={
                    "_azureml.ComputeTargetType": "amlctrain",
                    **({"ContentSnapshotId": self._search.snapshot_id} if self._search.snapshot_id else {}),
                },
            )
            self._around.compute.submit(child_id)
        self._children[child_id] = _Child(History(self._search.goal))
        self._say("SCHEDULER", f"Scheduled job {child_id} with {_shown(parameters)}.")
        return True

    def _statuses(self) -> dict[str, Status]:
        """Return the status of every child; runs that somebody else put below the search are none."""
        found = self._around.runs.statuses(self._run_id)
        return {child_id: found[child_id] for child_id in self._children if child_id in found}

    def _read(self) -> dict[str, Status]:
        """Read what is new of the primary metric; note what has ended and which child is the best."""
        # First the statuses: what is logged before a run ends is there before its status says so.
        statuses = self._statuses()
        for child_id, status in statuses.items():
            child = self._children[child_id]
            if child.history.finished:
                continue
            new, child.read = self._around.metrics.numbers(child_id, self._search.metric, child.read)
            for value in new:
                child.history.add(value)
            self._compare(child_id, child.history)
            if status.ended:
                child.history.finished = True
                self._say("CONTROLLER", f"Job {child_id} has ended: {status.value}.")
        return statuses

    def _compare(self, child_id: str, history: History) -> None:
        best = history.best()
        if not math.isfinite(best):
            return
        if self._best is None or best > history.sign * self._best[1]:
            self._best = (child_id, history.sign * best)
            self._around.journal.note_best(self._run_id, self._search, self._best, final=False)
            self._say("CONTROLLER", f"Best so far: {self._search.metric} = {self._best[1]:.6g} of {child_id}.")

    def _judge(self, statuses: Mapping[str, Status]) -> None:
        """Ask the policy about every interval that children have come to since it was asked last."""
        histories = {child_id: child.history for child_id, child in self._children.items()}
        for child_id, status in statuses.items():
            child = self._children[child_id]
            while child.judged < len(child.history) and not child.stopped and not status.ended:
                child.judged += 1
                why = reason_to_stop(self._search.policy, child_id, histories, child.judged)
                if why:
                    child.stopped = True
                    self._say("POLICY", f"Job {child_id} is cancelled early: {why}.")
                    self._around.compute.cancel(child_id)

    def _cancel(self, statuses: Mapping[str, Status], reason: str) -> None:
        for child_id, status in statuses.items():
            child = self._children[child_id]
            if not status.ended and not child.stopped:
                child.stopped = True
                self._say("CONTROLLER", f"Job {child_id} is cancelled: {reason}")
                self._around.compute.cancel(child_id)

    # --- the end ---

    def _reason_to_end(self, run: Run) -> str:
        if run.status is Status.CANCEL_REQUESTED:
            self._around.journal.note_progress(self._run_id, all_generated=self._exhausted, cancelled=True)
            return "The search was cancelled."
        minutes = self._search.max_minutes
        if self._around.clock() > run.created + 60 * minutes:
            return f"The search has reached its maximum duration of {minutes} minutes."
        return ""

    def _finish(self, statuses: Mapping[str, Status]) -> None:
        failed = [child_id for child_id, status in statuses.items() if status is Status.FAILED]
        if failed and len(failed) == len(statuses):
            error = self._around.runs.get(failed[0]).error
            inner = error.get("error", error)
            why = inner.get("message") if isinstance(inner, Mapping) else ""
            message = f"All {len(failed)} runs of the search failed. The first, {failed[0]}, said: {why or 'nothing'}"
            self._end(Status.FAILED, message, {"error": {"code": "UserError", "message": message}})
            return
        self._end(Status.COMPLETED, f"{len(statuses)} runs have ended, {len(failed)} of them failed.")

    def _end(self, status: Status, message: str, error: Mapping[str, Any] | None = None) -> None:
        if self._best is not None:
            self._around.journal.note_best(self._run_id, self._search, self._best, final=True)
        self._say("CONTROLLER", f"{message} The search is {status.value}.", "ERROR" if error else "INFO")
        # The log is whole before the status says that it is.
        self._around.runs.set_status(self._run_id, status, error=error)

    def _say(self, part: str, text: str, level: str = "INFO") -> None:
        self._around.journal.say(self._run_id, part, text, level)


def _shown(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r:.200}" for name, value in parameters.items())
