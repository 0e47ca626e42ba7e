"""The Docker daemon, as the rest of the package sees it.

:class:`Engine` is what the stages take; :func:`connect` gives the real one (:mod:`himl_container.image.docker_engine`),
imported only then because the Docker SDK takes a sixth of a second to import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from himl_container.cache import Cache
from himl_container.image.model import ComposedImage, ImageInfo, Layer
from himl_container.progress import Reporter


@dataclass(frozen=True)
class EngineInfo:
    """What kind of daemon answers.

    :param containerd_store: whether images live in containerd's image store instead of the classic one.
    :param buildx: whether ``docker buildx`` can be used against it.
    """

    version: str
    api_version: str
    containerd_store: bool
    buildx: bool
    architecture: str


@dataclass(frozen=True)
class ContainerResult:
    """How a container that ran to its end ended.

    :param output: standard output and standard error, in order of arrival.
    """

    exit_code: int
    output: bytes
    oom_killed: bool = False


class LayerStream(AbstractContextManager["LayerStream"], Protocol):
    """An image on its way into a daemon while its layers are still being made."""

    def add(self, layer: Layer) -> None:
        """Hand over the next layer; never waits for the daemon to take it."""

    def finish(self, image: ComposedImage) -> ImageInfo:
        """Complete the image, all of whose layers were added, and return it under its tag."""


class Engine(Protocol):
    """A Docker daemon. Every method raises EngineError when the daemon does not answer or goes away."""

    def info(self) -> EngineInfo:
        """Return what kind of daemon this is."""

    def inspect(self, reference: str) -> ImageInfo | None:
        """Return the image of a tag, ``repository@digest`` or id; None when the daemon has none."""

    def known_chain_ids(self) -> frozenset[str]:
        """Return the chain ids of all layers that the daemon holds, so that they need not be loaded again."""

    def registry_digest(self, reference: str) -> str:
        """Ask the reference's registry, through the daemon, for the manifest digest.

        :raises RegistryError: the registry does not answer, or has no such image.
        """

    def pull(self, reference: str, reporter: Reporter) -> ImageInfo:
        """Pull an image (``repository:tag`` or ``repository@digest``)."""

    def load(self, image: ComposedImage, reporter: Reporter) -> ImageInfo:
        """Bring a composed image into the daemon under its tag, sending only the layers that it lacks."""

    def load_stream(self, below: ImageInfo, reporter: Reporter) -> LayerStream:
        """Return a context that takes the layers of an image as they become ready, and then the image; as :meth:`load`.

        :param below: the image that the layers go on top of.
        """

    def build(
        self,
        context: Path,
        *,
        tag: str,
        dockerfile: str = "Dockerfile",
        build_args: Mapping[str, str] | None = None,
        reporter: Reporter,
    ) -> ImageInfo:
        """Execute a Dockerfile: through BuildKit when ``docker buildx`` is there, else through the Engine API.

        :raises BuildError: a step failed; the error carries the step and the end of its output.
        """

    def tag(self, reference: str, tag: str) -> None:
        """Give an image a further name."""

    def remove_image(self, reference: str) -> None:
        """Remove a name (and the image, with its last name). Nothing happens when there is none."""

    def run(
        self,
        image: str,
        command: Sequence[str],
        *,
        mounts: Sequence[tuple[Path, str, bool]] = (),
        environment: Mapping[str, str] | None = None,
        entrypoint: Sequence[str] | None = None,
        network: bool = False,
        workdir: str = "/",
        user: str = "0:0",
        timeout: float | None = None,
        bare: bool = False,
        answer: bytes = b"",
    ) -> ContainerResult:
        """Run a container to its end and remove it.

        :param mounts: host path, container path, whether read-only.
        :param bare: only without a network: the container starts in half the time, and has no ``/etc/hosts`` of the
            daemon's, so that ``localhost`` may have no address (the loopback interface is there).
        :param answer: how the line of standard output begins that is the last word of the container. It is ended when
            it has said that, with exit code 0 and standard output alone, and removed while the caller goes on
            (:func:`himl_container.image.engine_run.finish_removals`).
        """


def connect(cache: Cache | None = None) -> Engine:
    """Return the daemon that ``DOCKER_HOST`` (or the current Docker context, or the default socket) names.

    :param cache: where to keep what the daemon's images are made of; without it each load asks for all of them anew.
    :raises EngineError: no daemon answers; the hint says how to start one.
    """
    from himl_container.image.docker_engine import DockerEngine

    return DockerEngine.connect(cache=cache)
