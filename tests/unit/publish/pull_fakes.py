"""A registry and a daemon in memory, as far as a pull sees them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

from memory_registry import MemoryRegistry, MemoryRepository

from himl_container.errors import EngineError
from himl_container.image.model import ComposedImage, ImageInfo, Layer, chain_ids
from himl_container.registry.model import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    OCI_TAR,
    OCI_TAR_GZIP,
    Descriptor,
    Manifest,
    canonical_json,
    sha256_of,
)

HOST, NAME = "registry.test:5000", "team/train"
REPOSITORY = f"{HOST}/{NAME}"


def tar(name: str, data: bytes = b"content") -> bytes:
    """Return a tar with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


class PulledRepository(MemoryRepository):
    """A repository with images to pull. ``downloads`` are the digests of the blobs that were fetched into files.

    ``around`` is entered and left around each such download, with the digest.
    """

    def __init__(self) -> None:
        super().__init__(MemoryRegistry(HOST), NAME)
        self.downloads: list[str] = []
        self.around: Callable[[str], contextlib.AbstractContextManager[object]] = contextlib.nullcontext

    def download(self, descriptor: Descriptor, target: Path, *, received: Callable[[int], None] | None = None) -> None:
        with self.around(descriptor.digest):
            super().download(descriptor, target, received=received)
            self.downloads.append(descriptor.digest)

    def add_blob(self, data: bytes) -> str:
        self.blobs[sha256_of(data)] = data
        return sha256_of(data)

    def add_manifest(self, value: object, tag: str, media_type: str = OCI_MANIFEST) -> Manifest:
        data = canonical_json(value)
        return Manifest(data, media_type, self.put(data, media_type, tag), json.loads(data))

    def add_image(
        self,
        *layers: bytes,
        tag: str = "1",
        architecture: str = "amd64",
        forms: tuple[bytes, ...] | None = None,
        diff_ids: tuple[str, ...] | None = None,
        steps: tuple[str, ...] = (),
        labels: dict[str, str] | None = None,
    ) -> Manifest:
        """Add an image of these tars.

        :param forms: the layers as they travel; else gzip.
        :param diff_ids: what the configuration says of them; else the truth.
        """
        forms = forms or tuple(packed(layer) for layer in layers)
        config = canonical_json(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Labels": labels or {}},
                "history": [{"created_by": step} for step in steps],
                "rootfs": {"type": "layers", "diff_ids": list(diff_ids or (sha256_of(layer) for layer in layers))},
            }
        )
        value = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor(OCI_CONFIG, self.add_blob(config), len(config)).as_json(),
            "layers": [Descriptor(OCI_TAR_GZIP, self.add_blob(form), len(form)).as_json() for form in forms],
        }
        return self.add_manifest(value, tag)

    def add_index(self, tag: str, **images: Manifest) -> Manifest:
        """Add an index of manifests by architecture."""
        entries = [
            {**image.descriptor.as_json(), "platform": {"os": "linux", "architecture": architecture}}
            for architecture, image in images.items()
        ]
        entries.insert(0, {**Descriptor(OCI_MANIFEST, sha256_of(b"proof"), 5).as_json(), "platform": {"os": "unknown"}})
        value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        return self.add_manifest(value, tag, media_type=OCI_INDEX)


class FakeEngine:
    """A daemon with Docker's classic store. ``sent`` are the diff ids of the layers that it was sent."""

    def __init__(self) -> None:
        self.images: dict[str, ImageInfo] = {}
        self.names: dict[str, str] = {}
        self.sent: list[str] = []
        self.loads = 0
        self.before_load: Callable[[], None] = lambda: None

    def inspect(self, reference: str) -> ImageInfo | None:
        return self.images.get(self.names.get(reference, reference))

    def known_chain_ids(self) -> frozenset[str]:
        return frozenset(chain for image in self.images.values() for chain in chain_ids(image.diff_ids))

    def load_stream(self, below: ImageInfo, reporter: object) -> FakeStream:
        return FakeStream(self, below)

    def tag(self, reference: str, tag: str) -> None:
        found = self.inspect(reference)
        assert found is not None
        self.names[tag] = found.id

    def remove_image(self, reference: str) -> None:
        self.images.pop(self.names.pop(reference, reference), None)


class FakeStream:
    def __init__(self, engine: FakeEngine, below: ImageInfo) -> None:
        self.engine, self.below, self.layers = engine, below, []  # type: ignore[var-annotated]
        self.thread = threading.get_ident()

    def __enter__(self) -> FakeStream:
        return self

    def __exit__(self, *_error: object) -> None:
        return None

    def add(self, layer: Layer) -> None:
        assert threading.get_ident() == self.thread
        self.layers.append(layer)

    def finish(self, image: ComposedImage) -> ImageInfo:
        """Look at everything as a daemon does: the layers below, each tar's digest, the configuration."""
        self.engine.loads += 1
        self.engine.before_load()
        if self.below.diff_ids and chain_ids(self.below.diff_ids)[-1] not in self.engine.known_chain_ids():
            raise EngineError("the image below the environment is no longer in the daemon")
        assert (*self.below.diff_ids, *(layer.digest for layer in self.layers)) == image.diff_ids
        for layer in self.layers:
            if "sha256:" + hashlib.sha256(layer.path.read_bytes()).hexdigest() != layer.digest:
                raise EngineError("invalid diffID for a layer")
            assert layer.size == layer.path.stat().st_size
            self.engine.sent.append(layer.digest)
        config = json.loads(image.config)
        found = ImageInfo(
            id=image.id,
            tags=(image.tag,),
            repo_digests=(),
            diff_ids=tuple(config["rootfs"]["diff_ids"]),
            architecture=config["architecture"],
            os=config["os"],
            size=1,
            config=config["config"],
        )
        self.engine.images[found.id] = found
        self.engine.names[image.tag] = found.id
        return found


def plain(data: bytes) -> Descriptor:
    return Descriptor(OCI_TAR, sha256_of(data), len(data))
