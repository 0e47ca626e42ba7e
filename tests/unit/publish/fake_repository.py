"""A repository in memory that keeps the contract of :class:`himl_container.registry.api.Repository`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from himl_container.errors import RegistryError
from himl_container.registry.api import Attachment, WrongContentError
from himl_container.registry.model import OCI_MANIFEST, Descriptor, Manifest, sha256_of


@dataclass
class FakeRepository:
    """``before`` is called with the name of each method and its first argument, so that a test can interfere."""

    host: str = "registry.example"
    name: str = "team/train"
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[str, str], None] | None = None

    @property
    def requests(self) -> int:
        return len(self.calls)

    def sibling(self, name: str) -> FakeRepository:
        return FakeRepository(self.host, name)

    def head(self, reference: str) -> Descriptor | None:
        self._call("head", reference)
        digest = self.tags.get(reference, reference)
        if digest not in self.manifests:
            return None
        data, media_type = self.manifests[digest]
        return Descriptor(media_type, digest, len(data))

    def manifest(self, reference: str) -> Manifest | None:
        self._call("manifest", reference)
        digest = self.tags.get(reference, reference)
        if digest not in self.manifests:
            return None
        data, media_type = self.manifests[digest]
        return Manifest(data, media_type, digest, json.loads(data))

    def put_manifest(self, data: bytes, media_type: str, reference: str) -> str:
        self._call("put_manifest", reference)
        content = json.loads(data)
        for blob in (content["config"], *content["layers"]):
            if blob["digest"] not in self.blobs:
                raise RegistryError(f"blob {blob['digest']} is unknown")
        digest = sha256_of(data)
        self.manifests[digest] = (data, media_type)
        if not reference.startswith("sha256:"):
            self.tags[reference] = digest
        return digest

    def blob_exists(self, digest: str, size: int | None = None) -> bool:
        self._call("blob_exists", digest)
        return digest in self.blobs

    def mount(self, digest: str, source: str) -> bool:
        self._call("mount", digest)
        return False

    def upload(self, path: Path, descriptor: Descriptor, *, sent: Callable[[int], None] | None = None) -> None:
        self._call("upload", descriptor.digest)
        self.blobs[descriptor.digest] = path.read_bytes()

    def upload_bytes(self, data: bytes) -> str:
        digest = sha256_of(data)
        self._call("upload_bytes", digest)
        self.blobs[digest] = data
        return digest

    def blob(self, digest: str, *, limit: int = 64 << 20) -> bytes:
        self._call("blob", digest)
        if digest not in self.blobs or len(self.blobs[digest]) > limit:
            raise RegistryError(f"blob {digest} is unknown or too large")
        if sha256_of(self.blobs[digest]) != digest:
            raise WrongContentError(f"blob {digest} is damaged")
        return self.blobs[digest]

    def download(self, descriptor: Descriptor, target: Path, *, received: Callable[[int], None] | None = None) -> None:
        target.write_bytes(self.blob(descriptor.digest))

    def stream(self, descriptor: Descriptor) -> Iterator[bytes]:
        yield self.blob(descriptor.digest)

    def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]:
        self._call("referrers", digest)
        found = []
        for own, (data, media_type) in self.manifests.items():
            content = json.loads(data)
            kind = content.get("artifactType", "")
            if (content.get("subject") or {}).get("digest") == digest and artifact_type in ("", kind):
                found.append(Descriptor(media_type, own, len(data), content.get("annotations", {}), kind))
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
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": self.upload_bytes(b"{}"), "size": 2}
        layer = {"mediaType": media_type, "digest": self.upload_bytes(data), "size": len(data)}
        content = {
            "schemaVersion": 2,
            "artifactType": artifact_type,
            "config": config,
            "layers": [layer],
            "subject": subject.as_json(),
            "annotations": dict(annotations or {}),
        }
        text = json.dumps(content).encode()
        return Descriptor(OCI_MANIFEST, self.put_manifest(text, OCI_MANIFEST, sha256_of(text)), len(text))

    def attach_all(self, subject: Descriptor, documents: Sequence[Attachment]) -> tuple[Descriptor, ...]:
        return tuple(
            self.attach(subject, data, artifact_type=kind, media_type=media_type, annotations=annotations)
            for data, kind, media_type, annotations in documents
        )

    def named(self, name: str) -> list[str]:
        """The first arguments of all calls of a method."""
        return [argument for call, argument in self.calls if call == name]

    def _call(self, name: str, argument: str) -> None:
        self.calls.append((name, argument))
        if self.before is not None:
            self.before(name, argument)
