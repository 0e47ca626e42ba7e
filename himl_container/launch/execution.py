"""One run on this machine, step by step: folder, snapshot, starts, and the tidying up that follows in every case."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from himl_container.config.images import has_host
from himl_container.errors import EngineError, LaunchError, StorageError
from himl_container.launch.containers import Channel, Containers, ImageFacts, Mount, Session
from himl_container.launch.layout import lay_out
from himl_container.launch.local import LocalOptions
from himl_container.launch.nodes import (
    container_name,
    mounts_of,
    network_name,
    node_config,
    private_network,
)
from himl_container.launch.output import RunOutput
from himl_container.launch.ownership import calling_user, hand_over
from himl_container.launch.preempt import run_attempts
from himl_container.launch.run_folder import RunFolder, now
from himl_container.launch.snapshot import Snapshot
from himl_container.launch.spec import LaunchSpec, SnapshotRef
from himl_container.launch.supervise import Attempt, Event, Limits, Supervisor
from himl_container.launch.verdict import AttemptRecords, RunResult, judge
from himl_container.launch.working_copy import Stamps, make_folder, prune, strays, take
from himl_container.launch.working_copy import lay_out as copy_files
from himl_container.progress import Reporter


class Execution:
    """One run. See :func:`himl_container.launch.local.run_local` for the parameters and errors."""

    def __init__(
        self,
        spec: LaunchSpec,
        options: LocalOptions,
        snapshot: Snapshot,
        *,
        containers: Containers,
        reporter: Reporter,
        environ: Mapping[str, str],
        screen: Mapping[Channel, BinaryIO],
        events: queue.SimpleQueue[Event],
    ) -> None:
        self._spec, self._options, self._snapshot, self._containers = spec, options, snapshot, containers
        self._reporter, self._environ, self._screen, self._events = reporter, environ, screen, events
        self._gpus = "none"
        self._work: dict[Path, Stamps] = {}
        self._made: list[Path] = []
        self._problems: list[StorageError] = []

    def carry_out(self) -> RunResult:
        """Run it."""
        self._ask_engine()
        self._make_outputs()
        self._folder = RunFolder.create(
            self._options.runs, self._spec.name, self._spec.to_json(), self._options.to_json()
        )
        self._layout = lay_out(self._spec, hashlib.sha256(self._folder.id.encode()).hexdigest()[:32])
        try:
            self._take_snapshot()
            self._folder.point_latest()
            begin = time.monotonic()
            attempt = self._run()
            seconds = time.monotonic() - begin
        except BaseException as error:
            self._abandon(error)
            raise
        return self._finish(attempt, seconds)

    def _ask_engine(self) -> None:
        """Find the image, and what the GPUs of the description mean here."""
        reference = self._spec.image.id or self._spec.image.tag
        image = self._containers.image(reference)
        if image is None:
            raise LaunchError(f"the Docker daemon has no image {reference!r}", hint="Build or pull it first.")
        self._spec = replace(
            self._spec,
            image=replace(
                self._spec.image,
                id=image.id,
                digest=self._spec.image.digest or self._registry_digest(image),
                fingerprint=self._spec.image.fingerprint or image.labels.get("himl.fingerprint", ""),
            ),
        )
        self._gpus = self._spec.gpus
        if self._gpus == "auto":
            self._gpus = "all" if self._containers.facts().gpus else "none"

    def _registry_digest(self, image: ImageFacts) -> str:
        """Return the name by which the daemon itself pushed or pulled an image; empty where it did not."""
        names = [name for name in image.repo_digests if has_host(name.partition("@")[0])]
        return names[0] if names and not self._containers.facts().containerd_store else ""

    def _make_outputs(self) -> None:
        for folder in self._options.output_folders.values():
            make_folder(folder)

    def _take_snapshot(self) -> None:
        if self._options.live:
            self._spec = replace(self._spec, snapshot=SnapshotRef("", 0, 0))
            source = f"the live folder {self._snapshot.root}, not a snapshot of it"
        else:
            self._spec = replace(self._spec, snapshot=take(self._snapshot, self._folder.path / "snapshot"))
            source = f"a snapshot of {len(self._snapshot.files)} files"
        self._folder.update(launch=self._spec.to_json())
        for link in self._snapshot.outside:
            self._reporter.warn(f"{link} leads out of the source folder; what it leads to is part of the snapshot")
        self._reporter.info(f"run {self._folder.id}: {source}, image {self._spec.image.tag}")

    def _run(self) -> Attempt:
        network = network_name(self._spec, self._folder.id)
        with private_network(self._containers, network, self._folder.id, self._reporter.warn):
            return run_attempts(
                self._start,
                preempt=self._options.preempt,
                max_duration=self._spec.max_duration,
                grace=self._options.grace,
                tell=self._reporter.info,
            )

    def _start(self, number: int, limits: Limits) -> Attempt:
        """Make one start: fresh working folders, a container for each node, and its output until the end."""
        nodes = {
            rank: node_config(
                self._spec,
                self._layout,
                self._folder.id,
                rank=rank,
                attempt=number,
                mounts=self._mounts(rank, number),
                gpus=self._gpus,
                memory=self._options.memory,
                tty=self._options.interactive,
                terminal=self._environ.get("TERM", ""),
            )
            for rank in range(self._spec.nodes)
        }
        logs = {rank: self._folder.log(rank, self._spec.nodes, number) for rank in nodes}
        names = {rank: str(path.relative_to(self._folder.path)) for rank, path in logs.items()}
        records = AttemptRecords(nodes, number, names)

        @contextlib.contextmanager
        def running(sessions: Mapping[int, Session]) -> Iterator[None]:
            begun = {} if self._folder.record.started else {"started": now()}
            self._record(lambda: self._folder.set_nodes(records.started(now()), state="running", **begun))
            with self._terminal(nodes[0].name, sessions):
                yield

        self._folder.set_nodes(records.planned())
        output = RunOutput(logs, self._screen)
        try:
            supervisor = Supervisor(self._containers, self._events, output, self._reporter.info)
            attempt = supervisor.run(nodes, limits, running)
        finally:
            lost = output.close()
            self._problems += [lost] if lost else []
        self._record(lambda: self._folder.set_nodes(records.ended(attempt, now())))
        return attempt

    def _mounts(self, rank: int, number: int) -> tuple[Mount, ...]:
        work = self._snapshot.root
        if not self._options.live:
            work = self._folder.path / "work" / (f"node-{rank}" + (f"-retry{number}" if number else ""))
            self._work[work] = copy_files(self._folder.path / "snapshot", self._snapshot.files, work)
        for name in (self._spec.output_folder, self._spec.log_folder):
            if not (work / name).is_dir():
                make_folder(work / name)  # Docker would make it too, but for root
                self._made.append(work / name)
        return mounts_of(
            self._spec,
            self._layout,
            work=work,
            run_folder=self._folder.path,
            dataset_folders={name: folder.absolute() for name, folder in self._options.dataset_folders.items()},
            output_folders={name: folder.absolute() for name, folder in self._options.output_folders.items()},
        )

    def _terminal(self, name: str, sessions: Mapping[int, Session]) -> contextlib.AbstractContextManager[None]:
        if not self._options.interactive:
            return contextlib.nullcontext()
        from himl_container.launch.interactive import lend_terminal

        return lend_terminal(sessions[0], lambda rows, columns: self._containers.resize(name, rows, columns))

    def _finish(self, attempt: Attempt, seconds: float) -> RunResult:
        verdict = judge(attempt, self._spec.max_duration)
        left = self._tidy()
        self._record(
            lambda: self._folder.update(
                state=verdict.state, ended=now(), exit_code=verdict.exit_code, reason=verdict.reason
            )
        )
        if attempt.error is not None:
            self._reporter.warn(f"the logs are in {self._folder.path}")
            raise attempt.error
        if self._problems:
            raise self._problems[0]
        preemptions = len({node.attempt for node in self._folder.record.nodes if node.preempted})
        return RunResult(
            self._folder.id,
            self._folder.path,
            verdict.state,
            verdict.exit_code,
            verdict.reason,
            seconds,
            preemptions,
            left,
        )

    def _abandon(self, error: BaseException) -> None:
        """A run that could not go on: nothing is left of one that never started, the truth of one that may have."""
        lost = isinstance(error, EngineError)
        never = not lost and not any(node.started for node in self._folder.record.nodes)
        self._tidy()
        if never:
            self._folder.discard()
            return
        reason = getattr(error, "what", "") or type(error).__name__
        self._record(lambda: self._folder.update(state="lost" if lost else "failed", ended=now(), reason=reason))
        self._reporter.warn(f"the logs are in {self._folder.path}")

    def _tidy(self) -> tuple[str, ...]:
        """Give the user what root wrote, and keep of the working folders only what the script left there."""
        shared = [*self._options.output_folders.values(), *([self._snapshot.root] if self._options.live else [])]
        hand_over(
            [self._folder.path],
            [folder.absolute() for folder in shared],
            calling_user(self._environ),
            containers=self._containers,
            image=self._spec.image.id,
            name=container_name(self._folder.id, 0, 0) + "-owner",
            warn=self._reporter.warn,
        )
        left: set[str] = set()
        mounted = (self._spec.output_folder, self._spec.log_folder)
        for folder, stamps in self._work.items():
            found = strays(folder, stamps, mounted)
            prune(folder, found)
            left.update(found)
        for folder in self._made:
            with contextlib.suppress(OSError):  # the live folder gets its mount points taken away, if they are empty
                folder.rmdir()
        with contextlib.suppress(OSError):  # something is kept in it
            (self._folder.path / "work").rmdir()
        return tuple(sorted(left))

    def _record(self, change: Callable[[], None]) -> None:
        """Write the record; when the disk is full, the run goes on and the error comes at the end."""
        try:
            change()
        except StorageError as error:
            self._problems.append(error)
