"""The compute: queues, nodes, and the threads in which jobs run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from himl_container.emulator.compute.definition import read_definition
from himl_container.emulator.compute.ends import NO_CLUSTER, error_document
from himl_container.emulator.compute.job import JobStart
from himl_container.emulator.compute.model import Cluster, Definition
from himl_container.emulator.compute.queue import Waiting, choose
from himl_container.emulator.compute.recovery import bury, take_up
from himl_container.emulator.compute.workshop import Control, Workshop
from himl_container.emulator.http import Refusal, not_found
from himl_container.emulator.state.jobs import Job
from himl_container.emulator.state.runs import Status
from himl_container.errors import HimlError

_log = logging.getLogger(__name__)

StartJob = Callable[[Workshop, Job, Cluster, Control], bool]
"""Runs one start of a job to its end; true where it is to be queued again."""


@dataclass
class _Running:
    waiting: Waiting
    cluster: Cluster
    control: Control = field(default_factory=Control)
    thread: threading.Thread | None = None


@dataclass(frozen=True)
class Occupied:
    """What a cluster is doing.

    :param running: nodes of each running job, by run id.
    """

    running: dict[str, int]
    waiting: int


class LocalCompute:
    """Runs jobs in Docker on this machine. See :class:`himl_container.emulator.compute.model.Compute`.

    Its lock is never held while a run's status changes: whoever listens to that may ask the compute for something.
    """

    def __init__(
        self,
        clusters: tuple[Cluster, ...],
        workshop: Workshop,
        start_job: StartJob = lambda *words: JobStart(*words).carry_out(),
    ) -> None:
        self._clusters = {cluster.name.lower(): cluster for cluster in clusters}
        self._workshop, self._start_job = workshop, start_job
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[str, Waiting]] = {name: {} for name in self._clusters}
        self._running: dict[str, _Running] = {}
        self._open = self._stopped = False
        self._recovery: threading.Thread | None = None

    # --- life ---

    def start(self) -> None:
        """Take up what an earlier emulator left, in the background, and begin to start jobs."""
        self._recovery = threading.Thread(target=self._recover, name="recovery of jobs", daemon=True)
        self._recovery.start()

    def stop(self, timeout: float = 60) -> None:
        """End all running jobs at once, with their files kept, and start no more.

        What waits stays queued, and what is being prepared is queued again by the next emulator.
        """
        with self._lock:
            self._open, self._stopped = False, True
            running = list(self._running.values())
        for item in running:
            item.control.stop()
        deadline = time.monotonic() + timeout
        begun = [item.thread for item in running if item.control.started.is_set()]
        for thread in (self._recovery, *begun):
            if thread is not None and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _recover(self) -> None:
        """Clean up after an earlier emulator; then everything that waits may start."""
        try:
            waiting, dead = take_up(self._workshop)
            for job in waiting:
                self._enqueue(job)
        except Exception:  # noqa: BLE001 - new jobs shall run, whatever became of the old ones
            _log.exception("jobs of an earlier emulator could not be taken up")
            dead = []
        with self._lock:
            self._open = not self._stopped
        self._pump()
        for job in dead:
            self._bury(job)

    def _bury(self, job: Job) -> None:
        try:
            bury(self._workshop, job)
        except Exception:  # noqa: BLE001 - the others shall be ended nevertheless
            _log.exception("run %s, which was found dead, could not be ended", job.run_id)

    # --- for services and the search ---

    def clusters(self) -> tuple[Cluster, ...]:
        """Return the compute targets."""
        return tuple(self._clusters.values())

    def cluster(self, name: str) -> Cluster:
        """Return a compute target by name, which does not distinguish case.

        :raises Refusal: 404, there is none.
        """
        found = self._clusters.get(name.lower())
        if found is None:
            raise not_found(f"Compute target {name}")
        return found

    def occupied(self, name: str) -> Occupied:
        """Return what a cluster is doing."""
        with self._lock:
            running = {
                item.waiting.run_id: item.waiting.nodes
                for item in self._running.values()
                if item.cluster.name.lower() == name.lower()
            }
            return Occupied(running, len(self._waiting.get(name.lower(), ())))

    def submit(self, run_id: str) -> None:
        """Queue the job of a run that was created with its definition, snapshot and target.

        :raises Refusal: 400 or 404, the definition is unusable, or the cluster does not exist or is too small.
        """
        run = self._workshop.runs.get(run_id)
        cluster = self.check(run.target, run.definition)
        job = self._workshop.jobs.add(run_id, cluster.name)
        self._workshop.runs.set_status(run_id, Status.QUEUED)
        self._enqueue(job)
        self._pump()

    def check(self, target: str, definition: Definition) -> Cluster:
        """Return the cluster on which a definition could run; nothing has to exist yet.

        :raises Refusal: as :meth:`submit`.
        """
        request = read_definition(definition)
        cluster = self.cluster(target or request.target)
        if request.nodes > cluster.max_nodes:
            raise Refusal(
                400,
                "UserError",
                f"The requested number of nodes ({request.nodes}) exceeds the number of nodes of the compute target "
                f"{cluster.name} ({cluster.max_nodes}).",
            )
        return cluster

    def cancel(self, run_id: str) -> None:
        """Stop a job, queued or running; the run becomes Canceled. Nothing happens to one that has ended."""
        run = self._workshop.runs.get(run_id)
        if run.status.ended:
            return
        with self._lock:
            running = self._running.get(run_id)
            for waiting in self._waiting.values():
                waiting.pop(run_id, None)
            if running is not None:
                running.control.cancel()
        if running is not None:
            self._workshop.runs.set_status(run_id, Status.CANCEL_REQUESTED)
            return
        self._workshop.runs.set_status(run_id, Status.CANCELED)
        self._workshop.jobs.remove(run_id)
        self._pump()  # it may have kept others waiting

    def preempt(self, run_id: str) -> None:
        """Kill the node of a running job without a signal and queue the job again.

        :raises Refusal: 404 no such run, 409 it is not running, or its cluster is not of low priority.
        """
        run = self._workshop.runs.get(run_id)
        with self._lock:
            running = self._running.get(run_id)
        if running is None or not running.control.running.is_set():
            raise Refusal(409, "Conflict", f"Run {run_id} is {run.status.value}; only a running job can be preempted.")
        if running.cluster.priority != "lowpriority":
            raise Refusal(
                409, "Conflict", f"The cluster {running.cluster.name} is dedicated; its jobs are not preempted."
            )
        running.control.preempt()

    # --- queue ---

    def _enqueue(self, job: Job) -> None:
        run = self._workshop.runs.get(job.run_id)
        request = read_definition(run.definition)
        item = Waiting(job.run_id, request.nodes, job.position, request.priority)
        with self._lock:
            queue = self._waiting.get(job.cluster.lower())
            if queue is not None:
                queue[job.run_id] = item
        if queue is None:  # the configuration has changed
            error = error_document("UserError", NO_CLUSTER.format(name=job.cluster), "ComputeTargetNotFound")
            self._workshop.runs.set_status(job.run_id, Status.FAILED, error=error)
            self._workshop.jobs.remove(job.run_id)

    def _pump(self) -> None:
        """Start what can be started."""
        with self._lock:
            for name, waiting in self._waiting.items() if self._open else ():
                cluster = self._clusters[name]
                busy = sum(item.waiting.nodes for item in self._running.values() if item.cluster is cluster)
                for item in choose(waiting.values(), cluster.max_nodes - busy):
                    del waiting[item.run_id]
                    running = _Running(item, cluster)
                    running.thread = threading.Thread(
                        target=self._work, args=(running,), name=f"job {item.run_id}", daemon=True
                    )
                    self._running[item.run_id] = running
                    running.thread.start()  # within the lock, so that stop() finds no thread that was not started

    def _work(self, running: _Running) -> None:
        """Run one start of a job, then let the next ones have its nodes."""
        run_id, again = running.waiting.run_id, False
        try:
            job = self._workshop.jobs.find(run_id)
            if job is not None and not self._workshop.runs.get(run_id).status.ended:
                again = self._start_job(self._workshop, job, running.cluster, running.control)
        except (HimlError, Refusal) as error:
            _log.error("run %s: %s", run_id, error)
        except Exception:  # noqa: BLE001 - its nodes must be free again
            _log.exception("run %s", run_id)
        with self._lock:  # who cancels from now on does not find it running
            del self._running[run_id]
            wish = running.control.wish
        job = self._workshop.jobs.find(run_id) if again else None
        if job is not None and wish == "cancel":
            self._workshop.runs.set_status(run_id, Status.CANCELED)
            self._workshop.jobs.remove(run_id)
        elif job is not None:
            self._workshop.runs.set_status(run_id, Status.QUEUED)
            self._enqueue(job)
        self._pump()
