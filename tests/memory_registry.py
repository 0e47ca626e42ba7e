"""Registries in memory that keep the contract of :class:`himl_container.registry.api.Repository`.

::

    registry = MemoryRegistry("registry.example")
    target = registry.repository("team/train")

or, where one repository is enough, ``target = lone_repository()``.

A test reads what was asked (``calls``, ``uploaded``) and interferes: ``before`` is called with a method's name and its
first argument before anything is done, and ``liars`` are digests that the registry says it has and does not have.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from himl_container.errors import RegistryError
from himl_container.registry.api import Attachment, WrongContentError
from himl_container.registry.model import (
    EMPTY_JSON,
    OCI_EMPTY,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    canonical_json,
    sha256_of,
)

_PIECE = 1 << 16


@dataclass
class MemoryRegistry:
    """One registry: its repositories share nothing but ``mount``.

    :param mounts: whether blobs are taken over from other repositories.
    """

    host: str = "registry.example"
    mounts: bool = True
    calls: list[tuple[str, str]] = field(default_factory=list)
    uploaded: list[str] = field(default_factory=list)
    liars: set[str] = field(default_factory=set)
    before: Callable[[str, str], None] | None = None
    _repositories: dict[str, MemoryRepository] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def repository(self, name: str) -> MemoryRepository:
        with self._lock:
            return self._repositories.setdefault(name, MemoryRepository(self, name))

    def named(self, name: str) -> list[str]:
        """The first arguments of all calls of a method, in their order."""
        return [argument for call, argument in self.calls if call == name]

    def forget(self) -> None:
        """Forget what was asked so far."""
        self.calls.clear()
        self.uploaded.clear()


def lone_repository() -> MemoryRepository:
    """Return a repository of a registry of its own."""
    return MemoryRegistry().repository("team/train")


class MemoryRepository:
    """One repository of a :class:`MemoryRegistry`."""

    def __init__(self, registry: MemoryRegistry, name: str) -> None:
        self.registry = registry
        self.name = name
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.tags: dict[str, str] = {}

    @property
    def host(self) -> str:
        return self.registry.host

    @property
    def requests(self) -> int:
        return len(self.registry.calls)

    def sibling(self, name: str) -> MemoryRepository:
        return self.registry.repository(name)

    def head(self, reference: str) -> Descriptor | None:
        self._call("head", reference)
        found = self._found(reference)
        return found and found.descriptor

    def manifest(self, reference: str) -> Manifest | None:
        self._call("manifest", reference)
        return self._found(reference)

    def put_manifest(self, data: bytes, media_type: str, reference: str) -> str:
        self._call("put_manifest", reference)
        content = json.loads(data)
        for blob in [content["config"], *content["layers"]] if "layers" in content else []:
            if blob["digest"] not in self.blobs:
                raise RegistryError(
                    f"PUT manifest {reference}: the registry answered 400, "
                    f"MANIFEST_BLOB_UNKNOWN: blob unknown to registry {blob['digest']}",
                    where=f"{self.host}/{self.name}",
                )
        return self.put(data, media_type, reference)

    def put(self, data: bytes, media_type: str, reference: str) -> str:
        """Store a manifest without a look at its blobs, as another client would have."""
        digest = sha256_of(data)
        self.manifests[digest] = (data, media_type)
        if reference != digest:
            self.tags[reference] = digest
        return digest

    def blob_exists(self, digest: str, size: int | None = None) -> bool:
        self._call("blob_exists", digest)
        return digest in self.blobs or digest in self.registry.liars

    def blob_readable(self, digest: str, size: int | None = None) -> bool:
        return self.blob_exists(digest, size)

    def mount(self, digest: str, source: str) -> bool:
        self._call("mount", digest)
        if digest in self.registry.liars:
            return True
        blobs = self.sibling(source).blobs
        if not self.registry.mounts or digest not in blobs:
            return False
        self.blobs[digest] = blobs[digest]
        return True

    def upload(self, path: Path, descriptor: Descriptor, *, sent: Callable[[int], None] | None = None) -> None:
        self._call("upload", descriptor.digest)
        data = b""
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                data += piece
                if sent is not None:
                    sent(len(piece))
        if sha256_of(data) != descriptor.digest or len(data) != descriptor.size:
            raise RegistryError(f"the blob {descriptor.digest} arrived with another digest")
        self._take(descriptor.digest, data)

    def upload_bytes(self, data: bytes) -> str:
        digest = sha256_of(data)
        if not self.blob_exists(digest):
            self._call("upload_bytes", digest)
            self._take(digest, data)
        return digest

    def blob(self, digest: str, *, limit: int = 64 << 20) -> bytes:
        self._call("blob", digest)
        data, where = self.blobs.get(digest), f"{self.host}/{self.name}"
        if data is None or len(data) > limit:
            raise RegistryError(f"blob {digest} is unknown or too large", where=where)
        if sha256_of(data) != digest:
            raise WrongContentError(f"blob {digest} is damaged", where=where)
        return data

    def download(self, descriptor: Descriptor, target: Path, *, received: Callable[[int], None] | None = None) -> None:
        data = self.blob(descriptor.digest, limit=1 << 40)
        target.write_bytes(data)
        if received is not None:
            received(len(data))

    def stream(self, descriptor: Descriptor) -> Iterator[bytes]:
        data = self.blob(descriptor.digest, limit=1 << 40)
        for start in range(0, len(data), _PIECE):
            yield data[start : start + _PIECE]

    def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]:
        self._call("referrers", digest)
        found = []
        for own, (data, media_type) in sorted(self.manifests.items()):
            content = json.loads(data)
            kind = str(content.get("artifactType", ""))
            if (content.get("subject") or {}).get("digest") == digest and artifact_type in ("", kind):
                found.append(Descriptor(media_type, own, len(data), content.get("annotations") or {}, kind))
        return tuple(found)

    def attach(
        self,
        subject: Descriptor,
        data: bytes,
        *,
        artifact_type: str,
        media_type: str,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        content = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": Descriptor(OCI_EMPTY, self.upload_bytes(EMPTY_JSON), len(EMPTY_JSON)).as_json(),
            "layers": [Descriptor(media_type, self.upload_bytes(data), len(data)).as_json()],
            "subject": subject.as_json(),
            "annotations": dict(annotations or {}),
        }
        text = canonical_json(content)
        digest = self.put_manifest(text, OCI_MANIFEST, sha256_of(text))
        return Descriptor(OCI_MANIFEST, digest, len(text), dict(annotations or {}), artifact_type)

    def attach_all(self, subject: Descriptor, documents: Sequence[Attachment]) -> tuple[Descriptor, ...]:
        return tuple(
            self.attach(subject, data, artifact_type=kind, media_type=media_type, annotations=annotations)
            for data, kind, media_type, annotations in documents
        )

    def _found(self, reference: str) -> Manifest | None:
        digest = self.tags.get(reference, reference)
        if digest not in self.manifests:
            return None
        data, media_type = self.manifests[digest]
        return Manifest(data, media_type, digest, json.loads(data))

    def _take(self, digest: str, data: bytes) -> None:
        self.registry.uploaded.append(digest)
        self.registry.liars.discard(digest)
        self.blobs[digest] = data

    def _call(self, name: str, argument: str) -> None:
        self.registry.calls.append((name, argument))
        if self.registry.before is not None:
            self.registry.before(name, argument)
