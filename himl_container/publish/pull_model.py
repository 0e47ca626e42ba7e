"""The data of a pull: what it would do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from himl_container.config.images import has_host
from himl_container.errors import InputError
from himl_container.image.model import ImageInfo
from himl_container.registry.model import Descriptor
from himl_container.registry.reference import Reference, parse_reference

Where = Literal["daemon", "store", "registry"]


@dataclass(frozen=True)
class PullLayer:
    """One layer of an image that is pulled.

    :param name: what the reader sees.
    :param blob: its form in the registry.
    :param where: the nearest place that has it: the daemon, the local store of blobs, or the registry alone.
    :param size: bytes of the uncompressed tar where they are known, else 0; more are never unpacked.
    """

    name: str
    diff_id: str
    blob: Descriptor
    where: Where
    size: int = 0


@dataclass(frozen=True)
class PullPlan:
    """What a pull would do.

    :param name: what was asked for.
    :param tag: the name that the image gets in the daemon.
    :param names: ``repository@digest`` names of the image, the one that means it alone first.
    :param present: the image, where the daemon has it; nothing is to be fetched then, and ``layers`` is empty.
    """

    name: str
    tag: str
    names: tuple[str, ...]
    layers: tuple[PullLayer, ...] = ()
    present: ImageInfo | None = None

    @property
    def missing(self) -> tuple[PullLayer, ...]:
        """The layers to download."""
        return tuple(layer for layer in self.layers if layer.where == "registry")

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum({layer.diff_id: layer.blob.size for layer in self.missing}.values())

    def as_json(self) -> dict[str, object]:
        """Return the plan as JSON values."""
        return {
            "name": self.name,
            "tag": self.tag,
            "digests": list(self.names),
            "present": self.present.id if self.present else None,
            "bytes": self.size,
            "layers": [
                {
                    "name": layer.name,
                    "diff_id": layer.diff_id,
                    "digest": layer.blob.digest,
                    "size": layer.blob.size,
                    "from": layer.where,
                }
                for layer in self.layers
            ],
        }


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    :param image: the daemon's image. ``repo_digests`` begins with the names below, also where the daemon keeps none.
    :param tag: its name in the daemon.
    :param names: ``repository@digest`` names of the image, the one that means it alone first.
    :param fetched: number of layers that were downloaded.
    :param bytes_received: of layers, those that came twice after a cut included.
    :param requests: HTTP requests to the registry.
    :param existed: whether the daemon had the image already.
    """

    image: ImageInfo
    tag: str
    names: tuple[str, ...]
    fetched: int = 0
    bytes_received: int = 0
    requests: int = 0
    existed: bool = False


def registry_reference(name: str) -> Reference:
    """Take apart the name of an image in a registry.

    :raises InputError: it is no name, or has no registry in it.
    """
    reference = parse_reference(name)
    if not has_host(reference.repository):
        raise InputError(
            f"{name!r} names no registry",
            hint="Write HOST/REPOSITORY:TAG, for example docker.io/library/debian:12.",
        )
    return reference
