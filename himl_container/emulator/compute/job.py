"""One start of a job: image, snapshot, data, containers, logs, and what is kept of it."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from himl_container.emulator.compute.definition import JobRequest, read_definition
from himl_container.emulator.compute.description import (
    EMULATOR_LABEL,
    JobDescription,
    containers,
    data_variables,
    describe,
    grace,
)
from himl_container.emulator.compute.ends import (
    CANCELED,
    PREEMPTED,
    JobEnd,
    end_of_attempt,
    end_of_error,
)
from himl_container.emulator.compute.files import RunFiles
from himl_container.emulator.compute.finish import Finish
from himl_container.emulator.compute.folder import KEPT, JobFolder
from himl_container.emulator.compute.logs import BUILD_LOG, SYSTEM_LOG, JobLogs, RankLogs, rank_log
from himl_container.emulator.compute.model import Cluster, JobInput, JobOutput
from himl_container.emulator.compute.workshop import Control, Workshop
from himl_container.emulator.http import Refusal
from himl_container.emulator.state.jobs import Job
from himl_container.emulator.state.runs import Run, Status
from himl_container.errors import HimlError
from himl_container.launch.containers import ContainerConfig, Session
from himl_container.launch.parse import check_name
from himl_container.launch.supervise import Attempt, Limits, Supervisor

WATCH = 2.0
"""Seconds between two looks at ``logs/`` while a job runs."""

MOST_PREEMPTIONS = 3
"""How often a job is preempted by a seed at most, so that it ends."""

_log = logging.getLogger(__name__)


class _AskedToEnd(Exception):  # noqa: N818  # not a failure
    """Somebody asked the job to end while it was being prepared."""


@dataclass(frozen=True)
class _Prepared:
    """A job whose files are in place."""

    description: JobDescription
    inputs: tuple[JobInput, ...]
    outputs: tuple[JobOutput, ...]
    gpus: str


class JobStart:
    """One start of a job.

    :param job: as it is known to the queue; :param control: what others ask of it meanwhile.
    """

    def __init__(self, workshop: Workshop, job: Job, cluster: Cluster, control: Control) -> None:
        self._workshop, self._job, self._cluster, self._control = workshop, job, cluster, control
        self._folder = JobFolder(workshop.folder, job.run_id)
        self._files = RunFiles(workshop.files, job.run_id)
        self._logs = JobLogs(workshop.files, job.run_id)

    def carry_out(self) -> bool:
        """Run it to its end; true where it was preempted and is to be started again."""
        prepared: _Prepared | None = None
        seconds, ran = 0.0, False
        try:
            run = self._workshop.runs.get(self._job.run_id)
            request = read_definition(run.definition)
            self._begin(request)
            prepared = self._prepare(run, request)
            self._control.started.set()
            self._advance(Status.STARTING)
            begin, ran = time.monotonic(), True
            attempt = self._run(prepared)
            seconds = time.monotonic() - begin
            again = attempt.outcome == "preempted" and attempt.error is None and not self._control.wish
            end = None if again else self._end(prepared, attempt)
        except _AskedToEnd:
            end = CANCELED
        except (HimlError, Refusal, OSError) as error:
            end = end_of_error(error)
        except Exception as error:  # noqa: BLE001 - the run must end and its nodes be free again, whatever happens
            _log.exception("job of run %s", self._job.run_id)
            end = end_of_error(error)
        if self._control.wish and not ran:
            if self._control.wish == "stop":  # the next emulator queues the job again
                self._logs.close()
                return False
            end = CANCELED  # also where its image could not be had in the meantime
        finish = Finish(self._workshop, self._job.run_id, self._folder, self._files, self._logs)
        if end is None:
            self._preempted(finish, seconds)
            return True
        finish.carry_out(end, prepared.outputs if prepared else ())
        return False

    # --- before ---

    def _begin(self, request: JobRequest) -> None:
        self._advance(Status.PREPARING)
        processes = request.nodes * request.processes
        logs = [rank_log(rank, processes) for rank in range(processes)]
        if self._job.attempt:
            # "All AzureML-internal log files that the job produced in a previous run will be overwritten" (hi-ml).
            for path in (SYSTEM_LOG, BUILD_LOG, *logs):
                self._logs.restart(path)
            self._say(f"Start {self._job.attempt + 1}, after a preemption.")
        for path in logs:
            self._logs.open(path)
        for line in request.ignored:
            self._say(line)

    def _prepare(self, run: Run, request: JobRequest) -> _Prepared:
        shop = self._workshop
        gpus = self._gpus()  # first, because it tells whether a daemon is there that runs jobs
        image, interpreter = shop.images.ready(run.definition, lambda line: self._logs.say(line, BUILD_LOG))
        self._say(f"Image {image}, interpreter {interpreter}.")
        self._stop_here()
        inputs = shop.data.inputs(run.definition, run.submitter)
        outputs = shop.data.outputs(run.run_id, run.definition, run.submitter)
        for name in (*(item.name for item in inputs), *(item.name for item in outputs)):
            check_name(name, "data")  # it becomes a folder
        # What was written to a mounted output is in the datastore already, and stays in sight.
        mounted = [item.name for item in outputs if item.mode == "mount"] if self._job.attempt else []
        self._folder.make(request.nodes, [item.name for item in outputs], mounted)
        self._folder.note_image(image)
        for node in range(request.nodes if run.snapshot_id else 0):
            shop.snapshots.unpack(run.snapshot_id, self._folder.node(node))
        self._say(f"Snapshot {run.snapshot_id or '(none)'} in the working directory.")
        self._folder.make_mount_points(request.nodes)
        if self._job.attempt:
            count = sum(self._files.restore(name, self._folder.path) for name in KEPT)
            self._say(f"{count} files of earlier starts are back in {' and '.join(KEPT)}.")
        files = self._fetch(inputs)
        description = describe(
            run.run_id,
            request,
            image=image,
            interpreter=interpreter,
            inputs=inputs,
            outputs=outputs,
            files=files,
            cluster=self._cluster,
        )
        self._note_inputs(description, inputs)
        return _Prepared(description, inputs, outputs, gpus)

    def _fetch(self, inputs: tuple[JobInput, ...]) -> dict[str, str]:
        """Bring the inputs' files; returns the name of the file of those that are a single one."""
        files: dict[str, str] = {}
        for item in inputs:
            if item.mode == "direct":
                continue
            self._stop_here()
            folder = self._folder.input(item.name)
            folder.mkdir()
            file = self._workshop.data.fetch(item, folder)
            if file:
                files[item.name] = file
            self._say(f"Input {item.name} is there.")
        return files

    def _note_inputs(self, description: JobDescription, inputs: tuple[JobInput, ...]) -> None:
        """Note the lineage, in the shape of the SDK's ``DatasetLineage``."""
        lineage = tuple(
            {
                "identifier": {"savedId": item.dataset_id},
                "consumptionType": "RunInput",
                "inputDetails": {
                    "inputName": item.name,
                    "mechanism": item.mode.capitalize(),
                    "pathOnCompute": item.path or None,
                },
            }
            for item in inputs
            if item.dataset_id
        )
        if lineage:
            self._workshop.runs.change(description.run_id, lambda run: replace(run, input_datasets=lineage))

    # --- meanwhile ---

    def _run(self, prepared: _Prepared) -> Attempt:
        description = prepared.description
        holders, ranks = self._containers(prepared)
        for mount in ranks[0].mounts:
            self._say(f"Mount {mount.target}{' (read-only)' if mount.read_only else ''}.")
        paths = {rank: rank_log(rank, description.processes) for rank in ranks}
        supervisor = Supervisor(self._workshop.containers, self._control.events, RankLogs(self._logs, paths), self._say)
        with self._held(holders):
            return supervisor.run(ranks, self._limits(description), self._running)

    def _containers(self, prepared: _Prepared) -> tuple[tuple[ContainerConfig, ...], dict[int, ContainerConfig]]:
        shop, description = self._workshop, prepared.description
        request = description.request
        return containers(
            description,
            attempt=self._job.attempt,
            work={node: self._folder.node(node) for node in range(request.nodes)},
            folder=self._folder.path,
            inputs={item.name: self._folder.input(item.name) for item in prepared.inputs if item.mode != "direct"},
            outputs={item.name: self._folder.output(item.name) for item in prepared.outputs},
            mounts=shop.variables.mounts(),
            variables={
                **data_variables(prepared.inputs, description.values),
                # The container's init process passes a signal on to a command's children too, not to its shell alone.
                "TINI_KILL_PROCESS_GROUP": "1",
                **shop.variables.variables(description.run_id),
            },
            gpus=prepared.gpus,
            memory=request.memory or self._cluster.memory,
            network=shop.variables.network(),
            labels={EMULATOR_LABEL: shop.emulator_id},
        )

    def _gpus(self) -> str:
        if self._cluster.gpus != "auto":
            return self._cluster.gpus
        return "all" if self._workshop.containers.facts().gpus else "none"

    def _limits(self, description: JobDescription) -> Limits:
        spec = description.spec
        left = None if spec.max_duration is None else max(0.0, spec.max_duration - self._job.seconds)
        return Limits(
            preemption_of(self._cluster, self._job.position, self._job.attempt), left, grace(dict(spec.environment))
        )

    @contextlib.contextmanager
    def _held(self, holders: tuple[ContainerConfig, ...]) -> Iterator[None]:
        """Hold the nodes of several processes together."""
        engine = self._workshop.containers
        with contextlib.ExitStack() as stack:
            for config in holders:
                stack.callback(engine.remove, config.name)
                engine.create(config)
                engine.start(config.name)
            yield

    @contextlib.contextmanager
    def _running(self, _sessions: Mapping[int, Session]) -> Iterator[None]:
        """Keep what there is to keep while the processes run: ``logs/`` goes up as it is written."""
        self._control.running.set()  # first: who sees the status may preempt the job
        self._tell(Status.RUNNING)
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,), name="logs of a job", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._control.running.clear()
            ended.set()
            watcher.join()

    def _watch(self, ended: threading.Event) -> None:
        wait = WATCH
        while not ended.wait(wait):
            begin = time.monotonic()
            self._files.save(self._folder.path / "logs", "logs")
            # A log of many megabytes is sent whole each time; that must not keep the machine busy.
            wait = max(WATCH, 10 * (time.monotonic() - begin))

    # --- after ---

    def _end(self, prepared: _Prepared, attempt: Attempt) -> JobEnd:
        count = prepared.description.processes
        tails = {rank: self._logs.tail(rank_log(rank, count)) for rank in range(count)}
        return end_of_attempt(attempt, self._control.wish, prepared.description.spec.max_duration, tails)

    def _preempted(self, finish: Finish, seconds: float) -> None:
        """Keep the files; the rest dies with the machine."""
        finish.keep_files()
        self._workshop.jobs.preempted(self._job.run_id, seconds)
        warning = {"source": "compute", "message": PREEMPTED}
        self._workshop.runs.change(self._job.run_id, lambda run: replace(run, warnings=(*run.warnings, warning)))
        finish.close()

    def _advance(self, status: Status) -> None:
        self._stop_here()
        self._tell(status)

    def _tell(self, status: Status) -> None:
        self._workshop.runs.set_status(self._job.run_id, status, unless=(Status.CANCEL_REQUESTED,))

    def _stop_here(self) -> None:
        if self._control.wish:
            raise _AskedToEnd

    def _say(self, line: str) -> None:
        self._logs.say(line)


def preemption_of(cluster: Cluster, position: int, attempt: int) -> float | None:
    """Return when a start of a job is preempted by itself, in seconds; None for never.

    With a seed, about every second start is; the same jobs in the same order are preempted in the same way.
    """
    if cluster.preempt_seed is None or attempt >= MOST_PREEMPTIONS:
        return None
    chance = random.Random(f"{cluster.preempt_seed}/{position}/{attempt}")  # noqa: S311 - it is to be repeatable
    return chance.uniform(1, 10) if chance.random() < 0.5 else None
