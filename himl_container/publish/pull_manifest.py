"""What a registry says of an image: the manifest for a platform, and the configuration; checked before it is believed.

Sources: OCI image specification 1.1 ("Image Manifest", "Image Index", "Image Configuration"), and Docker's "Image
Manifest Version 2, Schema 2", which has the same fields under other media types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from himl_container.errors import RegistryError
from himl_container.image.compose import IMAGE_ARCHITECTURES
from himl_container.publish.pull_layers import is_digest
from himl_container.registry.api import Repository
from himl_container.registry.model import INDEXES, MANIFESTS, OCI_CONFIG, Descriptor, Manifest

FINGERPRINT_LABEL = "himl.fingerprint"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_LARGEST_CONFIG = 16 << 20
_MOST_LAYERS = 1024
_OUR_STEP = re.compile(r"himl-container: ([A-Za-z0-9][A-Za-z0-9:._+-]{0,120})\Z")


@dataclass(frozen=True)
class RemoteImage:
    """An image of one platform as a registry describes it.

    :param repository: the repository's full name, with its host.
    :param digest: what the name that was asked for means: the manifest's digest, or that of the index that lists it.
    :param config: the configuration's place in the registry; its digest is the image's id in Docker's classic store.
    :param layers: their forms in the registry, lowest first.
    """

    repository: str
    digest: str
    manifest: Manifest
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """``repository@digest`` names of the image: the one that means it alone, then that of its index."""
        digests = dict.fromkeys((self.manifest.digest, self.digest))
        return tuple(f"{self.repository}@{digest}" for digest in digests)


@dataclass(frozen=True)
class RemoteConfig:
    """An image's configuration.

    :param data: its bytes; they have the digest that the manifest names.
    :param layer_names: what the reader sees of each layer (``conda:numpy``, ``layer 3``).
    :param fingerprint: of the inputs, as the image's label claims; empty for an image that is not ours.
    """

    data: bytes
    architecture: str
    diff_ids: tuple[str, ...]
    layer_names: tuple[str, ...]
    fingerprint: str = ""


def find_image(repository: Repository, reference: str, *, platform: str) -> RemoteImage:
    """Return the image that a tag or digest names, for a Conda platform.

    :raises RegistryError: there is none, it is not for this platform, or what the registry has is not an image.
    """
    name = f"{repository.host}/{repository.name}"
    where = f"{name}{'@' if is_digest(reference) else ':'}{reference}"
    top = repository.manifest(reference)
    if top is None:
        raise RegistryError("the registry has no such image", where=where, hint="Check the name, and who pushed it.")
    manifest = top if top.media_type not in INDEXES else _of_platform(repository, top, platform, where)
    if manifest.media_type not in MANIFESTS:
        raise RegistryError(f"this is not an image but {manifest.media_type!r}", where=where)
    try:
        config, layers = manifest.content["config"], manifest.content["layers"]
        found = _descriptor(config), tuple(_descriptor(layer) for layer in layers)
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed("manifest", where) from error
    if found[0].media_type not in (OCI_CONFIG, _DOCKER_CONFIG) or len(found[1]) > _MOST_LAYERS:
        raise RegistryError("this is not an image that can be run", where=where)
    return RemoteImage(name, top.digest, manifest, *found)


def read_config(repository: Repository, image: RemoteImage, *, platform: str) -> RemoteConfig:
    """Fetch an image's configuration.

    :raises RegistryError: it does not fit the manifest, or the image is for another platform.
    """
    where = image.names[0]
    data = repository.blob(image.config.digest, limit=_LARGEST_CONFIG)
    try:
        value = json.loads(data)
        diff_ids = tuple(value["rootfs"]["diff_ids"])
        system, architecture = str(value["os"]), str(value["architecture"])
        fingerprint = str(((value.get("config") or {}).get("Labels") or {}).get(FINGERPRINT_LABEL, ""))
        steps = [str(step.get("created_by", "")) for step in value.get("history") or () if not step.get("empty_layer")]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _malformed("configuration", where) from error
    if not all(is_digest(diff_id) for diff_id in diff_ids) or len(diff_ids) != len(image.layers) or not diff_ids:
        raise _malformed("configuration", where)
    if (system, architecture) != _target(platform):
        raise RegistryError(
            f"the image is for {system}/{architecture}, not for {'/'.join(_target(platform))}",
            where=where,
            hint="Choose the platform with --platform.",
        )
    steps += [""] * (len(diff_ids) - len(steps))
    names = (_OUR_STEP.match(steps[number]) for number in range(len(diff_ids)))
    shown = tuple(name[1] if name else f"layer {number + 1}" for number, name in enumerate(names))
    return RemoteConfig(data, architecture, diff_ids, shown, fingerprint)


def _of_platform(repository: Repository, index: Manifest, platform: str, where: str) -> Manifest:
    """Return the manifest of an index for a platform; the first that fits, as the specification says."""
    wanted = _target(platform)
    try:
        entries = [(_descriptor(entry), entry.get("platform") or {}) for entry in index.content["manifests"]]
        offered = {(str(p.get("os")), str(p.get("architecture"))): entry for entry, p in reversed(entries)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed("index", where) from error
    entry = offered.get(wanted)
    if entry is None:
        known = ", ".join(sorted("/".join(pair) for pair in offered if pair[0] == "linux")) or "nothing for Linux"
        raise RegistryError(
            f"the image does not exist for {'/'.join(wanted)}", where=where, hint=f"The registry has it for: {known}."
        )
    found = repository.manifest(entry.digest)
    if found is None:
        raise RegistryError(
            f"the registry has no manifest {entry.digest}, which its index names",
            where=where,
            hint="Push the image again.",
        )
    return found


def _target(platform: str) -> tuple[str, str]:
    return "linux", IMAGE_ARCHITECTURES.get(platform, platform)


def _descriptor(value: Mapping[str, Any]) -> Descriptor:
    """Read a descriptor.

    :raises KeyError, TypeError, ValueError: it is not one.
    """
    size = value["size"]
    if not is_digest(value["digest"]) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError("not a descriptor")
    return Descriptor(str(value["mediaType"]), value["digest"], size)


def _malformed(what: str, where: str) -> RegistryError:
    return RegistryError(f"the image's {what} is malformed", where=where, hint="Push the image again.")
