"""The layer index: what each layer's inputs gave, kept in the registry beside the images, for machines that are empty.

It is an OCI artifact under one tag of the images' repository, :data:`TAG`: a manifest whose layers are documents
(:mod:`himl_container.publish.index_document`). A push adds a small document; documents are joined when the next is not
much smaller, so there are few of them (about the logarithm of the number of entries) and a push sends little.

A registry has no "replace if unchanged": two writers at once can lose entries. Each looks again after writing and adds
what is lost. What is lost all the same, or damaged, costs the time of making layers again, never a wrong image. What
is believed of an entry, and why, is told in ``docs/ci.md``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from himl_container.errors import RegistryError
from himl_container.image.model import PREFIX
from himl_container.image.plan import FORMAT
from himl_container.progress import Reporter
from himl_container.publish.index_document import (
    MEDIA_TYPE,
    Activations,
    DamagedError,
    Document,
    IndexEntry,
    read_descriptor,
    read_document,
    write_document,
)
from himl_container.registry.api import Repository, WrongContentError
from himl_container.registry.model import EMPTY_JSON, OCI_EMPTY, OCI_MANIFEST, Descriptor, canonical_json, sha256_of
from himl_container.registry.stored import store_whole

ARTIFACT_TYPE = "application/vnd.himl-container.layer-index.v1"

TAG = "himl-layers-" + hashlib.sha256(f"{ARTIFACT_TYPE}\n{FORMAT}\n{PREFIX}".encode()).hexdigest()[:16]
"""The index's tag. Another format of layers has other keys, so it has an index of its own."""

LARGEST_INDEX = 20_000
"""Number of entries from which those that were not pushed for longest are dropped (to nine tenths of it)."""

_REFRESHED = 30
"""Days after which an entry's ``seen`` is written again when its layer is pushed."""

_MOST_DOCUMENTS = 64
_LARGEST_DOCUMENT = 16 << 20
_ATTEMPTS = 5


@dataclass(frozen=True)
class _Segment:
    """One document of the index, and what the registry has it as; None for what is not there yet."""

    document: Document
    descriptor: Descriptor | None = None


@dataclass(frozen=True)
class LayerIndex:
    """What one repository's index says, and what is to be added to it.

    :param digest: of the manifest that was read; empty where there is none.
    """

    digest: str = ""
    segments: tuple[_Segment, ...] = ()
    pending: Document = field(default_factory=Document)

    @classmethod
    def fetch(cls, repository: Repository, *, reporter: Reporter) -> LayerIndex:
        """Return the index of a repository; an empty one where it is missing, or damaged (with a warning).

        :raises RegistryError: the registry cannot be asked.
        """
        try:
            manifest = repository.manifest(TAG)
        except WrongContentError as error:
            _warn(reporter, repository, error.what)
            return cls()
        if manifest is None:
            return cls()
        try:
            descriptors = _documents(manifest.content)
        except DamagedError as error:
            _warn(reporter, repository, str(error))
            return cls(manifest.digest)
        with ThreadPoolExecutor(8, thread_name_prefix="index") as pool:
            found = list(pool.map(lambda one: _segment(repository, one, reporter), descriptors))
        return cls(manifest.digest, tuple(segment for segment in found if segment is not None))

    def entry(self, key: str) -> IndexEntry | None:
        """Return what is known of a layer's key."""
        found = None
        for document in self._documents():
            one = document.layers.get(key)
            if one is not None:
                found = one.joined(found) if found else one
        return found

    def known(self, key: str, compression: str) -> IndexEntry | None:
        """Return what is known of a layer's key, where that includes a blob of this compression."""
        found = self.entry(key)
        return found if found is not None and compression in found.blobs else None

    def like(self, key: str) -> IndexEntry | None:
        """Return what is known of a layer with the packages of the one with this key."""
        found = self.entry(key)
        same = [document.same[key] for document in self._documents() if key in document.same]
        return found if found is not None or not same else self.entry(same[-1])

    def activation(self, key: str) -> Mapping[str, str] | None:
        """Return what the activation scripts with this key set."""
        found = [document.activations[key] for document in self._documents() if key in document.activations]
        return found[-1] if found else None

    def merged(
        self,
        entries: Mapping[str, IndexEntry],
        activations: Activations | None = None,
        same: Mapping[str, str] | None = None,
    ) -> LayerIndex:
        """Return this index with more entries, so far as they say something new; :meth:`store` writes it.

        :param activations, same: see :class:`himl_container.publish.index_document.Document`.
        """
        new = Document(
            {key: entry for key, entry in entries.items() if self._adds(key, entry)},
            {key: value for key, value in (activations or {}).items() if self.activation(key) != value},
            {key: other for key, other in (same or {}).items() if self.like(key) is None},
        )
        return replace(self, pending=new.over(self.pending))

    def store(self, repository: Repository, *, reporter: Reporter) -> LayerIndex:
        """Add to the registry's index what is to be added; nothing is sent where there is nothing new.

        Another writer's entries are kept: the index is read again when it has moved, before and after writing.

        :raises RegistryError: the registry does not take it.
        """
        index = self
        for _ in range(_ATTEMPTS):
            index = index._current(repository, reporter)
            if not len(index.pending):
                return index
            written = index._written(repository)
            if written._is_there(repository):
                return written
            fresh = LayerIndex.fetch(repository, reporter=reporter)
            index = fresh.merged(self.pending.layers, self.pending.activations, self.pending.same)
        return index  # many writers at once: what was lost costs somebody the time to make a layer again

    def __len__(self) -> int:
        return len({key for document in self._documents() for key in document.layers})

    def _documents(self) -> tuple[Document, ...]:
        return (*(segment.document for segment in self.segments), self.pending)

    def _adds(self, key: str, entry: IndexEntry) -> bool:
        old = self.entry(key)
        if old is None or old.diff_id != entry.diff_id or entry.seen >= old.seen + _REFRESHED:
            return True
        return any(old.blobs.get(name) != blob for name, blob in entry.blobs.items()) or (
            entry.facts is not None and old.facts != entry.facts
        )

    def _current(self, repository: Repository, reporter: Reporter) -> LayerIndex:
        """Return the index as it is to be written: on top of what the registry has now."""
        if not len(self.pending):
            return self
        head = repository.head(TAG)
        if (head.digest if head else "") == self.digest:
            return self
        fresh = LayerIndex.fetch(repository, reporter=reporter)
        return fresh.merged(self.pending.layers, self.pending.activations, self.pending.same)

    def _written(self, repository: Repository) -> LayerIndex:
        segments = _compacted((*self.segments, _Segment(self.pending)))
        written = tuple(
            segment if segment.descriptor else _uploaded(segment.document, repository) for segment in segments
        )
        if not self.segments:
            repository.upload_bytes(EMPTY_JSON)
        data = canonical_json(_manifest([segment.descriptor for segment in written if segment.descriptor]))
        where = f"{repository.host}/{repository.name}:{TAG}"
        store_whole(data, OCI_MANIFEST, put=repository.put_manifest, head=repository.head, where=where)
        digest = repository.put_manifest(data, OCI_MANIFEST, TAG)
        return LayerIndex(digest, written)

    def _is_there(self, repository: Repository) -> bool:
        head = repository.head(TAG)
        return head is not None and head.digest == self.digest


