"""The store of layers: which key gave which tar, and the tars themselves by their digest.

``<cache>/layers/<key>.json`` says what a key gave; ``<cache>/blobs/sha256/<hex>`` is the tar. A layer exists when both
are there and agree; everything else counts as "not there" and costs the time to make it again, never a wrong image.
The time of the index file is the time of the layer's last use, for ``cache prune``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himl_container.cache import Cache
from himl_container.image.model import Layer
from himl_container.image.tar import Written

_FOLDER = "layers"


@dataclass(frozen=True)
class StoredLayer:
    """One line of the store's listing. ``last_used`` is in seconds since 1970."""

    name: str
    key: str
    digest: str
    size: int
    last_used: float


class LayerStore:
    """The layers of one cache folder. Safe for several processes: files appear by rename, whole."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def get(self, key: str, name: str = "") -> Layer | None:
        """Return the layer of a key, or None where it is missing or damaged.

        The blob's size and time are compared with those of its making; where the time differs (a copied cache), the
        content is hashed once.

        :param name: what the layer is called now; empty for the name under which it was made.
        """
        record = self._read(key)
        if record is None:
            return None
        path = self.cache.blob(record["digest"])
        try:
            found = path.stat()
        except OSError:
            return None
        if found.st_size != record["size"]:
            return None
        if found.st_mtime_ns != record["mtime_ns"]:
            if digest_of(path) != record["digest"]:
                return None
            self._write(key, {**record, "mtime_ns": found.st_mtime_ns})
        with contextlib.suppress(OSError):
            os.utime(self.cache.root / _FOLDER / f"{key}.json")
        return Layer(name or record["name"], key, record["digest"], record["size"], record["entries"], path)

    def put(self, key: str, name: str, written: Written, temporary: Path) -> Layer:
        """Take a finished tar into the store: rename it to its place, then say what the key gave.

        :param temporary: the tar, on the cache's file system; it is gone afterwards.
        :raises StorageError: the cache cannot be written.
        """
        target = self.cache.blob(written.digest)
        self.cache.folder(*target.parent.relative_to(self.cache.root).parts)
        os.replace(temporary, target)
        record = {
            "name": name,
            "digest": written.digest,
            "size": written.size,
            "entries": written.entries,
            "mtime_ns": target.stat().st_mtime_ns,
        }
        self._write(key, record)
        return Layer(name, key, written.digest, written.size, written.entries, target)

    def __iter__(self) -> Iterator[StoredLayer]:
        """Yield what the index names, whether or not its blob is sound."""
        folder = self.cache.root / _FOLDER
        for path in sorted(folder.glob("*.json")):
            record = self._read(path.stem)
            if record is not None:
                with contextlib.suppress(OSError):
                    used = path.stat().st_mtime
                    yield StoredLayer(record["name"], path.stem, record["digest"], record["size"], used)

    def verify(self) -> tuple[StoredLayer, ...]:
        """Hash every blob; forget and return the layers that are damaged or missing."""
        damaged = []
        sound: dict[str, bool] = {}
        for layer in self:
            path = self.cache.blob(layer.digest)
            if layer.digest not in sound:
                sound[layer.digest] = path.is_file() and digest_of(path) == layer.digest
            if not sound[layer.digest]:
                damaged.append(layer)
                (self.cache.root / _FOLDER / f"{layer.key}.json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        return tuple(damaged)

    def _read(self, key: str) -> dict[str, Any] | None:
        record = self.cache.read_json(_FOLDER, f"{key}.json")
        kinds = {"name": str, "digest": str, "size": int, "entries": int, "mtime_ns": int}
        if not isinstance(record, dict) or any(not isinstance(record.get(k), t) for k, t in kinds.items()):
            return None
        algorithm, _, value = record["digest"].partition(":")
        sound = algorithm == "sha256" and len(value) == 64 and not set(value) - set("0123456789abcdef")
        return record if sound else None

    def _write(self, key: str, record: dict[str, Any]) -> None:
        self.cache.write_json(record, _FOLDER, f"{key}.json")


def digest_of(path: Path) -> str:
    """Return the digest (``sha256:<hex>``) of a file; of one that cannot be read, a value that no file has."""
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    except OSError:
        return "unreadable"
    return "sha256:" + total.hexdigest()
