"""Asking whether a repository has a blob, and how large it is there."""

from __future__ import annotations

from himl_container.registry.access import Access
from himl_container.registry.answers import Request
from himl_container.registry.descriptors import checked_digest, is_digest
from himl_container.registry.downloads import wrong_content

UNSAID = -1
"""The size of a blob whose size the registry does not say."""


def blob_size(access: Access, digest: str) -> int | None:
    """Return the bytes of a blob, UNSAID where the registry does not say it; None when it does not have it.

    :raises RegistryError: the registry does not answer, or answers another digest than was asked for.
    """
    path = access.path(f"blobs/{checked_digest(digest, access.where)}")
    request = Request("HEAD", path, f"Look-up of {digest[:19]}", scope=access.pull, expect=(200, 404))
    answer = access.transport.request(request)
    if answer.status == 404:
        return None
    reported = answer.headers.get("Docker-Content-Digest", "")
    if is_digest(reported) and reported != digest:
        raise wrong_content(digest, reported, access.where)
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else UNSAID
