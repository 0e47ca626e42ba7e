"""What the cache holds, and taking away what was not used for longest.

Safe while something is being built: what was used a short while ago stays, and as long as a build holds a lock, what
was used within a day stays. Everything here can be made again; taking it away costs time, never a wrong image.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from himl_container.cache import Cache
from himl_container.image.store import LayerStore

_GRACE = 600.0  # seconds; a build that is just beginning has looked at its layers but may hold no lock yet
_BUSY_GRACE = 86_400.0  # seconds; while a build holds a lock
_TMP_GRACE = 3600.0  # seconds; not all work in progress holds a lock
_DEPTHS = {"wheels": 1, "sdists": 1, "stubs": 1, "interpreters": 1, "bytecode": 2, "memo": 2}
"""Folders of the cache besides layers, and how deep their items lie."""


@dataclass(frozen=True)
class CacheItem:
    """One thing that can be taken away by itself.

    :param kind: ``layers``, ``compressed`` (layers as they travel), or the folder of the cache.
    :param name: what the reader sees: the layer's name, else the file's.
    :param size: bytes on disk.
    :param last_used: seconds since 1970.
    """

    kind: str
    name: str
    size: int
    last_used: float
    paths: tuple[Path, ...] = field(repr=False)


@dataclass(frozen=True)
class Pruned:
    """What pruning took away (or would), and what is left.

    :param in_use: bytes that were over the limit but had to stay, because they were used a short while ago.
    """

    removed: tuple[CacheItem, ...]
    freed: int
    kept: int
    in_use: int = 0


def list_cache(cache: Cache) -> tuple[CacheItem, ...]:
    """Return everything that the cache holds, what was used last first."""
    items = [*_layers(cache), *_compressed(cache), *_others(cache), *_unfinished(cache)]
    return tuple(sorted(items, key=lambda item: (-item.last_used, item.kind, item.name)))


def prune(cache: Cache, *, keep: int, dry_run: bool = False, now: float | None = None) -> Pruned:
    """Take away what was not used for longest until at most ``keep`` bytes are left.

    Unfinished work of processes that died goes first, whatever the limit is.

    :param keep: bytes.
    :param now: seconds since 1970; the present when None.
    """
    with cache.lock("prune"):
        return _prune(cache, keep, dry_run, time.time() if now is None else now)


def _prune(cache: Cache, keep: int, dry_run: bool, now: float) -> Pruned:
    grace = _BUSY_GRACE if _busy(cache) else _GRACE
    items = list_cache(cache)
    left = sum(item.size for item in items)
    removed, in_use = [], 0
    stale = [item for item in items if item.kind == "tmp" and item.last_used < now - max(grace, _TMP_GRACE)]
    candidates = [item for item in reversed(items) if item.kind != "tmp"]
    for item in [*stale, *candidates]:
        if item.kind != "tmp" and left <= keep:
            break
        if item.last_used >= now - grace:
            in_use += item.size
        elif dry_run or _remove(cache, item):
            removed.append(item)
            left -= item.size
    return Pruned(tuple(removed), sum(item.size for item in removed), left, min(in_use, max(0, left - keep)))


def _busy(cache: Cache) -> bool:
    """Whether any process holds a lock of the cache (the kernel drops those of processes that died)."""
    import fcntl

    for path in (cache.root / "locks").glob("*"):
        if path.name == "prune":
            continue
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def _layers(cache: Cache) -> Iterator[CacheItem]:
    """One item for each blob, with all index entries that name it; a blob without any was left by a kill."""
    by_digest: dict[str, list[tuple[str, Path, float]]] = {}
    for layer in LayerStore(cache):
        index = cache.root / "layers" / f"{layer.key}.json"
        by_digest.setdefault(layer.digest, []).append((layer.name, index, layer.last_used))
    for blob in (cache.root / "blobs" / "sha256").glob("*"):
        found = _status(blob)
        if found is None:
            continue
        known = by_digest.pop(f"sha256:{blob.name}", [])
        name = known[0][0] if known else f"unnamed {blob.name[:12]}"
        used = max([used for _, _, used in known], default=found.st_mtime)
        yield CacheItem("layers", name, _on_disk(found), used, (*(index for _, index, _ in known), blob))


def _compressed(cache: Cache) -> Iterator[CacheItem]:
    """One item for each compressed layer, with the records that name it; kept by ``publish.compress``."""
    records: dict[str, list[tuple[str, Path, float]]] = {}
    for path in (cache.root / "compressed").glob("*/*.json"):
        record = cache.read_json(*path.relative_to(cache.root).parts)
        found = _status(path)
        if isinstance(record, dict) and found is not None:
            name = str(record.get("name") or "")
            records.setdefault(str(record.get("digest")), []).append((name, path, found.st_mtime))
    for blob in (cache.root / "compressed" / "sha256").glob("*"):
        found = _status(blob)
        if found is not None:
            known = records.get(f"sha256:{blob.name}", [])
            name = next((name for name, _, _ in known if name), f"unnamed {blob.name[:12]}")
            used = max([used for _, _, used in known], default=found.st_mtime)
            paths = (*(path for _, path, _ in known), blob)
            yield CacheItem("compressed", name, _on_disk(found), used, paths)


def _others(cache: Cache) -> Iterator[CacheItem]:
    for kind, depth in _DEPTHS.items():
        for path in (cache.root / kind).glob("/".join("*" * depth)):
            size, used = _weigh(path)
            yield CacheItem(kind, path.name, size, used, (path,))


def _unfinished(cache: Cache) -> Iterator[CacheItem]:
    for path in (cache.root / "tmp").glob("*"):
        found = _status(path)
        if found is not None:
            yield CacheItem("tmp", path.name, _weigh(path)[0], found.st_mtime, (path,))


def _weigh(path: Path) -> tuple[int, float]:
    """Return the bytes on disk below a path, and when a file there was last read or written."""
    found = _status(path)
    if found is None:
        return 0, 0.0
    if not stat.S_ISDIR(found.st_mode):
        return _on_disk(found), max(found.st_atime, found.st_mtime)
    size, used = _on_disk(found), found.st_mtime
    for folder, folders, names in os.walk(path):
        for name in [*names, *folders]:
            inside = _status(Path(folder, name))
            if inside is not None:
                size += _on_disk(inside)
                # Listing a folder counts as reading it, and we do that ourselves.
                used = max(used, inside.st_mtime if stat.S_ISDIR(inside.st_mode) else inside.st_atime)
    return size, used


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None  # another process took it away meanwhile


def _on_disk(found: os.stat_result) -> int:
    """Return the blocks that a file takes; a hard link shares them, so it counts for its part."""
    share = found.st_nlink if stat.S_ISREG(found.st_mode) else 1
    return found.st_blocks * 512 // max(share, 1)


def _remove(cache: Cache, item: CacheItem) -> bool:
    """Move an item out of its place, so that nobody finds half of it, and delete it there.

    A layer that was used since it was listed is put back: its index file carries the time of its last use.
    """
    with cache.new_folder() as aside:
        moved: list[tuple[Path, Path]] = []
        for number, path in enumerate(item.paths):
            target = aside / str(number)
            with contextlib.suppress(FileNotFoundError):
                path.rename(target)
                moved.append((target, path))
            if item.kind in ("layers", "compressed") and _used_since(moved, item.last_used):
                _put_back(moved)
                return False
        for target, _ in moved:
            if target.is_dir() and not target.is_symlink():
                _make_writable(target)
                shutil.rmtree(target, ignore_errors=True)
    return True


def _used_since(moved: Iterable[tuple[Path, Path]], last_used: float) -> bool:
    return any(
        path.suffix == ".json" and (found := _status(target)) is not None and found.st_mtime > last_used
        for target, path in moved
    )


def _put_back(moved: Iterable[tuple[Path, Path]]) -> None:
    for target, path in moved:
        target.rename(path)


def _make_writable(folder: Path) -> None:
    for inside, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(inside).chmod(0o700)
