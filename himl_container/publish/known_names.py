"""Under which digests registries know the daemon's images, as far as this machine has seen.

Docker's classic store writes down a registry's digest only for what the daemon itself pushed or pulled. So we do it:
a digest always means the same bytes, and what was once compared stays true, whatever becomes of the registry.
A record that is missing costs a request, never correctness.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from himl_container.cache import Cache
from himl_container.errors import StorageError
from himl_container.registry.reference import parse_reference

if TYPE_CHECKING:
    from himl_container.image.engine import Engine
    from himl_container.image.model import ImageInfo

_NAMES, _IMAGES = "registry-names", "registry-images"


def remember(cache: Cache, ids: Iterable[str], names: Iterable[str]) -> None:
    """Keep that an image is known under names.

    :param ids: the image's ids (``sha256:<hex>``) in the daemon: the configuration's digest, the store's own.
    :param names: ``repository@sha256:...``.
    """
    found = set(ids)
    with contextlib.suppress(StorageError):
        for name in names:
            digest = parse_reference(name).digest
            if found - set(images_of(cache, digest)):
                cache.write_json(sorted({*images_of(cache, digest), *found}), "memo", _IMAGES, _file(digest))
            for id_ in found:
                if name not in names_of(cache, id_):
                    cache.write_json([*names_of(cache, id_), name], "memo", _NAMES, _file(id_))


def names_of(cache: Cache, id_: str) -> tuple[str, ...]:
    """Return the ``repository@sha256:...`` names of an image of the daemon, by its id; those seen first come first."""
    return _texts(cache, _NAMES, id_)


def images_of(cache: Cache, digest: str) -> tuple[str, ...]:
    """Return the ids that an image with this digest of a manifest or index may have in a daemon.

    An index lists an image for each platform, so the daemon's image of such an id still has to be looked at.
    """
    return _texts(cache, _IMAGES, digest)


def find_known(name: str, *, engine: Engine, cache: Cache, platform: str = "linux-64") -> ImageInfo | None:
    """Return the daemon's image of ``repository@digest`` without asking a registry; None when that is not known."""
    ids = (name, *images_of(cache, parse_reference(name).digest))
    return first_of(ids, engine=engine, platform=platform)


def first_of(references: Iterable[str], *, engine: Engine, platform: str) -> ImageInfo | None:
    """Return the first of these images (names or ids) that the daemon has for a Conda platform."""
    from himl_container.image.compose import IMAGE_ARCHITECTURES

    wanted = IMAGE_ARCHITECTURES.get(platform, platform)
    found = (engine.inspect(reference) for reference in dict.fromkeys(references))
    return next((image for image in found if image is not None and image.architecture == wanted), None)


def _texts(cache: Cache, kind: str, digest: str) -> tuple[str, ...]:
    value = cache.read_json("memo", kind, _file(digest))
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def _file(digest: str) -> str:
    return digest.rpartition(":")[2] + ".json"
