"""Images of a few kilobytes, to see what travels to a daemon; and a proxy that fails as daemons do."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment.model import BasePin
from himl_container.image.compose import compose, image_file
from himl_container.image.docker_engine import DockerEngine
from himl_container.image.model import EPOCH, ComposedImage, ImageInfo, ImagePlan, Layer, SystemPlan
from himl_container.progress import SilentReporter

REPORTER = SilentReporter()
MACHINE, CLASSIC, CONTAINERD = "machine", "26.1 classic", "26.1 containerd"


@dataclass
class Place:
    """A daemon to load into, an own name space in it, and a folder for layers.

    :param pid: of the daemon, where it was started for the tests.
    """

    kind: str
    environ: dict[str, str]
    folder: Path
    pid: int = 0
    name: str = field(default_factory=lambda: f"himl-test-{uuid.uuid4().hex[:12]}")

    @property
    def engine(self) -> DockerEngine:
        """A new connection, as a new process would have."""
        return DockerEngine.connect(self.environ, cache=Cache(self.folder / "cache"))

    @property
    def classic(self) -> bool:
        return self.kind != CONTAINERD

    def tag(self, tag: str) -> str:
        return f"{self.name}:{tag}"

    def base(self) -> ImageInfo:
        return self.engine.load(base(self.folder, self.tag("base")), REPORTER)

    def clean(self) -> None:
        engine = self.engine
        listed = engine._client.json("list", "/images/json") or []
        for tag in [tag for entry in listed for tag in entry["RepoTags"] or [] if tag.startswith(f"{self.name}:")]:
            engine.remove_image(tag)


def layer(folder: Path, name: str, content: bytes | None = None) -> Layer:
    """Return a layer with one file; of random content unless it is given."""
    data = os.urandom(5000) if content is None else content
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo(f"opt/himl/{name}")
        entry.size, entry.mtime = len(data), EPOCH
        archive.addfile(entry, io.BytesIO(data))
    blob = buffer.getvalue()
    digest = hashlib.sha256(blob).hexdigest()
    path = folder / digest
    path.write_bytes(blob)
    return Layer(name, digest, f"sha256:{digest}", len(blob), 1, path)


def base(folder: Path, tag: str, *, architecture: str = "amd64") -> ComposedImage:
    """Return an image of one layer with nothing to run in it."""
    ground = layer(folder, "ground", b"ground")
    config = {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["sh"]}
    text = image_file(config=config, architecture=architecture, diff_ids=(ground.digest,), history=[])
    return ComposedImage(config=text, diff_ids=(ground.digest,), layers=(ground,), tag=tag)


def plan(reference: str) -> ImagePlan:
    """Return a plan that says nothing but the base."""
    return ImagePlan(
        fingerprint="ab" * 32,
        repository="himl-test",
        base=BasePin(reference),
        system=SystemPlan(),
        layers=(),
        environment=(),
        labels=(("himl.fingerprint", "ab" * 32),),
    )


def image(below: ImageInfo, layers: Sequence[Layer], tag: str) -> ComposedImage:
    """Return an image of these layers on top of another image."""
    return compose(plan=plan("tiny:1"), system=below, layers=tuple(layers), activation={}, tag=tag)


def unnamed(engine: DockerEngine) -> set[str]:
    """Return the ids of the daemon's images without a name."""
    listed = engine._client.json("list", "/images/json", {"all": "1"})
    return {entry["Id"] for entry in listed if not [t for t in entry["RepoTags"] or [] if t != "<none>:<none>"]}


@dataclass
class Interfering(SilentReporter):
    """A reporter that does something at the moment when a load begins to send."""

    act: Callable[[], None]

    def step(self, verb: str, subject: str = "", *, total: int | None = None, unit: str = "items"):  # type: ignore[no-untyped-def]
        if verb == "load":
            self.act()
        return super().step(verb, subject, total=total, unit=unit)


@contextlib.contextmanager
def cutting_proxy(target: Path, folder: Path, *, after: int) -> Iterator[Path]:
    """A socket in front of a daemon's that cuts a connection once it carried so many bytes to the daemon."""
    path = folder / "proxy.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=_serve, args=(server, target, after), daemon=True)
        thread.start()
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _serve(server: socket.socket, target: Path, after: int) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(str(target))
        threading.Thread(target=_pass, args=(client, upstream, after), daemon=True).start()
        threading.Thread(target=_pass, args=(upstream, client, None), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    carried = 0
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            carried += len(data)
            if limit is not None and carried > limit:
                break
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
