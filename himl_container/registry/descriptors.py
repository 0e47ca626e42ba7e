"""Descriptors and names out of documents that others wrote, checked before they are used in a request."""

from __future__ import annotations

import re
from collections.abc import Mapping

from himl_container.errors import RegistryError
from himl_container.registry.model import Descriptor

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\Z")
_LARGEST = 1 << 50


def is_digest(text: str) -> bool:
    """Whether a text is a digest of the only kind that we verify, ``sha256:<hex>``."""
    return bool(_DIGEST.match(text))


def checked_digest(digest: str, where: str = "") -> str:
    """Return a digest that may be part of an address.

    :raises RegistryError: it is none, or none by sha256.
    """
    if not is_digest(digest):
        raise RegistryError(f"{digest[:80]!r} is no sha256 digest", where=where)
    return digest


def checked_reference(reference: str, where: str = "") -> str:
    """Return a tag or digest that may be part of an address.

    :raises RegistryError: it is neither.
    """
    if not is_digest(reference) and not _TAG.match(reference):
        raise RegistryError(f"{reference[:140]!r} is neither a tag nor a sha256 digest", where=where)
    return reference


def parse_descriptor(value: object, where: str = "") -> Descriptor:
    """Return a descriptor out of a parsed manifest or index.

    :param where: the document, for messages.
    :raises RegistryError: it is no descriptor (OCI image specification, "Content Descriptors").
    """
    if not isinstance(value, Mapping):
        raise RegistryError("A descriptor is not a mapping", where=where)
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    artifact_type = value.get("artifactType") or ""
    if not isinstance(media_type, str) or not _MEDIA_TYPE.match(media_type):
        raise RegistryError(f"A descriptor has the media type {str(media_type)[:80]!r}", where=where)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _LARGEST:
        raise RegistryError(f"A descriptor has the size {str(size)[:80]!r}", where=where)
    if not isinstance(artifact_type, str) or (artifact_type and not _MEDIA_TYPE.match(artifact_type)):
        raise RegistryError(f"A descriptor has the artifact type {str(artifact_type)[:80]!r}", where=where)
    annotations = value.get("annotations") or {}
    if not isinstance(annotations, Mapping):
        raise RegistryError("The annotations of a descriptor are not a mapping", where=where)
    texts = {key: text for key, text in annotations.items() if isinstance(key, str) and isinstance(text, str)}
    return Descriptor(media_type, checked_digest(str(digest), where), size, texts, artifact_type)
