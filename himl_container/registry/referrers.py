"""What refers to a manifest: by the referrers API, or by the tag that stands in for it (``sha256-<hex>``).

Sources: OCI distribution specification 1.1, "Listing Referrers", "Referrers Tag Schema" and "Pushing Manifests with
Subject".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import quote

from himl_container.errors import RegistryError
from himl_container.registry.access import Access
from himl_container.registry.answers import Request
from himl_container.registry.descriptors import checked_digest, parse_descriptor
from himl_container.registry.headers import next_page
from himl_container.registry.manifests import head, manifest, parse_manifest, put_manifest
from himl_container.registry.model import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, Descriptor, canonical_json
from himl_container.registry.retries import Failure, RetryableError
from himl_container.registry.stored import store_whole

_PAGES = 100
_ENTRIES = 10_000


def list_by_api(access: Access, digest: str, artifact_type: str) -> tuple[Descriptor, ...] | None:
    """Return what the referrers API says, all pages; None where the registry has no such API (404)."""
    query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
    target: str | None = access.path(f"referrers/{checked_digest(digest, access.where)}{query}")
    found: list[Descriptor] = []
    for _ in range(_PAGES):
        if target is None or len(found) > _ENTRIES:
            break
        what, accept = f"Look-up of what refers to {digest[:19]}", {"Accept": OCI_INDEX}
        request = Request("GET", target, what, scope=access.pull, headers=accept, expect=(200, 404))
        answer = access.transport.request(request)
        if answer.status == 404:
            return None
        found += _entries(parse_manifest(answer.data, access.where))
        target = next_page(answer.headers.get("Link"), answer.url)
    return tuple(found)


def list_by_tag(access: Access, digest: str) -> tuple[Descriptor, ...]:
    """Return what the index under the stand-in tag names; nothing where there is no such tag."""
    return tuple(_entries(_index(access, stand_in_tag(digest))))


def chosen(found: tuple[Descriptor, ...], artifact_type: str) -> tuple[Descriptor, ...]:
    """Return the descriptors of one artifact type; a registry need not have filtered."""
    return tuple(one for one in found if not artifact_type or one.artifact_type == artifact_type)


def stand_in_tag(digest: str) -> str:
    """Return the tag of the index that stands in for the referrers API."""
    return checked_digest(digest).replace(":", "-")


def artifact_manifest(
    subject: Descriptor, content: Descriptor, artifact_type: str, annotations: Mapping[str, str], empty: Descriptor
) -> bytes:
    """Return the manifest of an artifact with one document that refers to a manifest; the same bytes each time."""
    value: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": Descriptor(OCI_EMPTY, empty.digest, empty.size).as_json(),
        "layers": [content.as_json()],
        "subject": Descriptor(subject.media_type, subject.digest, subject.size).as_json(),
    }
    if annotations:
        value["annotations"] = dict(annotations)
    return canonical_json(value)


def note_by_tag(access: Access, subject: str, new: Sequence[Descriptor]) -> None:
    """Put artifacts into the index under the stand-in tag, and see that they stay there.

    A registry has no way to replace a tag only if it is unchanged, so two writers can overwrite each other's index. The
    tag is read again after it was written, and written again when another index took its place; what remains is a
    writer who read before our write and writes after our second look. Entries of others are kept as they are.

    :raises RegistryError: it was overwritten each time.
    """
    tag = stand_in_tag(subject)
    patience = access.transport.patience
    what = f"Noting what refers to {subject[:19]}"

    def once() -> None:
        content = _index(access, tag)
        values = content.get("manifests")
        kept = [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
        listed = {value.get("digest") for value in kept}
        missing = [entry.as_json() for entry in new if entry.digest not in listed]
        if not missing:
            return
        entries = sorted((*kept, *missing), key=lambda value: str(value.get("digest")))
        base = {key: value for key, value in content.items() if key in ("annotations", "artifactType", "subject")}
        index = {**base, "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        data = canonical_json(index)
        store_whole(
            data,
            OCI_INDEX,
            put=partial(put_manifest, access),
            head=partial(head, access),
            where=f"{access.where}:{tag}",
        )
        put_manifest(access, data, OCI_INDEX, tag)
        if {entry.digest for entry in new} - {one.digest for one in list_by_tag(access, subject)}:
            raise RetryableError(Failure(f"somebody else changed {tag[:19]} at the same time"))

    patience.tried(what, access.where, once)


def _index(access: Access, tag: str) -> Mapping[str, object]:
    found = manifest(access, tag)
    return found.content if found and found.media_type == OCI_INDEX else {}


def _entries(content: Mapping[str, object]) -> list[Descriptor]:
    """Return the descriptors of an index; those that are none (or by another hash) are left out."""
    values = content.get("manifests")
    return [one for value in (values if isinstance(values, list) else []) for one in _parsed(value)]


def _parsed(value: object) -> tuple[Descriptor, ...]:
    try:
        return (parse_descriptor(value),)
    except RegistryError:
        return ()
