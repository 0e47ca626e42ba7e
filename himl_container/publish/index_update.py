"""After a push: the layer index learns which layers the registry has now, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from himl_container.cache import Cache
from himl_container.environment.model import Lock
from himl_container.image.plan import plan_layers
from himl_container.progress import Reporter
from himl_container.publish.index_document import IndexEntry, compression_of
from himl_container.publish.layer_facts import ARTIFACT_TYPE, MEDIA_TYPE, facts_of, write_facts
from himl_container.publish.layer_index import LayerIndex, today
from himl_container.publish.model import Pushed
from himl_container.publish.publication import Publication, base_key
from himl_container.registry.api import Repository
from himl_container.registry.model import (
    EMPTY_JSON,
    OCI_EMPTY,
    OCI_MANIFEST,
    Descriptor,
    canonical_json,
    sha256_of,
)

_AT_ONCE = 6


@dataclass(frozen=True)
class Held:
    """Where the registry has what is known of each layer, by the layer's key, for an image that it may not forget."""

    subject: str
    facts: Mapping[str, Descriptor]


def hold_facts(
    index: LayerIndex,
    publication: Publication,
    subject: Descriptor,
    *,
    lock: Lock,
    repository: Repository,
    cache: Cache,
) -> Held:
    """Send what is known of an image's layers so far as the registry lacks it, and have the image hold it.

    :param subject: the image's manifest, which the registry has.
    :raises RegistryError: the registry does not take it.
    """
    facts = {} if publication.plan.assumed else _facts(index, publication, lock, repository, cache)
    _hold(sorted(set(facts.values()), key=lambda one: one.digest), subject, repository)
    return Held(subject.digest, facts)


def update_index(
    index: LayerIndex,
    publication: Publication,
    pushed: Pushed,
    *,
    lock: Lock,
    repository: Repository,
    cache: Cache,
    reporter: Reporter,
    held: Held | None = None,
) -> None:
    """Add the layers of an image that was pushed to the index of its repository.

    Nothing is said of our own layers where the plan is an assumption: their keys may be those of other contents.

    :param cache: where what is known of the layers' packages is kept.
    :param held: what :func:`hold_facts` returned, where it was called.
    :raises RegistryError: the registry does not take it. The image is there all the same.
    """
    if held is None or held.subject != pushed.manifest.digest:
        held = hold_facts(index, publication, pushed.manifest, lock=lock, repository=repository, cache=cache)
    below = len(pushed.layers) - len(publication.layers)
    if publication.plan.assumed:
        publication = replace(publication, layers=(), activations={})
    entries = _base_entries(publication, pushed.layers[:below])
    for layer, blob in zip(publication.layers, pushed.layers[below:], strict=False):
        kind = compression_of(blob.media_type)
        if kind and layer.size:
            known = held.facts.get(layer.key)
            entries[layer.key] = IndexEntry(layer.digest, layer.size, layer.entries, today(), {kind: blob}, known)
    apart = plan_layers(lock)
    keys = zip(apart, publication.plan.layers, strict=True)
    same = {plan.key: other.key for plan, other in keys if plan.key != other.key and other.key in held.facts}
    index = index.merged(entries, publication.activations, same)
    if not len(index.pending):
        return
    with reporter.step("index", f"{len(index.pending)} layers"):
        index.store(repository, reporter=reporter)


def _base_entries(publication: Publication, blobs: Sequence[Descriptor]) -> dict[str, IndexEntry]:
    entries = {}
    for layer, blob in zip(publication.image.layers[: len(blobs)], blobs, strict=True):
        kind = compression_of(blob.media_type)
        if kind:
            entries[base_key(layer.diff_id)] = IndexEntry(layer.diff_id, layer.size, 0, today(), {kind: blob})
    return entries


def _facts(
    index: LayerIndex, publication: Publication, lock: Lock, repository: Repository, cache: Cache
) -> Mapping[str, Descriptor]:
    """Return where the registry has what is known of each layer, by the layer's key; what it lacks is sent."""
    known: dict[str, Descriptor] = {}
    new: dict[str, bytes] = {}
    plans = {plan.key: plan for plan in publication.plan.layers}
    for layer in publication.layers:
        entry = index.entry(layer.key)
        if entry is not None and entry.facts is not None:
            known[layer.key] = entry.facts
        elif (facts := facts_of(plans[layer.key], layer, lock, cache)) is not None:
            new[layer.key] = write_facts(facts)
    # Each once: layers may share a document, and a registry may fail over two uploads of one blob at once.
    documents = set(new.values())
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="facts") as pool:
        sent = dict(zip(documents, pool.map(repository.upload_bytes, documents), strict=True))
    return known | {key: Descriptor(MEDIA_TYPE, sent[data], len(data)) for key, data in new.items()}


def _hold(facts: Sequence[Descriptor], subject: Descriptor, repository: Repository) -> None:
    """Store an artifact that refers to the image and names the documents, so that they live as long as the image."""
    if not facts:
        return
    repository.upload_bytes(EMPTY_JSON)
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": Descriptor(OCI_EMPTY, sha256_of(EMPTY_JSON), len(EMPTY_JSON)).as_json(),
        "layers": [one.as_json() for one in facts],
        "subject": Descriptor(subject.media_type, subject.digest, subject.size).as_json(),
    }
    data = canonical_json(content)
    repository.put_manifest(data, OCI_MANIFEST, sha256_of(data))
