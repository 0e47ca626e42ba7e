"""The data of the OCI specifications that registries exchange: descriptors and manifests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
OCI_TAR_GZIP = OCI_TAR + "+gzip"
OCI_TAR_ZSTD = OCI_TAR + "+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_TAR_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_INDEX)

EMPTY_JSON = b"{}"
"""Content of the empty descriptor (OCI image specification, "Guidance for an Empty Descriptor")."""


def sha256_of(data: bytes) -> str:
    """Return the digest of bytes, ``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """Return a value as JSON bytes that are the same everywhere: sorted keys, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True)
class Descriptor:
    """A blob or manifest, named by its digest (OCI image specification, "Content Descriptors").

    :param digest: ``sha256:<hex>``.
    :param size: bytes.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the form that manifests hold."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        return value


@dataclass(frozen=True)
class Manifest:
    """A manifest or index as a registry holds it: the bytes decide, everything else is read from them.

    :param content: the parsed bytes; a mapping, otherwise unchecked.
    """

    data: bytes
    media_type: str
    digest: str
    content: Mapping[str, Any] = field(compare=False, default_factory=dict)

    @property
    def descriptor(self) -> Descriptor:
        """How others refer to it."""
        return Descriptor(self.media_type, self.digest, len(self.data))
