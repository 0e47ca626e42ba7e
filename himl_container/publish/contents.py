"""Where the content of an image's layers is read: the cache, the registry, the daemon; whichever is nearest.

Layers are read as streams and never kept: what is compared needs each path's hash, not its content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from himl_container.cache import Cache
from himl_container.errors import EngineError, RegistryError
from himl_container.image.store import LayerStore
from himl_container.progress import Reporter, Task
from himl_container.publish.listing import Listing, list_layer, uncompressed
from himl_container.publish.pull_layers import plausible_size
from himl_container.publish.tar_reader import TarReader
from himl_container.publish.view import ImageView, LayerView

Export = Callable[[str], AbstractContextManager[Iterator[bytes]]]
"""Gives the archive of an image (``docker save``), by its id, as a stream of chunks."""

_CHUNK = 1 << 20
_STARTS = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


class Contents:
    """Reads layers.

    :param cache: whose store has the layers that were made or pulled here.
    :param export: asked only for images of the daemon whose layers are not all in the cache.
    """

    def __init__(self, cache: Cache, export: Export, reporter: Reporter) -> None:
        self._cache = cache
        self._stored = {layer.digest: layer for layer in LayerStore(cache)}
        self._export = export
        self._reporter = reporter

    def listing(self, image: ImageView, layers: Sequence[LayerView]) -> Listing:
        """Return what some layers of an image give together, read in their order.

        :raises RegistryError, EngineError: a layer cannot be had, is damaged, or is another one.
        """
        total = Listing()
        size = sum(map(self._size, layers))
        with self._reporter.step("read", f"layers of {image.name}", total=size or None, unit="bytes") as task:
            exported = self._exported(image, layers, task)
            for layer in layers:
                task.note(layer.name)
                total.put(exported.get(layer.diff_id) or self._listed(image, layer, task))
        return total

    def _size(self, layer: LayerView) -> int:
        """Return how many bytes will be read of a layer; 0 where the daemon does not tell."""
        stored = self._stored.get(layer.diff_id)
        return stored.size if stored else layer.blob.size if layer.blob else 0

    def _listed(self, image: ImageView, layer: LayerView, task: Task) -> Listing:
        where = f"{layer.name} of {image.name}"
        path = self._cache.blob(layer.diff_id)
        if layer.diff_id in self._stored and path.is_file():
            return list_layer(_counted(_file(path), task), diff_id=layer.diff_id, where=where)
        if image.repository is None or layer.blob is None:
            raise EngineError("the Docker daemon's archive of the image lacks a layer", where=where)
        chunks = image.repository.stream(layer.blob)
        limit = plausible_size(layer.blob.size)
        return list_layer(_counted(chunks, task), diff_id=layer.diff_id, where=where, limit=limit)

    def _exported(self, image: ImageView, layers: Sequence[LayerView], task: Task) -> dict[str, Listing]:
        """Return the layers that only the daemon has; it gives the whole image or nothing."""
        wanted = {layer.diff_id for layer in layers if layer.blob is None and layer.diff_id not in self._stored}
        found: dict[str, Listing] = {}
        if not wanted:
            return found
        task.note("archive of the image")
        with self._export(image.config_digest or image.digest) as chunks:
            stream = uncompressed(_counted(chunks, task), where=image.name)
            archive = TarReader(stream, image.name)
            for entry in archive:
                # Engines name layers differently (<id>/layer.tar, blobs/sha256/<hex>): what it is decides.
                content = archive.content()
                first = next(content, b"") if entry.kind == "file" else b""
                if first[257:262] == b"ustar" or first.startswith(_STARTS):
                    listing = list_layer(_again(first, content), where=image.name)
                    if listing.digest in wanted:
                        found[listing.digest] = listing
        return found


def daemon_export(id_: str) -> AbstractContextManager[Iterator[bytes]]:
    """Return the archive of an image of the daemon that the process's variables name.

    :raises EngineError: (also while it is read) the daemon does not answer, goes away, or does not have it.
    """
    import contextlib
    import os

    from himl_container.image.endpoint import resolve_endpoint
    from himl_container.image.engine_client import Client

    @contextlib.contextmanager
    def opened() -> Iterator[Iterator[bytes]]:
        client, doing = Client.connect(resolve_endpoint(os.environ)), "read an image"
        with client.open(doing, f"/images/{id_}/get") as response, client.converting(doing):
            yield response.chunks(_CHUNK)

    return opened()


def _file(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise RegistryError(f"a layer of the cache cannot be read: {error.strerror}", where=str(path)) from error


def _counted(chunks: Iterator[bytes], task: Task) -> Iterator[bytes]:
    for chunk in chunks:
        task.advance(len(chunk))
        yield chunk


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
