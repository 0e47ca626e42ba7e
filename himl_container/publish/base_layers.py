"""The layers below ours, as their registry has them: nothing of a base image need ever be made or compressed here.

The lock pins the base by the digest of its manifest (or index). What is behind a digest never changes, so the manifest
and the configuration are asked for once and kept; from then on a base costs no request to its registry.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from himl_container.cache import Cache
from himl_container.environment.model import BasePin
from himl_container.errors import StorageError
from himl_container.image.model import ImageInfo
from himl_container.publish.model import PushLayer, RemoteBlob
from himl_container.publish.pull_layers import is_digest
from himl_container.publish.pull_manifest import find_image, read_config
from himl_container.registry.addresses import Address, parse_address
from himl_container.registry.api import Repository, connect
from himl_container.registry.model import OCI_TAR, OCI_TAR_GZIP, OCI_TAR_ZSTD, Descriptor
from himl_container.registry.reference import parse_reference

_FORMAT = 1
_OCI_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar": OCI_TAR,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": OCI_TAR_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": OCI_TAR_ZSTD,
    "application/vnd.docker.image.rootfs.foreign.diff.tar": OCI_TAR,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": OCI_TAR_GZIP,
    "application/vnd.oci.image.layer.nondistributable.v1.tar": OCI_TAR,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": OCI_TAR_GZIP,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": OCI_TAR_ZSTD,
}
"""Docker's names, and those of layers that may not be passed on, as OCI manifests of a private registry name them."""


@dataclass(frozen=True)
class RegistryBase:
    """A base image as its registry has it.

    :param info: what a daemon would say of it; enough to compose an image without one.
    :param layers: its layers, none of them on this machine.
    """

    info: ImageInfo
    layers: tuple[PushLayer, ...]


def registry_base(
    pin: BasePin,
    *,
    cache: Cache,
    platform: str = "linux-64",
    connect_to: Callable[[str], Repository] = connect,
) -> RegistryBase | None:
    """Return the pinned base from its registry; None where the lock names none (an image of one daemon only).

    :param platform: the Conda platform, which chooses among the images of an index.
    :raises RegistryError: the registry does not answer, or does not have the image for this platform.
    """
    if not pin.digest:
        return None
    address = parse_address(parse_reference(pin.reference).repository)
    file = ("memo", "registry-base", f"{pin.digest.removeprefix('sha256:')}-{platform}.json")
    known = _read(cache.read_json(*file))
    if known is None:
        repository = connect_to(address.full)
        image = find_image(repository, pin.digest, platform=platform)
        config = read_config(repository, image, platform=platform)
        known = _Known(config.data.decode(), image.layers)
        with contextlib.suppress(StorageError):  # what cannot be kept costs two requests the next time
            cache.write_json(known.as_json(), *file)
    return _base(pin, address, known)


@dataclass(frozen=True)
class _Known:
    """What is kept of a base: its configuration's text, and its layers in the registry."""

    config: str
    layers: tuple[Descriptor, ...]

    def as_json(self) -> dict[str, object]:
        return {"format": _FORMAT, "config": self.config, "layers": [layer.as_json() for layer in self.layers]}


def _read(record: Any) -> _Known | None:
    """Return what was kept; None for nothing, another format, or what somebody damaged."""
    try:
        if record["format"] != _FORMAT:
            return None
        layers = tuple(Descriptor(str(x["mediaType"]), str(x["digest"]), int(x["size"])) for x in record["layers"])
        known = _Known(str(record["config"]), layers)
        diff_ids = _diff_ids(known)
    except (KeyError, TypeError, ValueError):
        return None
    sound = len(diff_ids) == len(layers) and all(map(is_digest, (*diff_ids, *(layer.digest for layer in layers))))
    return known if sound else None


def _base(pin: BasePin, address: Address, known: _Known) -> RegistryBase:
    value: Mapping[str, Any] = json.loads(known.config)
    diff_ids = _diff_ids(known)
    info = ImageInfo(
        id="",
        tags=(),
        repo_digests=(f"{address.full}@{pin.digest}",),
        diff_ids=diff_ids,
        architecture=str(value.get("architecture") or ""),
        os=str(value.get("os") or ""),
        size=0,
        config=dict(value.get("config") or {}),
    )
    layers = tuple(
        PushLayer(
            name=f"base {number}",
            diff_id=diff_id,
            remotes=(RemoteBlob(address.host, address.name, _as_oci(blob)),),
        )
        for number, (diff_id, blob) in enumerate(zip(diff_ids, known.layers, strict=True), 1)
    )
    return RegistryBase(info, layers)


def _diff_ids(known: _Known) -> tuple[str, ...]:
    return tuple(json.loads(known.config)["rootfs"]["diff_ids"])


def _as_oci(blob: Descriptor) -> Descriptor:
    """Name a blob as an OCI manifest does; the bytes, and so the digest, are the same."""
    return Descriptor(_OCI_TYPES.get(blob.media_type, blob.media_type), blob.digest, blob.size)
