"""What the compute needs of the rest, and what the rest may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Definition = Mapping[str, Any]
"""A run configuration as the SDK submits it (``Configuration`` of ``snapshotrun``); names differ in case, see
:mod:`himl_container.emulator.compute.definition`."""

Say = Callable[[str], None]
"""Takes one line for the run's log (``azureml-logs/20_image_build_log.txt`` or the job's own log)."""


@dataclass(frozen=True)
class Cluster:
    """A compute target.

    :param max_nodes: how many nodes run at the same time; a job of several waits until that many are free.
    :param priority: ``dedicated`` or ``lowpriority``; only the latter may be preempted.
    :param gpus: of each node, as :attr:`himl_container.launch.spec.LaunchSpec.gpus`.
    :param memory: limit of each node in bytes; 0 for none.
    :param preempt_seed: with a low-priority cluster, a seed for preemptions that happen by themselves; None for none.
    """

    name: str
    vm_size: str = "STANDARD_DS3_V2"
    min_nodes: int = 0
    max_nodes: int = 1
    priority: str = "dedicated"
    gpus: str = "auto"
    memory: int = 0
    location: str = "eastus"
    idle_seconds: int = 120
    preempt_seed: int | None = None


@dataclass(frozen=True)
class JobInput:
    """One dataset that goes into a job.

    :param name: the name of the variables (``AZURE_ML_INPUT_<name>``) and of the argument's placeholder.
    :param mode: ``mount``, ``download``, ``direct`` (only its id is given to the script).
    :param path: where it shall lie in the container (``path_on_compute``); empty for the platform's own place.
    :param dataset_id: of the saved dataset; empty for a data reference.
    :param source: what :meth:`JobData.fetch` needs to bring it.
    :param value: what the variable and the placeholder become where nothing is laid out (``direct``).
    """

    name: str
    mode: str
    path: str = ""
    dataset_id: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)
    value: str = ""


@dataclass(frozen=True)
class JobOutput:
    """One folder that comes out of a job.

    :param name: as in :class:`JobInput`; :param mode: ``mount`` or ``upload``.
    :param target: what :meth:`JobData.store` needs.
    """

    name: str
    mode: str
    path: str = ""
    target: Mapping[str, Any] = field(default_factory=dict)


class JobData(Protocol):
    """The data of jobs (``himl_container.emulator.data``). Each method raises HimlError with a reason for the log."""

    def inputs(self, definition: Definition, submitter: str = "") -> tuple[JobInput, ...]:
        """Return what a definition's ``data`` and ``dataReferences`` ask for.

        :param submitter: the run whose job has submitted this one, and so may not be given other runs' files.
        """

    def outputs(self, run_id: str, definition: Definition, submitter: str = "") -> tuple[JobOutput, ...]:
        """Return what a definition's ``outputData`` promises."""

    def fetch(self, item: JobInput, folder: Path) -> str:
        """Lay an input's files out in an empty folder.

        :return: the name of the file, where the input is a single one whose own path the script is given; else empty.
        """

    def store(self, run_id: str, item: JobOutput, folder: Path) -> None:
        """Upload an output, register it as a dataset where that was asked for, and note the lineage in the run."""


class JobImages(Protocol):
    """The images of jobs (``himl_container.emulator.images``)."""

    def ready(self, definition: Definition, say: Say) -> tuple[str, str]:
        """Bring a definition's image to the daemon: pulled by digest, or built from Conda dependencies or a Dockerfile.

        :return: the daemon's id of the image, and the interpreter to call (``python`` or an absolute path).
        :raises HimlError: it cannot be pulled or built; the text goes into the run's error.
        """


class JobVariables(Protocol):
    """What only the server knows and a job needs (``himl_container.emulator.access``)."""

    def variables(self, run_id: str) -> dict[str, str]:
        """Return ``AZUREML_ARM_*``, tokens, service addresses, proxy and certificates, as seen from a container."""

    def mounts(self) -> Mapping[Path, str]:
        """Return files to mount read-only (the certificates): path here → path in the container."""

    def network(self) -> str:
        """Return the Docker network from which a container reaches the emulator."""


class Compute(Protocol):
    """What services and the search may ask of the compute."""

    def clusters(self) -> tuple[Cluster, ...]:
        """Return the compute targets."""

    def submit(self, run_id: str) -> None:
        """Queue the job of a run that was created with its definition, snapshot and target.

        :raises Refusal: 400 or 404, the cluster does not exist or is too small for the job.
        """

    def cancel(self, run_id: str) -> None:
        """Stop a job, queued or running; the run becomes Canceled. Nothing happens to one that has ended."""

    def preempt(self, run_id: str) -> None:
        """Kill the node of a running job without a signal and queue the job again.

        :raises Refusal: 409, it is not running, or its cluster is not of low priority.
        """


class JobSnapshots(Protocol):
    """The source snapshots (``himl_container.emulator.state.snapshots``)."""

    def unpack(self, snapshot_id: str, folder: Path) -> object:
        """Lay a snapshot's files out in an empty folder.

        :raises Refusal: 404, there is none.
        """
