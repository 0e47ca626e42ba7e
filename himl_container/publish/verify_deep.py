"""Hashing an image's layers as the registry serves them: each blob, and what it unpacks to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from himl_container.errors import RegistryError
from himl_container.progress import Reporter, Task
from himl_container.publish.listing import uncompressed
from himl_container.publish.pull_layers import plausible_size
from himl_container.publish.verify_model import Parting
from himl_container.publish.view import ImageView, LayerView

_CHUNK = 1 << 20


def hash_blobs(image: ImageView, reporter: Reporter) -> tuple[int, list[Parting]]:
    """Fetch each layer as a stream, keep nothing, and return the bytes that came and what is not as it should be.

    The manifest and the configuration need no further look: they were compared with their digests when they were read.

    :raises RegistryError: a blob cannot be had.
    """
    total, found = 0, []
    weight = sum(layer.blob.size for layer in image.layers if layer.blob is not None)
    with reporter.step("hash", f"layers of {image.name}", total=weight, unit="bytes") as task:
        for layer in image.layers:
            task.note(layer.name)
            size, parting = _hash(image, layer, task)
            total += size
            found += [parting] if parting else []
    return total, found


class _Seen:
    """Hashes and counts the chunks of a blob on their way."""

    def __init__(self, chunks: Iterator[bytes], task: Task) -> None:
        self._chunks = chunks
        self._task = task
        self._total = hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        self._total.update(chunk)
        self.size += len(chunk)
        self._task.advance(len(chunk))
        return chunk

    @property
    def digest(self) -> str:
        return "sha256:" + self._total.hexdigest()


def _hash(image: ImageView, layer: LayerView, task: Task) -> tuple[int, Parting | None]:
    assert image.repository is not None
    assert layer.blob is not None
    blob, failure, content = layer.blob, None, ""
    seen = _Seen(image.repository.stream(blob), task)
    try:
        where = f"{layer.name} of {image.name}"
        content = _digest(uncompressed(seen, where=where, limit=plausible_size(blob.size)))
    except RegistryError as error:
        failure = error
    try:
        for _ in seen:
            pass  # what follows the compressed content, or a blob that could not be unpacked to its end
    except RegistryError as error:
        failure = failure or error
    if seen.digest != blob.digest:
        if failure is not None and seen.size != blob.size:
            raise failure  # it did not come whole, so it says nothing about what the registry has
        return seen.size, Parting(("registry", "registry"), "blob", layer.name, blob.digest, seen.digest)
    if failure is not None or content != layer.diff_id:
        shown = content or "cannot be unpacked"
        return seen.size, Parting(("registry", "registry"), "content", layer.name, layer.diff_id, shown)
    return seen.size, None


def _digest(stream: object) -> str:
    total = hashlib.sha256()
    while data := stream.read(_CHUNK):  # type: ignore[attr-defined]
        total.update(data)
    return "sha256:" + total.hexdigest()