def today() -> int:
    """Return the day, counted from 1 January 1970."""
    return int(time.time() // 86_400)


def _manifest(documents: list[Descriptor]) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": Descriptor(OCI_EMPTY, sha256_of(EMPTY_JSON), len(EMPTY_JSON)).as_json(),
        "layers": [document.as_json() for document in documents],
    }


def _documents(content: Mapping[str, Any]) -> list[Descriptor]:
    layers = content.get("layers")
    if content.get("artifactType") != ARTIFACT_TYPE or not isinstance(layers, list) or len(layers) > _MOST_DOCUMENTS:
        raise DamagedError("its manifest is none of ours")
    found = []
    for layer in layers:
        if not isinstance(layer, dict):
            raise DamagedError("its manifest is malformed")
        found.append(read_descriptor([layer.get("mediaType"), layer.get("digest"), layer.get("size")]))
    if any(one.media_type != MEDIA_TYPE or one.size > _LARGEST_DOCUMENT for one in found):
        raise DamagedError("its manifest names something else")
    return found


def _segment(repository: Repository, descriptor: Descriptor, reporter: Reporter) -> _Segment | None:
    try:
        data = _blob(repository, descriptor)
        return _Segment(read_document(data), descriptor)
    except DamagedError as error:
        _warn(reporter, repository, str(error))
        return None


def _blob(repository: Repository, descriptor: Descriptor) -> bytes:
    try:
        return repository.blob(descriptor.digest, limit=_LARGEST_DOCUMENT)
    except WrongContentError as error:
        raise DamagedError("a part of it has other content than its digest says") from error
    except RegistryError as error:
        if repository.blob_exists(descriptor.digest):
            raise
        raise DamagedError("the registry no longer has a part of it") from error


def _warn(reporter: Reporter, repository: Repository, why: str) -> None:
    reporter.warn(
        f"the layer index of {repository.host}/{repository.name} (tag {TAG}) is damaged ({why}): layers that it may "
        "have named are made again, and a later push repairs it"
    )


def _uploaded(document: Document, repository: Repository) -> _Segment:
    data = write_document(document)
    return _Segment(document, Descriptor(MEDIA_TYPE, repository.upload_bytes(data), len(data)))


def _compacted(segments: tuple[_Segment, ...]) -> tuple[_Segment, ...]:
    """Join documents from the newest on, each while the one before it is at most twice as long."""
    if sum(len(segment.document.layers) for segment in segments) > LARGEST_INDEX:
        return (_Segment(_youngest([segment.document for segment in segments])),)
    *older, last = segments
    while older and len(older[-1].document) <= 2 * len(last.document):
        last = _Segment(last.document.over(older.pop().document))
    return (*older, last)


def _youngest(documents: list[Document]) -> Document:
    """Return one document with the entries that were seen last; of two of one day, those of later documents."""
    whole = Document()
    for document in documents:
        whole = document.over(whole)
    if len(whole.layers) <= LARGEST_INDEX:
        return whole
    kept = LARGEST_INDEX * 9 // 10
    newest = sorted(whole.layers.items(), key=lambda item: item[1].seen)[-kept:]
    layers = dict(newest)
    return Document(
        layers, dict(list(whole.activations.items())[-kept:]), {k: v for k, v in whole.same.items() if v in layers}
    )
