"""Manifests and indexes: read with their bytes compared with their digest, stored with the digest compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from himl_container.errors import RegistryError
from himl_container.registry.access import Access
from himl_container.registry.answers import Answer, Request
from himl_container.registry.blob_lookup import blob_size
from himl_container.registry.descriptors import checked_reference, is_digest
from himl_container.registry.downloads import wrong_content
from himl_container.registry.model import INDEXES, MANIFESTS, Descriptor, Manifest, sha256_of
from himl_container.registry.put_again import Resend, put_again

_ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
_NOTHING: Resend = MappingProxyType({})


def head(access: Access, reference: str) -> Descriptor | None:
    """Return what a tag or digest names, by ``HEAD``; by the manifest itself where the registry leaves something out.

    :raises RegistryError: the registry does not answer, or answers another digest than was asked for.
    """
    answer = _ask(access, "HEAD", reference)
    if answer.status == 404:
        return None
    digest = answer.headers.get("Docker-Content-Digest", "")
    media_type, length = _media_type(answer), answer.headers.get("Content-Length", "")
    complete = is_digest(digest) and media_type in (*MANIFESTS, *INDEXES) and length.isascii() and length.isdigit()
    if not complete:
        found = manifest(access, reference)
        return found.descriptor if found else None
    if is_digest(reference) and digest != reference:
        raise wrong_content(reference, digest, access.where)
    return Descriptor(media_type, digest, int(length[:12]))


def manifest(access: Access, reference: str) -> Manifest | None:
    """Return a manifest or index.

    :raises RegistryError: the registry does not answer, the bytes have another digest than was asked for or than the
        registry says, or are no manifest.
    """
    answer = _ask(access, "GET", reference)
    if answer.status == 404:
        return None
    digest = sha256_of(answer.data)
    for expected in (reference, answer.headers.get("Docker-Content-Digest", "")):
        if is_digest(expected) and expected != digest:
            raise wrong_content(expected, digest, access.where)
    content = parse_manifest(answer.data, f"{access.where}@{digest}")
    media_type = content.get("mediaType") or _media_type(answer)
    if media_type not in (*MANIFESTS, *INDEXES):
        raise RegistryError(f"{reference} is no image but {str(media_type)[:80]!r}", where=access.where)
    said = _media_type(answer)
    if said in (*MANIFESTS, *INDEXES) and said != media_type:
        raise RegistryError(f"{reference} says that it is {media_type}, the registry {said}", where=access.where)
    return Manifest(answer.data, str(media_type), digest, content)


def parse_manifest(data: bytes, where: str = "") -> Mapping[str, Any]:
    """Return the content of a manifest or index.

    One that is both at once is refused: clients would disagree on what it is (CVE-2021-41190).

    :raises RegistryError: it is no JSON mapping.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RegistryError("A manifest is no JSON", where=where) from error
    if not isinstance(content, dict):
        raise RegistryError("A manifest is no mapping", where=where)
    if "manifests" in content and ("layers" in content or "config" in content):
        raise RegistryError("A manifest says that it is an image and an index at once", where=where)
    return content


def put_manifest(
    access: Access, data: bytes, media_type: str, reference: str, *, resend: Resend = _NOTHING
) -> tuple[str, str]:
    """Store a manifest or index, also where another client sends the same blobs at the same time.

    :param resend: what the caller can send again (:func:`himl_container.registry.put_again.put_again`).
    :return: its digest, and the subject that the registry recorded by the referrers API (empty where it has none).
    :raises RegistryError: it was refused (as :class:`himl_container.registry.refusals.MissingBlobsError` when the
        registry lacks blobs), or the registry reports another digest.
    """
    digest = sha256_of(data)
    checked_reference(reference, access.where)
    if is_digest(reference) and reference != digest:
        raise RegistryError(f"A manifest with the digest {digest} was to be stored as {reference}", where=access.where)
    request = Request(
        "PUT",
        access.path(f"manifests/{reference}"),
        f"Upload of the manifest {reference[:80]}",
        scope=access.push,
        headers={"Content-Type": media_type},
        body=data,
        expect=(200, 201, 202, 204),
    )
    look: Callable[[Access, str], object] = head if media_type in INDEXES else blob_size

    def exists(named: str) -> bool:
        return look(access, named) is not None

    answer = put_again(access, request, data, exists=exists, resend=resend)
    reported = answer.headers.get("Docker-Content-Digest", "")
    if not reported:
        found = head(access, reference)
        reported = found.digest if found else "nothing"
    if reported != digest:
        raise RegistryError(
            f"The registry stored the manifest as {reported[:80]}, not as {digest}",
            where=f"{access.where}:{reference}",
            hint="Something between here and the registry changes what is sent, or somebody else pushed the same tag.",
        )
    return digest, answer.headers.get("OCI-Subject", "")


def _ask(access: Access, method: str, reference: str) -> Answer:
    path = access.path(f"manifests/{checked_reference(reference, access.where)}")
    what = f"{'Look-up' if method == 'HEAD' else 'Download'} of the manifest {reference[:80]}"
    headers = {"Accept": _ACCEPT}
    return access.transport.request(Request(method, path, what, scope=access.pull, headers=headers, expect=(200, 404)))


def _media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()
