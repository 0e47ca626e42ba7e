"""Layers that exist only in the daemon: taken out of one export, compared with their diff ids, kept in the store.

Engines export images in different forms: 20.10 as ``<id>/layer.tar`` with files of the old image format, 25 and later
as an OCI layout, whose blobs containerd's store may have compressed; what names what comes last in each. So no name is
asked: what hashes to a wanted diff id, plain or unpacked, is that layer, and the JSON document that lists the image's
diff ids is its configuration. The stream is ended as soon as everything is there.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, cast

from himl_container.cache import Cache
from himl_container.errors import EngineError
from himl_container.image.store import LayerStore
from himl_container.image.tar import Written
from himl_container.progress import Reporter, Task

_LARGEST_DOCUMENT = 8 << 20
_BLOCK = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Archive(Protocol):
    """An export that is being read."""

    def read(self, size: int) -> bytes:
        """Return the next bytes; fewer only at the end."""


OpenArchive = Callable[[str], AbstractContextManager[Archive]]
"""Begins the export of an image, by name or id."""


@dataclass(frozen=True)
class Exported:
    """What was taken out of a daemon.

    :param layers: uncompressed tars in the store, by diff id.
    :param config: the image's configuration; empty where it was not asked for.
    """

    layers: Mapping[str, Path]
    config: bytes = field(default=b"", repr=False)


def stored_layer(cache: Cache, diff_id: str) -> Path | None:
    """Return the tar of a layer that the store of blobs has, because it was exported or pulled before.

    It is not hashed here: whoever compresses it does that.
    """
    found = LayerStore(cache).get(_hex(diff_id))
    if found is not None and found.digest == diff_id:
        return found.path
    path = cache.blob(diff_id)
    return path if path.is_file() else None


def export_layers(
    image: str,
    wanted: Mapping[str, str],
    *,
    cache: Cache,
    reporter: Reporter,
    config_of: tuple[str, ...] = (),
    open_archive: OpenArchive | None = None,
) -> Exported:
    """Bring layers of an image from the daemon into the store; those that are there are not asked for.

    :param image: name or id.
    :param wanted: what the reader calls each layer, by diff id.
    :param config_of: the diff ids of the whole image, where its configuration is wanted too.
    :param open_archive: how to get the export; the daemon's by default.
    :raises EngineError: the daemon does not answer, went away, or gives something else.
    :raises StorageError: the cache cannot be written.
    """
    # Two processes that push the same base: the second finds the layers in the store.
    with cache.lock("export-" + hashlib.sha256(image.encode()).hexdigest()[:3]):
        there = {diff_id: path for diff_id in wanted if (path := stored_layer(cache, diff_id)) is not None}
        missing = {diff_id: name for diff_id, name in wanted.items() if diff_id not in there}
        if not missing and not config_of:
            return Exported(there)
        with reporter.step("export", f"{len(missing)} layers of {image}", unit="bytes") as task:
            export = _Export(missing, config_of, cache, task)
            with (open_archive or daemon_archive)(image) as archive:
                export.read(archive, image)
        return Exported({**there, **export.found}, export.config)


@contextlib.contextmanager
def daemon_archive(image: str) -> Iterator[Archive]:
    """Begin an export by the daemon that the process's environment names.

    :raises EngineError: it does not answer, or has no such image.
    """
    from himl_container.image.docker_http import DockerHttp, segment
    from himl_container.image.endpoint import resolve_endpoint

    endpoint = resolve_endpoint(os.environ)
    # Engine 20.10 is silent until it has gathered the whole image on its disk.
    stream = DockerHttp(endpoint).stream("GET", f"/images/{segment(image)}/get", answer_timeout=None)
    with contextlib.closing(stream):
        if stream.status != 200:
            message = stream.read_all()[:500].decode("utf-8", "replace").strip()
            raise EngineError(f"the daemon does not export {image!r}: {message}", where=str(endpoint))
        yield stream


class _Export:
    """One export under way."""

    def __init__(self, wanted: Mapping[str, str], config_of: tuple[str, ...], cache: Cache, task: Task) -> None:
        self._wanted = wanted
        self._config_of = config_of
        self._cache = cache
        self._task = task
        self.found: dict[str, Path] = {}
        self.config = b""

    @property
    def complete(self) -> bool:
        return len(self.found) == len(self._wanted) and bool(self.config or not self._config_of)

    def read(self, archive: Archive, image: str) -> None:
        """Read an archive until everything is found.

        :raises EngineError: it ends before.
        """
        try:
            source = cast("IO[bytes]", archive)
            with tarfile.open(fileobj=source, mode="r|", bufsize=_BLOCK) as tar:
                for entry in tar:
                    content = tar.extractfile(entry) if entry.isreg() else None
                    if content is not None:
                        self._take(entry, cast("io.BufferedReader", content))
                    if self.complete:
                        return
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ConnectionError, TimeoutError) as error:
            raise EngineError(
                f"the export of {image!r} broke off: {error}", hint="Look at the daemon's log, and try again."
            ) from error
        lacking = [name for diff_id, name in self._wanted.items() if diff_id not in self.found]
        raise EngineError(
            f"the daemon's export of {image!r} lacks {', '.join(lacking) or 'its configuration'}",
            hint="Pull or load the image again.",
        )

    def _take(self, entry: tarfile.TarInfo, content: io.BufferedReader) -> None:
        head = content.peek(4)[:4]
        packed = head.startswith(_GZIP) or head == _ZSTD
        if entry.size <= _LARGEST_DOCUMENT and not packed:
            data = content.read()
            document = _json(data)
            if document is None:
                self._keep(io.BytesIO(data))
            elif self._config_of and _diff_ids(document) == list(self._config_of):
                self.config = data
        elif packed or not self._is_another(entry.name):
            self._keep(_unpacked(content, head))

    def _is_another(self, name: str) -> bool:
        """Whether a plain file cannot be wanted: an OCI layout names each blob by its digest."""
        folder, _, value = name.rpartition("/")
        return folder == "blobs/sha256" and f"sha256:{value}" not in self._wanted

    def _keep(self, content: IO[bytes]) -> None:
        """Write a layer's tar to the store if it is wanted; which it is, its hash tells at the end."""
        total, size = hashlib.sha256(), 0
        with self._cache.new_file() as temporary:
            with temporary.open("wb") as file:
                while block := content.read(_BLOCK):
                    total.update(block)
                    size += len(block)
                    file.write(block)
                    self._task.advance(len(block))
            diff_id = "sha256:" + total.hexdigest()
            if diff_id in self._wanted and diff_id not in self.found:
                written = Written(digest=diff_id, size=size, entries=0)
                layer = LayerStore(self._cache).put(_hex(diff_id), self._wanted[diff_id], written, temporary)
                self.found[diff_id] = layer.path


def _unpacked(content: io.BufferedReader, head: bytes) -> IO[bytes]:
    """Return a blob's tar, whatever it is packed with."""
    if head.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=content, mode="rb"))
    if head == _ZSTD:
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True, closefd=False)
        return cast("IO[bytes]", reader)
    return content


def _json(data: bytes) -> Any:
    """Return a JSON object or list, or None."""
    if data[:1] not in (b"{", b"["):
        return None
    try:
        return json.loads(data)
    except ValueError:
        return None


def _diff_ids(document: object) -> object:
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    return rootfs.get("diff_ids") if isinstance(rootfs, dict) else None


def _hex(diff_id: str) -> str:
    return diff_id.removeprefix("sha256:")
