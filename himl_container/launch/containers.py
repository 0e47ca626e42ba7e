"""Containers as the launcher sees them: a small Protocol, so that each fault can be played in a test.

:func:`connect` gives the real thing (:mod:`himl_container.launch.docker_containers`), which speaks to the daemon's
socket itself: the Docker SDK takes longer to import than a container takes to start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Signal = Literal["SIGINT", "SIGTERM", "SIGKILL"]
Channel = Literal["stdout", "stderr"]
RUN_LABEL = "himl-container.run"


@dataclass(frozen=True)
class Mount:
    """A folder of this machine inside a container."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class ContainerConfig:
    """One container before it exists.

    :param name: chosen by us, so that it can be removed although the answer to its creation never came.
    :param gpus: ``none``, ``all`` or a number.
    :param network: name of a network; empty for the daemon's default one; ``container:NAME`` for that of another
        container.
    :param ipc: whose shared memory: empty for its own, ``shareable`` for one that others may join, ``container:NAME``
        for that of another container.
    :param memory: limit in bytes; 0 for none.
    :param tty: give it a terminal and an open input.
    """

    name: str
    image: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    working_dir: str = ""
    user: str = "0:0"
    shm_size: int = 0
    gpus: str = "none"
    network: str = ""
    ipc: str = ""
    hostname: str = ""
    memory: int = 0
    tty: bool = False
    host_users: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageFacts:
    """What a run records of its image.

    :param repo_digests: ``repository@sha256:...`` names by which the daemon says that registries know it.
    """

    id: str
    repo_digests: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineFacts:
    """What a run needs to know of the daemon.

    :param gpus: whether it has the NVIDIA runtime.
    :param rootless: whether root inside a container is the calling user outside.
    :param containerd_store: whether images live in containerd's store, which gives a digest to every image, whether or
        not a registry has it.
    """

    gpus: bool
    rootless: bool
    containerd_store: bool = False


@dataclass(frozen=True)
class Ended:
    """How a container's main process ended. ``exit_code`` is 128 + n after signal n."""

    exit_code: int
    oom_killed: bool = False


class Session(Protocol):
    """A connection to a container that was opened before its start, so that nothing of its output is lost."""

    def output(self) -> Iterator[tuple[Channel, bytes]]:
        """Yield what the container writes, as it comes, until it ends."""

    def send(self, data: bytes) -> None:
        """Type into the container's terminal."""

    def ended(self) -> Ended:
        """Wait for the container's end.

        :raises EngineError: the daemon went away.
        """

    def close(self) -> None:
        """Drop the connection; makes :meth:`output` and :meth:`ended` of another thread come to an end."""


class Containers(Protocol):
    """A daemon that runs containers. Every method raises EngineError when the daemon does not answer or goes away."""

    def image(self, reference: str) -> ImageFacts | None:
        """Return the image of a name or id; None when there is none."""

    def facts(self) -> EngineFacts:
        """Return what the daemon can do."""

    def create(self, config: ContainerConfig) -> None:
        """Create a container.

        :raises LaunchError: the daemon refuses it.
        """

    def open(self, name: str, *, tty: bool = False) -> Session:
        """Connect to a created container."""

    def start(self, name: str) -> None:
        """Start a created container.

        :raises LaunchError: its command does not exist, a GPU is missing, a folder cannot be mounted.
        """

    def signal(self, name: str, signal: Signal) -> None:
        """Send a signal to the main process. Nothing happens when the container is gone or not running."""

    def resize(self, name: str, rows: int, columns: int) -> None:
        """Tell a container's terminal its size."""

    def remove(self, name: str) -> None:
        """Kill and remove a container. Nothing happens when there is none."""

    def create_network(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a private network.

        :raises LaunchError: the daemon refuses it.
        """

    def remove_network(self, name: str) -> None:
        """Remove a network. Nothing happens when there is none."""


class LabelledContainers(Containers, Protocol):
    """Containers that can be found again by somebody who did not create them."""

    def labelled(self, label: str, value: str) -> Mapping[str, Mapping[str, str]]:
        """Return the labels of the containers, running or not, that have a label of this value, by container name."""


def connect() -> LabelledContainers:
    """Return the daemon that ``docker`` itself would use.

    :raises EngineError: it lies on another machine, whose file system is not ours.
    """
    import os

    from himl_container.image.endpoint import resolve_endpoint
    from himl_container.launch.docker_containers import DockerContainers

    return DockerContainers(resolve_endpoint(os.environ))
