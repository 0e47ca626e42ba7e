"""The compressed form of layers: made once, kept in the cache, on all cores.

``<cache>/compressed/<gzip|zstd>/<hex of the diff id>.json`` says what a layer gave, and
``<cache>/compressed/sha256/<hex>`` is that blob, named by its own digest, so that it is never replaced by other bytes
while somebody sends it. Both must be there and agree; everything else counts as "not there" and costs the time to
compress again. The time of the record is that of the last use, for ``cache prune``.

The same tar gives the same blob with the same version of the compressor on the same kind of processor. isal chooses its
code by the processor, so another machine may get other bytes of the same content: see "Digests of layers" in
``docs/architecture.md``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from himl_container.cache import Cache
from himl_container.errors import BuildError, InputError
from himl_container.image.store import digest_of
from himl_container.publish.gzip_blocks import BLOCK, gzip_blocks
from himl_container.registry.model import OCI_TAR_GZIP, OCI_TAR_ZSTD, Descriptor

MEDIA_TYPES = {"gzip": OCI_TAR_GZIP, "zstd": OCI_TAR_ZSTD}
"""The compressions that a layer may have, and the media type of a layer in each."""

FOLDER = "compressed"
"""Where the cache keeps compressed layers."""

_ZSTD_LEVEL = 3
_LARGE = 64 << 20  # bytes from which one layer's zstd frame is worth several threads
_MOST_AHEAD = 16

Read = Callable[[int], None]
"""Told how many more bytes of a layer have been compressed."""


@dataclass(frozen=True)
class Compressed:
    """The compressed form of a layer, as a file.

    :param diff_id: sha256 of the uncompressed tar.
    :param descriptor: of the compressed blob.
    """

    diff_id: str
    descriptor: Descriptor
    path: Path


class CompressedStore:
    """The compressed layers of one cache folder. Safe for several threads and processes.

    Use it as a context where layers are made, so that its threads end with it.

    :param compression: ``gzip`` (every engine can unpack it) or ``zstd`` (smaller; Engine 23 and containerd 1.5).
    :param threads: how many compress at a time; the machine's cores when None.
    """

    def __init__(self, cache: Cache, compression: str = "gzip", *, threads: int | None = None) -> None:
        if compression not in MEDIA_TYPES:
            raise InputError(
                f"{compression!r} is not a compression of layers", hint=f"Known: {', '.join(sorted(MEDIA_TYPES))}."
            )
        self.cache = cache
        self.compression = compression
        self.threads = threads or len(os.sched_getaffinity(0))
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> CompressedStore:
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="compress")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def get(self, diff_id: str) -> Compressed | None:
        """Return the compressed form of a layer, or None where it is missing or damaged.

        The blob's size and time are compared with those of its making; where the time differs (a copied cache), the
        content is hashed once.
        """
        record = self._read(diff_id)
        if record is None:
            return None
        path = self._blob(record["digest"])
        try:
            found = path.stat()
        except OSError:
            return None
        if found.st_size != record["size"]:
            return None
        if found.st_mtime_ns != record["mtime_ns"]:
            if digest_of(path) != record["digest"]:
                return None
            self._write(diff_id, {**record, "mtime_ns": found.st_mtime_ns})
        with contextlib.suppress(OSError):
            os.utime(self.cache.root.joinpath(*self._record(diff_id)))
        return Compressed(diff_id, self._descriptor(record["digest"], record["size"]), path)

    def make(self, diff_id: str, path: Path, *, name: str = "", read: Read | None = None) -> Compressed:
        """Return the compressed form of a layer, made where it is missing; whole or not at all.

        :param path: the uncompressed tar. It is hashed on the way: what is not the layer is never sent.
        :param name: what ``cache ls`` calls it.
        :param read: told of progress; what it raises ends the work and leaves nothing behind.
        :raises BuildError: the tar is gone, or is not the one of the diff id.
        :raises StorageError: the cache cannot be written.
        """
        # Two processes that push the same layer: the second one waits, which costs less than to do it twice. Locks are
        # shared by many layers, because their files are never removed.
        with self.cache.lock(f"compress-{_hex(diff_id)[:3]}"):
            return self.get(diff_id) or self._make(diff_id, path, name, read)

    def _make(self, diff_id: str, path: Path, name: str, read: Read | None) -> Compressed:
        total, size = hashlib.sha256(), 0
        with self.cache.new_file() as temporary:
            with temporary.open("wb") as file:
                for piece in self._compressed(_blocks(diff_id, path, read), path):
                    total.update(piece)
                    size += len(piece)
                    file.write(piece)
            digest = "sha256:" + total.hexdigest()
            self.cache.folder(FOLDER, "sha256")
            target = self._blob(digest)
            os.replace(temporary, target)
        record = {"name": name, "digest": digest, "size": size, "mtime_ns": target.stat().st_mtime_ns}
        self._write(diff_id, record)
        return Compressed(diff_id, self._descriptor(digest, size), target)

    def _compressed(self, blocks: Iterator[bytes], path: Path) -> Iterable[bytes]:
        if self.compression == "zstd":
            return _zstd(blocks, self.threads if path.stat().st_size >= _LARGE else 1)
        if self._pool is not None:
            return gzip_blocks(blocks, self._pool, ahead=min(self.threads + 2, _MOST_AHEAD))
        return self._with_own_pool(blocks)

    def _with_own_pool(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        with ThreadPoolExecutor(self.threads) as pool:
            yield from gzip_blocks(blocks, pool, ahead=min(self.threads + 2, _MOST_AHEAD))

    def _descriptor(self, digest: str, size: int) -> Descriptor:
        return Descriptor(MEDIA_TYPES[self.compression], digest, size)

    def _blob(self, digest: str) -> Path:
        return self.cache.root / FOLDER / "sha256" / digest.removeprefix("sha256:")

    def _record(self, diff_id: str) -> tuple[str, str, str]:
        return (FOLDER, self.compression, f"{_hex(diff_id)}.json")

    def _read(self, diff_id: str) -> dict[str, Any] | None:
        record = self.cache.read_json(*self._record(diff_id))
        kinds = {"digest": str, "size": int, "mtime_ns": int}
        if not isinstance(record, dict) or any(not isinstance(record.get(k), t) for k, t in kinds.items()):
            return None
        try:
            _hex(record["digest"])
        except ValueError:
            return None
        return record

    def _write(self, diff_id: str, record: dict[str, Any]) -> None:
        self.cache.write_json(record, *self._record(diff_id))


def _blocks(diff_id: str, path: Path, read: Read | None) -> Iterator[bytes]:
    """Yield a layer in blocks of one size; the last is shorter. Raises at the end when it is not the layer."""
    total = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while block := _filled(file.read):
                total.update(block)
                yield block
                if read is not None:
                    read(len(block))
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    if "sha256:" + total.hexdigest() != diff_id:
        raise _damaged(path, "its content is not that of its digest")


def _filled(read: Callable[[int], bytes | None]) -> bytes:
    """Read a whole block: where blocks end decides the compressed bytes, so short reads must not show."""
    block = read(BLOCK) or b""
    if len(block) in (0, BLOCK):
        return block
    parts, size = [block], len(block)
    while size < BLOCK and (more := read(BLOCK - size)):
        parts.append(more)
        size += len(more)
    return b"".join(parts)


def _zstd(blocks: Iterator[bytes], threads: int) -> Iterator[bytes]:
    """Yield a zstd frame. With at least one worker thread the bytes do not depend on how many there are."""
    import zstandard

    engine = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=threads, write_checksum=True).compressobj()
    for block in blocks:
        yield engine.compress(block)
    yield engine.flush()


def _hex(digest: str) -> str:
    """Return the hex part of a digest; it becomes part of a path, so it is looked at."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"{digest!r} is not a sha256 digest")
    return value


def _damaged(path: Path, why: str) -> BuildError:
    return BuildError(
        f"a layer cannot be read: {why}",
        where=str(path),
        hint="Something changed the cache. Remove the file, if it is still there, and run the command again.",
    )
