"""Whether two images are the same one, as manifests and configurations tell. Light to import: every push asks."""

from __future__ import annotations

import json

from himl_container.errors import RegistryError
from himl_container.registry.model import Descriptor, Manifest


def same_image(manifest: Manifest, config_digest: str) -> bool:
    """Whether a manifest is of the image with this configuration, whatever its annotations and compression are."""
    config = manifest.content.get("config")
    return isinstance(config, dict) and config.get("digest") == config_digest


def layers_of(manifest: Manifest) -> tuple[Descriptor, ...]:
    """Return the layers that a registry's manifest names.

    :raises RegistryError: it is malformed.
    """
    try:
        return tuple(
            Descriptor(str(layer["mediaType"]), str(layer["digest"]), int(layer["size"]))
            for layer in manifest.content["layers"]
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:  # JSON's 1e999 is read as an infinite number
        raise RegistryError("the registry's manifest is malformed", where=manifest.digest) from error


def diff_ids_of(config: bytes) -> tuple[str, ...]:
    """Return the layers that an image configuration names; none where it is malformed."""
    try:
        found = json.loads(config)["rootfs"]["diff_ids"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(map(str, found)) if isinstance(found, list) else ()


def other_image(where: str, digest: str) -> RegistryError:
    """Return the error for a tag that means another image than the one that is pushed."""
    return RegistryError(
        f"the registry has another image under this tag ({digest})",
        where=where,
        hint="It was made from the same lock in another way: another day's Debian packages, or by Docker itself. Use "
        "that one ('himl-container pull'), or remove the tag from the registry and push again.",
    )
