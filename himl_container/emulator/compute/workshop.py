"""What jobs are made with: the parts of the emulator that they need, and what was asked of one from outside."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from pathlib import Path

from himl_container.emulator.compute.ends import Wish
from himl_container.emulator.compute.model import JobData, JobImages, JobSnapshots, JobVariables
from himl_container.emulator.state.artifacts import Artifacts
from himl_container.emulator.state.jobs import Jobs
from himl_container.emulator.state.runs import Runs
from himl_container.launch.containers import LabelledContainers
from himl_container.launch.supervise import Event, Interrupt, Kill


@dataclass(frozen=True)
class Workshop:
    """What every job needs.

    :param folder: of all jobs' files on this machine.
    :param emulator_id: the workspace's id, by which containers of this emulator are known.
    """

    runs: Runs
    jobs: Jobs
    files: Artifacts
    snapshots: JobSnapshots
    data: JobData
    images: JobImages
    variables: JobVariables
    containers: LabelledContainers
    folder: Path
    emulator_id: str


@dataclass
class Control:
    """What was asked of a job from outside. Its methods may be called by any thread, at any time.

    :param events: what :class:`himl_container.launch.supervise.Supervisor` listens to.
    :param wish: what was asked, for those who look between two steps.
    :param started: set when the job is prepared and its containers are about to be made; until then, a job that is
        told to stop leaves nothing behind, and nobody waits for it.
    :param running: set while the job's processes run.
    """

    events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    wish: Wish = ""
    started: threading.Event = field(default_factory=threading.Event)
    running: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Ask the job to end; what is asked again changes nothing, so that the job keeps its time to end in order."""
        if not self.wish:
            self.wish = "cancel"
            self.events.put(Interrupt("SIGTERM"))

    def preempt(self) -> None:
        """Take the machine away."""
        self.events.put(Kill("preempted"))

    def stop(self) -> None:
        """End the job at once, because the emulator ends."""
        self.wish = "stop"
        self.events.put(Kill("terminated"))
