"""What a job needs, played: containers, images, data, variables, snapshots. Storage and state are the real ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unit.emulator.memory_blobs import MemoryBlobs
from unit.launch.launch_fakes import IMAGE_ID, FakeContainers, Script

from himl_container.emulator.compute.model import Cluster, JobInput, JobOutput
from himl_container.emulator.compute.scheduler import LocalCompute
from himl_container.emulator.compute.workshop import Workshop
from himl_container.emulator.http import Refusal
from himl_container.emulator.state.artifacts import Artifacts
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.jobs import Jobs
from himl_container.emulator.state.runs import Run, Runs, Status
from himl_container.launch.containers import ContainerConfig

CLUSTERS = (
    Cluster("cpu", max_nodes=2),
    Cluster("low", max_nodes=2, priority="lowpriority"),
)


class FakeDaemon(FakeContainers):
    """A daemon whose containers can be found by label."""

    def labelled(self, label: str, value: str) -> Mapping[str, Mapping[str, str]]:
        self._fault("labelled")
        found = {name: session.config.labels for name, session in self.alive.items()}
        return {name: labels for name, labels in found.items() if labels.get(label) == value}


class FakeImages:
    def __init__(self) -> None:
        self.error: Exception | None = None
        self.gate: threading.Event | None = None

    def ready(self, definition: Mapping[str, Any], say: Callable[[str], None]) -> tuple[str, str]:
        say("image: found")
        if self.gate is not None:
            assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return IMAGE_ID, "python"


class FakeData:
    def __init__(self) -> None:
        self.given: tuple[JobInput, ...] = ()
        self.taken: tuple[JobOutput, ...] = ()
        self.stored: list[tuple[str, str, list[str]]] = []
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.forbidden = False

    def check(self, run_id: str, definition: Mapping[str, Any], submitter: str) -> None:
        if self.forbidden:
            raise Refusal(403, "AuthorizationFailed", f"not for the job of {submitter}")

    def inputs(self, definition: Mapping[str, Any], submitter: str = "") -> tuple[JobInput, ...]:
        self.asked.append(submitter)
        return self.given

    def outputs(self, run_id: str, definition: Mapping[str, Any], submitter: str = "") -> tuple[JobOutput, ...]:
        return self.taken

    def fetch(self, item: JobInput, folder: Path) -> str:
        (folder / "data.csv").write_text(item.name)
        return "data.csv" if item.source.get("single") else ""

    def store(self, run_id: str, item: JobOutput, folder: Path) -> None:
        if self.error is not None:
            raise self.error
        self.stored.append((run_id, item.name, sorted(path.name for path in folder.iterdir())))


class FakeVariables:
    def variables(self, run_id: str) -> dict[str, str]:
        return {"AZUREML_RUN_TOKEN": f"token of {run_id}", "AZUREML_RUN_ID": run_id}

    def mounts(self) -> Mapping[Path, str]:
        return {Path("/etc/hostname"): "/certificates.pem"}

    def network(self) -> str:
        return "emulator-net"


class FakeSnapshots:
    def unpack(self, snapshot_id: str, folder: Path) -> None:
        (folder / "train.py").write_text("print('hello')\n")


class Plant:
    """A compute with everything that it needs, around a folder; another one may be built on the same state."""

    def __init__(self, folder: Path, *scripts: Script, clusters: tuple[Cluster, ...] = CLUSTERS) -> None:
        self.folder, self.clusters = folder, clusters
        self.daemon = FakeDaemon(*scripts)
        self.blobs = MemoryBlobs()
        self.images, self.data = FakeImages(), FakeData()
        self.database = Database(folder / "state.db")
        self.runs = Runs(self.database, time.time)
        self.jobs = Jobs(self.database)
        self.artifacts = Artifacts(self.database, self.blobs, time.time)
        self.changes: dict[str, list[Status]] = {}
        self._news = threading.Condition()
        self.runs.listen(self._note)
        self.compute = self.new_compute()

    def new_compute(self) -> LocalCompute:
        workshop = Workshop(
            runs=self.runs,
            jobs=self.jobs,
            files=self.artifacts,
            snapshots=FakeSnapshots(),
            data=self.data,
            images=self.images,
            variables=FakeVariables(),
            containers=self.daemon,
            folder=self.folder / "jobs",
            emulator_id="emulator-1",
        )
        self.workshop = workshop
        return LocalCompute(self.clusters, workshop)

    def create(self, run_id: str, target: str = "cpu", **definition: Any) -> Run:
        given = {"script": "train.py", "target": target, **definition}
        snapshot = "00000000-0000-0000-0000-000000000000"
        return self.runs.create("exp", run_id, target=target, definition=given, snapshot_id=snapshot)

    def submit(self, run_id: str, target: str = "cpu", **definition: Any) -> None:
        self.create(run_id, target, **definition)
        self.compute.submit(run_id)

    def wait(self, run_id: str, *wanted: Status) -> Run:
        """Wait until a run has one of these, or has ended, and ``changes`` says so too."""
        until = time.monotonic() + 60
        while True:
            found = self.runs.get(run_id)
            with self._news:
                told = found.status in self.changes.get(run_id, ())
                if told and (found.status in wanted or (not wanted and found.status.ended)):
                    return found
                assert not told or not found.status.ended, f"{run_id} is {found.status.value}: {found.error}"
                assert time.monotonic() < until, f"{run_id} stays {found.status.value}"
                self._news.wait(0.02)  # what changed since we asked was told before we listened

    def told(self, run_id: str, status: Status, times: int) -> None:
        """Wait until a run has had a status so many times, however shortly it had it."""
        with self._news:
            found = self._news.wait_for(lambda: self.changes.get(run_id, []).count(status) >= times, 60)
        assert found, f"{run_id} was {status.value} less than {times} times: {self.changes.get(run_id)}"

    def running(self, run_id: str) -> None:
        """Wait until a job's processes run."""
        self.wait(run_id, Status.RUNNING)
        item = self.compute._running[run_id]
        assert item.control.running.wait(20)

    def read(self, run_id: str, path: str) -> str:
        return self.artifacts.read(run_id, path).decode()

    def files(self, run_id: str) -> list[str]:
        return [artifact.path for artifact in self.artifacts.list(run_id)]

    def _note(self, old: Run, new: Run) -> None:
        with self._news:
            self.changes.setdefault(new.run_id, []).append(new.status)
            self._news.notify_all()


def host_path(config: ContainerConfig, inside: str) -> Path:
    """Return where a folder that ends in this inside a container lies on this machine."""
    return next(mount.source for mount in config.mounts if mount.target.endswith(inside))
