"""The Docker daemon for real: the :class:`~himl_container.image.engine.Engine` of the Engine API."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himl_container.cache import Cache
from himl_container.errors import EngineError, InputError
from himl_container.image.docker_http import segment
from himl_container.image.endpoint import Endpoint, resolve_endpoint
from himl_container.image.engine import ContainerResult, EngineInfo
from himl_container.image.engine_client import Client, RefusedError
from himl_container.image.engine_images import StoredImages
from himl_container.image.engine_load import Loader
from himl_container.image.model import ComposedImage, ImageInfo
from himl_container.progress import Reporter
from himl_container.registry.reference import is_image, parse_reference

if TYPE_CHECKING:
    from himl_container.image.engine_stream import LoadStream

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CONTAINERD_STORE = ["driver-type", "io.containerd.snapshotter.v1"]


class DockerEngine:
    """One daemon. Create it with :meth:`connect`."""

    def __init__(self, client: Client, environ: Mapping[str, str], cache: Cache | None = None) -> None:
        self._client = client
        self._environ = environ
        self._cache = cache
        self._system: dict[str, Any] = {}
        self._stored: StoredImages | None = None
        self.bytes_sent = 0
        """Layer bytes that the last :meth:`load` sent."""

    @classmethod
    def connect(cls, environ: Mapping[str, str] | None = None, *, cache: Cache | None = None) -> DockerEngine:
        """Connect to the daemon that the variables name (the process's own when not given).

        :param cache: where to keep what the daemon's images are made of; without it that is asked anew each time.
        :raises EngineError: no daemon answers, or it is too old; the hint says what to do.
        """
        environ = os.environ if environ is None else environ
        return cls(Client.connect(resolve_endpoint(environ)), environ, cache)

    @property
    def endpoint(self) -> Endpoint:
        """Where this daemon is."""
        return self._client.endpoint

    def info(self) -> EngineInfo:
        """Return what kind of daemon this is."""
        from himl_container.image.engine_build import find_buildx

        system = self._system_info()
        architecture = str(system.get("Architecture", ""))
        return EngineInfo(
            version=str(system.get("ServerVersion", "")),
            api_version=self._client.api_version,
            containerd_store=self._containerd_store(),
            buildx=find_buildx(self._environ) is not None,
            architecture=_ARCHITECTURES.get(architecture, architecture),
        )

    def inspect(self, reference: str) -> ImageInfo | None:
        """Return the image of a tag, ``repository@digest`` or id; None when the daemon has none."""
        if not is_image(reference):
            raise InputError(f"{reference!r} is not the name of an image")
        answer = self._client.json(f"look up {reference!r}", f"/images/{segment(reference)}/json")
        return None if answer is None else image_info(answer)

    def known_chain_ids(self) -> frozenset[str]:
        """Return the chain ids of all layers that the daemon holds."""
        return self._stored_images().chain_ids()

    def registry_digest(self, reference: str) -> str:
        """Ask the reference's registry, through the daemon, for the manifest digest.

        :raises RegistryError: the registry does not answer, or has no such image.
        """
        from himl_container.image.engine_pull import registry_digest

        return registry_digest(self._client, reference)

    def pull(self, reference: str, reporter: Reporter) -> ImageInfo:
        """Pull an image (``repository:tag`` or ``repository@digest``).

        :raises RegistryError: the registry does not answer, or has no such image.
        """
        from himl_container.image.engine_pull import pull

        pull(self._client, reference, reporter)
        found = self.inspect(reference)
        if found is None:
            raise EngineError(f"{reference!r} was pulled and is gone again", where=str(self.endpoint))
        return found

    def load(self, image: ComposedImage, reporter: Reporter) -> ImageInfo:
        """Bring a composed image into the daemon under its tag, sending only the layers that it lacks."""
        loader = self._loader()
        try:
            return self._named(loader.load(image, reporter), image)
        finally:
            self.bytes_sent = loader.sent

    def load_stream(self, below: ImageInfo, reporter: Reporter) -> LoadStream:
        """Return a context that takes the layers of an image as they become ready, and then the image.

        Copying, unpacking and the making of the layers overlap; the result is that of :meth:`load`::

            with engine.load_stream(system, reporter) as stream:
                for layer in layers:
                    stream.add(layer)
                image = stream.finish(compose(...))

        :param below: the image that the layers go on top of.
        """
        from himl_container.image.engine_stream import LoadStream

        loader = self._loader()

        def named(id_: str, image: ComposedImage) -> ImageInfo:
            self.bytes_sent = loader.sent
            return self._named(id_, image)

        return LoadStream(loader, below, named, reporter)

    def _named(self, id_: str, image: ComposedImage) -> ImageInfo:
        self.tag(id_, image.tag)
        return self._must_inspect(image.tag)

    def _loader(self) -> Loader:
        return Loader(self._client, self._stored_images(), containerd_store=self._containerd_store())

    def load_archive(self, path: Path, reporter: Reporter) -> tuple[str, ...]:
        """Load a docker-archive or OCI archive file as it is, and return the names (or ids) that it brought.

        :raises EngineError: the file is not an image archive, or the daemon went away.
        """
        from himl_container.image.engine_load import load_file

        return load_file(self._client, path, reporter)

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
        from himl_container.image.engine_build import BuildRequest, run_build

        request = BuildRequest(context, tag, dockerfile, dict(build_args or {}))
        with self._displacing(parse_reference(tag).tagged):
            run_build(self._client, request, environ=self._environ, reporter=reporter)
        return self._must_inspect(tag)

    def tag(self, reference: str, tag: str) -> None:
        """Give an image a further name. An image of ours that had it, and has no other, is removed."""
        name = parse_reference(tag)
        with self._displacing(name.tagged):
            params = {"repo": name.repository, "tag": name.tag or "latest"}
            self._client.post(f"tag {tag!r}", f"/images/{segment(reference)}/tag", params=params)

    @contextlib.contextmanager
    def _displacing(self, tag: str) -> Iterator[None]:
        """Remove the image that loses a name here, lest every rebuild leaves an unnamed one; only what we made."""
        before = self.inspect(tag)
        yield
        if before is None or not any(label.startswith("himl.") for label in before.labels):
            return
        after = self.inspect(before.id)
        if after is not None and not after.tags:
            with contextlib.suppress(EngineError):  # in use by a container: it stays until somebody prunes
                self.remove_image(before.id)

    def remove_image(self, reference: str) -> None:
        """Remove a name (and the image, with its last name). Nothing happens when there is none."""
        from himl_container.image.engine_run import finish_removals

        doing, path = f"remove {reference!r}", f"/images/{segment(reference)}"
        try:
            self._client.delete(doing, path)
        except RefusedError:
            finish_removals()  # it may be our own container, on its way out, that still uses the image
            self._client.delete(doing, path)

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
        """Run a container to its end and remove it."""
        from himl_container.image.engine_run import Task, run

        task = Task(
            image=image,
            command=tuple(command),
            mounts=tuple(mounts),
            environment=dict(environment or {}),
            entrypoint=None if entrypoint is None else tuple(entrypoint),
            network=network,
            bare=bare,
            answer=answer,
            workdir=workdir,
            user=user,
        )
        return run(self._client, task, timeout=timeout)

    def _must_inspect(self, reference: str) -> ImageInfo:
        found = self.inspect(reference)
        if found is None:
            raise EngineError(f"{reference!r} was made and is gone again", where=str(self.endpoint))
        return found

    def _system_info(self) -> dict[str, Any]:
        if not self._system:
            self._system = self._client.json("ask what it is", "/info") or {}
        return self._system

    def _containerd_store(self) -> bool:
        return _CONTAINERD_STORE in (self._system_info().get("DriverStatus") or ())

    def _stored_images(self) -> StoredImages:
        if self._stored is None:
            # One data folder may hold images of both stores, whose ids mean different things.
            name = f"{self._system_info().get('ID', '')} {self._containerd_store()}"
            self._stored = StoredImages(self._client, name, self._cache)
        return self._stored


def image_info(answer: Mapping[str, Any]) -> ImageInfo:
    """Turn the daemon's description of an image (``GET /images/NAME/json``) into ours."""
    return ImageInfo(
        id=str(answer["Id"]),
        tags=tuple(answer.get("RepoTags") or ()),
        repo_digests=tuple(answer.get("RepoDigests") or ()),
        diff_ids=tuple((answer.get("RootFS") or {}).get("Layers") or ()),
        architecture=str(answer.get("Architecture") or ""),
        os=str(answer.get("Os") or ""),
        size=int(answer.get("Size") or 0),
        config=dict(answer.get("Config") or {}),
    )
