"""The documents of the layer index: entries as JSON, compressed, and read back as what a stranger may have written.

::

    {"format": 1,
     "layers": {"<key>": {"diff_id": "sha256:...", "size": 1, "entries": 1, "seen": 20000,
                          "blobs": {"gzip": ["<media type>", "sha256:...", 1]}, "facts": ["...", "sha256:...", 1]}},
     "same": {"<key>": "<key>"},
     "activations": {"<key>": {"NAME": "value"}}}

A document is believed as a whole or not at all: one entry that cannot be is a sign that none was written by us.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from himl_container.image.quoting import UNWRITABLE
from himl_container.publish.gzip_text import gunzipped, gzipped
from himl_container.registry.model import DOCKER_TAR_GZIP, OCI_TAR_GZIP, OCI_TAR_ZSTD, Descriptor, canonical_json

MEDIA_TYPE = "application/vnd.himl-container.layer-index.v1+gzip"
"""Of a document."""

LARGEST = 64 << 20
"""Bytes that a document may have uncompressed; 20,000 entries are below 12 MB."""

_FORMAT = 1
_KEY = re.compile(r"(?:base-)?[0-9a-f]{64}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_MEDIA = re.compile(r"[a-z]+/[A-Za-z0-9.+_-]{1,120}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_COMPRESSIONS = {OCI_TAR_GZIP: "gzip", DOCKER_TAR_GZIP: "gzip", OCI_TAR_ZSTD: "zstd"}
_LARGEST_NUMBER = 1 << 50


class DamagedError(Exception):
    """What a registry gave is not a document of ours."""


@dataclass(frozen=True)
class IndexEntry:
    """What a layer's key gave, and where the registry has it.

    :param diff_id: sha256 of the uncompressed tar; goes into the configurations of images.
    :param size: bytes of the uncompressed tar.
    :param entries: number of archive entries.
    :param seen: the day (since 1 January 1970) on which an image with this layer was last pushed, to the month or so.
    :param blobs: the compressed forms, by compression (``gzip``, ``zstd``).
    :param facts: what planning must know of the layer's packages (:mod:`himl_container.publish.layer_facts`).
    """

    diff_id: str
    size: int
    entries: int
    seen: int
    blobs: Mapping[str, Descriptor] = field(default_factory=dict, hash=False)
    facts: Descriptor | None = None

    def joined(self, other: IndexEntry) -> IndexEntry:
        """Return this entry, with what only the other one, of the same content, knows."""
        if other.diff_id != self.diff_id:
            return self
        seen = max(self.seen, other.seen)
        return IndexEntry(
            self.diff_id, self.size, self.entries, seen, {**other.blobs, **self.blobs}, self.facts or other.facts
        )


Activations = Mapping[str, Mapping[str, str]]
"""Key of activation scripts (:func:`himl_container.image.activation.memo_key`) -> the variables that they set."""


@dataclass(frozen=True)
class Document:
    """One document: entries by the key of the layer's plan.

    :param same: the key that a layer would have if its packages shared no path with others -> the key that it has. Its
        packages are the same, so what is known of them is found before it is known which paths they share.
    """

    layers: Mapping[str, IndexEntry] = field(default_factory=dict)
    activations: Activations = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.layers) + len(self.activations) + len(self.same)

    def over(self, other: Document) -> Document:
        """Return both as one; where both have a key, this one's entry decides and the other's adds to it."""
        layers = dict(other.layers)
        for key, entry in self.layers.items():
            layers[key] = entry.joined(layers[key]) if key in layers else entry
        return Document(layers, {**other.activations, **self.activations}, {**other.same, **self.same})


def compression_of(media_type: str) -> str:
    """Return ``gzip`` or ``zstd`` for the media type of a layer as we push it; empty for any other."""
    return _COMPRESSIONS.get(media_type, "")


def pack(value: object) -> bytes:
    """Return a value as compressed JSON; the same value gives the same bytes wherever zlib is the same."""
    return gzipped(canonical_json(value))


def unpack(data: bytes) -> Any:
    """Return the value of :func:`pack`.

    :raises DamagedError: it is not one, or larger than :data:`LARGEST`.
    """
    import json

    text = gunzipped(data, LARGEST)
    if text is None:
        raise DamagedError("it is no gzip file, cut short or too large")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(str(error)) from error


def write_document(document: Document) -> bytes:
    """Return the bytes of a document."""
    layers = {key: _entry_as_json(entry) for key, entry in document.layers.items()}
    return pack({"format": _FORMAT, "layers": layers, "same": document.same, "activations": document.activations})


def read_document(data: bytes) -> Document:
    """Return a document that a registry gave.

    :raises DamagedError: it is not one of ours, or holds what no entry may hold.
    """
    value = unpack(data)
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise DamagedError("it has another format")
    layers, activations, same = value.get("layers"), value.get("activations"), value.get("same")
    if not isinstance(layers, dict) or not isinstance(activations, dict) or not isinstance(same, dict):
        raise DamagedError("it has no entries")
    return Document(
        {_matching(_KEY, key): _entry(entry) for key, entry in layers.items()},
        {_matching(_KEY, key): _activation(variables) for key, variables in activations.items()},
        {_matching(_KEY, key): _matching(_KEY, other) for key, other in same.items()},
    )


def read_descriptor(value: object) -> Descriptor:
    """Return a descriptor from its three values.

    :raises DamagedError: it is none.
    """
    if not isinstance(value, list) or len(value) != 3:
        raise DamagedError("it has a malformed descriptor")
    return Descriptor(_matching(_MEDIA, value[0]), _matching(_DIGEST, value[1]), _number(value[2]))


def _entry_as_json(entry: IndexEntry) -> dict[str, object]:
    value: dict[str, object] = {
        "diff_id": entry.diff_id,
        "size": entry.size,
        "entries": entry.entries,
        "seen": entry.seen,
        "blobs": {name: _plain(blob) for name, blob in entry.blobs.items()},
    }
    if entry.facts is not None:
        value["facts"] = _plain(entry.facts)
    return value


def _plain(descriptor: Descriptor) -> list[object]:
    return [descriptor.media_type, descriptor.digest, descriptor.size]


def _entry(value: object) -> IndexEntry:
    if not isinstance(value, dict) or not isinstance(value.get("blobs"), dict):
        raise DamagedError("it has a malformed entry")
    blobs = {}
    for name, blob in value["blobs"].items():
        blobs[name] = read_descriptor(blob)
        # The media type says how a daemon unpacks the blob, so it must be the one of the compression.
        if compression_of(blobs[name].media_type) != name:
            raise DamagedError("it has a blob of another kind")
    return IndexEntry(
        diff_id=_matching(_DIGEST, value.get("diff_id")),
        size=_number(value.get("size")),
        entries=_number(value.get("entries")),
        seen=_number(value.get("seen")),
        blobs=blobs,
        facts=read_descriptor(value["facts"]) if "facts" in value else None,
    )


def _activation(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise DamagedError("it has malformed variables")
    for name, text in value.items():
        _matching(_VARIABLE, name)
        if not isinstance(text, str) or UNWRITABLE.search(text):
            raise DamagedError("it has a malformed variable")
    return value


def _matching(pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not pattern.match(value):
        raise DamagedError("it has a malformed name")
    return value


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST_NUMBER:
        raise DamagedError("it has a malformed number")
    return value
