"""The data of publishing: an image as a registry is to get it, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from himl_container.registry.model import Descriptor

TESTED = "io.himl.tested"
"""Annotation of a manifest: whether the image had passed its tests when it was pushed."""


@dataclass(frozen=True)
class RemoteBlob:
    """A layer's compressed form that some repository has (or had when that was written down).

    :param host: the registry's address.
    :param repository: the repository's name inside the registry.
    """

    host: str
    repository: str
    descriptor: Descriptor


@dataclass(frozen=True)
class PushLayer:
    """One layer of an image that is about to be pushed, and where its content can be had.

    A layer without ``path`` and ``remotes`` exists only in the daemon.

    :param name: what the reader sees (``conda:numpy``, ``base 3``).
    :param diff_id: sha256 of the uncompressed tar (OCI image specification, "Layer DiffID").
    :param key: of :class:`himl_container.image.model.LayerPlan`; empty for a layer that is not ours.
    :param size: bytes of the uncompressed tar; 0 where unknown.
    :param path: the uncompressed tar, where it is on this machine.
    :param remotes: compressed forms in registries; the first that still exists is used, and its descriptor kept.
    """

    name: str
    diff_id: str
    key: str = ""
    size: int = 0
    path: Path | None = None
    remotes: tuple[RemoteBlob, ...] = ()


@dataclass(frozen=True)
class PushImage:
    """A whole image for a registry.

    :param config: the OCI image configuration's bytes, as in :class:`himl_container.image.model.ComposedImage`.
    :param layers: all layers, lowest first, matching the configuration's diff ids.
    :param annotations: of the manifest.
    """

    config: bytes
    layers: tuple[PushLayer, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    :param name: ``host/repository:tag``.
    :param manifest: the image's manifest as the registry has it.
    :param layers: the compressed form of each layer, in the image's order.
    :param bytes_sent: bytes of blobs and manifests that went out, those that were sent twice after a cut included.
    :param requests: HTTP requests that were made.
    :param existed: whether the registry had this image under this tag already; nothing was sent then.
    :param sent, mounted, copied: number of distinct layers that came from this machine, from another repository of the
        registry, and from another registry. All others were there.
    """

    name: str
    manifest: Descriptor
    layers: tuple[Descriptor, ...] = ()
    bytes_sent: int = 0
    requests: int = 0
    existed: bool = False
    sent: int = 0
    mounted: int = 0
    copied: int = 0

    @property
    def reference(self) -> str:
        """``host/repository@sha256:...``: the name that always means this image."""
        return f"{self.name.rpartition(':')[0]}@{self.manifest.digest}"


@dataclass(frozen=True)
class Work:
    """What became of the layers that the store lacked, by name, in the plan's order.

    :param made: built here.
    :param downloaded: fetched from the registry.
    :param reused: left in the registry, neither built nor fetched.
    """

    made: tuple[str, ...] = ()
    downloaded: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
