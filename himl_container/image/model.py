"""The data between the stages of the image: plan, layers, composed image, and what a daemon says of an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from himl_container.environment.model import BasePin, LockedConda, LockedWheel

PREFIX = "/opt/himl"
"""Where the environment lies inside the image. Baked into every package, so part of the format."""

EPOCH = 315532800
"""Time of every entry of every layer, seconds: 1 January 1980, the earliest that a zip file can hold."""


@dataclass(frozen=True)
class LayerPlan:
    """One layer before it exists.

    :param name: what the reader sees: ``conda:python``, ``conda:mkl``, ``conda:small-03``, ``pip:torch``,
        ``pip:bin-01``, ``wheel:mylib``, ``himl`` (generated files).
    :param key: sha256 (hex) of everything that decides the layer's bytes.
    :param excluded: paths (relative to the prefix) that a package of this layer has but another one provides.
    :param lost: the same with their package: pairs of a package's name and a path that is left out of it.
    """

    name: str
    key: str
    conda: tuple[LockedConda, ...] = ()
    wheels: tuple[LockedWheel, ...] = ()
    excluded: tuple[str, ...] = ()
    lost: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SystemPlan:
    """The part that Docker builds on top of the base; nothing when both are empty."""

    apt: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to build."""
        return not self.apt and not self.lines


@dataclass(frozen=True)
class ImagePlan:
    """What will be built, as plain data.

    :param fingerprint: sha256 (hex) over the bytes of every input.
    :param repository: name of the image; its tag is the fingerprint's first 32 hex digits.
    :param environment: environment variables that the image sets, beyond the base's (sorted; PATH is composed later).
    :param assumed: whether packages that were never seen are assumed to share no path with another.
    """

    fingerprint: str
    repository: str
    base: BasePin
    system: SystemPlan
    layers: tuple[LayerPlan, ...]
    environment: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, str], ...]
    assumed: bool = False

    @property
    def tag(self) -> str:
        """The image's full name, ``repository:tag``."""
        return f"{self.repository}:{self.fingerprint[:32]}"


@dataclass(frozen=True)
class Layer:
    """A layer that exists in the store.

    :param digest: sha256 of the uncompressed tar, which is both its blob name in the store and its OCI diff id.
    :param size: bytes of the tar.
    :param entries: number of archive entries.
    """

    name: str
    key: str
    digest: str
    size: int
    entries: int
    path: Path = field(compare=False)


@dataclass(frozen=True)
class ImageInfo:
    """What the daemon says of an image.

    :param id: the daemon's own id of it: the config's digest in the classic store, the manifest's in containerd's.
    :param diff_ids: uncompressed digests of its layers, lowest first.
    :param repo_digests: ``repository@sha256:...`` names under which registries know it.
    :param config: the ``Config`` mapping of the image (``Env``, ``Cmd``, ``WorkingDir``, ``Labels`` and so on).
    """

    id: str
    tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    diff_ids: tuple[str, ...]
    architecture: str
    os: str
    size: int
    config: dict[str, object] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the image's configuration."""
        labels = self.config.get("Labels")
        return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}

    @property
    def rootfs(self) -> str:
        """Chain id of all layers (OCI image specification, "Layer ChainID"); pins local images (see BasePin)."""
        return chain_ids(self.diff_ids)[-1] if self.diff_ids else ""


@dataclass(frozen=True)
class ComposedImage:
    """A whole image, ready to be loaded or pushed.

    :param config: the OCI image configuration as canonical JSON bytes; its sha256 is the image id of the classic store.
    :param diff_ids: of all layers, the system image's first.
    :param layers: the layers that are ours, matching the last ``len(layers)`` diff ids.
    :param tag: the name that it gets, ``repository:tag``.
    """

    config: bytes
    diff_ids: tuple[str, ...]
    layers: tuple[Layer, ...]
    tag: str

    @property
    def id(self) -> str:
        """``sha256:<hex>`` of the configuration."""
        import hashlib

        return "sha256:" + hashlib.sha256(self.config).hexdigest()


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return the chain id after each layer (OCI image specification: sha256 of "<parent chain id> <diff id>")."""
    chains: list[str] = []
    for diff_id in diff_ids:
        chains.append(next_chain(chains[-1] if chains else "", diff_id))
    return tuple(chains)


def next_chain(parent: str, diff_id: str) -> str:
    """Return the chain id after one more layer; ``parent`` is empty below the first."""
    import hashlib

    return "sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest() if parent else diff_id
