"""A manifest that is about to get a tag: stored under its digest first, and seen to be there whole.

A full disk or a power cut may leave a registry an empty file for a manifest. ``distribution`` (2.8) takes that for the
manifest ever after and gives the tag to it: what the tag named before would be lost, and nobody could read the tag.
"""

from __future__ import annotations

from collections.abc import Callable

from himl_container.errors import RegistryError
from himl_container.registry.model import Descriptor, sha256_of

Put = Callable[[bytes, str, str], object]
"""Stores a manifest of a media type under a tag or digest."""

Head = Callable[[str], Descriptor | None]
"""Says what a tag or digest names."""

_NOT_GIVEN = "the registry took the manifest and does not give it"
_DAMAGED = "Its storage may be damaged: a full disk leaves that. The tag was not changed."


def store_whole(data: bytes, media_type: str, *, put: Put, head: Head, where: str) -> None:
    """Bring a manifest into a registry under its digest alone, and see that it is there.

    :param where: the tag that it is to get, for messages.
    :raises RegistryError: the registry refuses it, or does not give what it took.
    """
    digest = sha256_of(data)
    put(data, media_type, digest)
    try:
        found = head(digest)
    except RegistryError as error:
        raise RegistryError(f"{_NOT_GIVEN}: {error.what}", where=where, hint=_DAMAGED) from error
    if found is None or found.size != len(data):
        raise RegistryError(f"{_NOT_GIVEN} whole", where=where, hint=_DAMAGED)
