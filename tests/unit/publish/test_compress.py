"""The compressed form of layers: its bytes, where it is kept, and what becomes of it when something goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from himl_container.cache import Cache
from himl_container.errors import BuildError, InputError
from himl_container.image.prune import list_cache, prune
from himl_container.publish.compress import CompressedStore
from himl_container.publish.gzip_blocks import BLOCK, gzip_blocks
from himl_container.registry.model import OCI_TAR_GZIP, OCI_TAR_ZSTD


def layer(folder: Path, content: bytes, name: str = "layer.tar") -> tuple[str, Path]:
    path = folder / name
    path.write_bytes(content)
    return "sha256:" + hashlib.sha256(content).hexdigest(), path


def some_bytes(size: int) -> bytes:
    """Bytes that compress about as well as programs do, the same each time."""
    words = [random.Random(7).randbytes(12) for _ in range(50)]
    chosen = random.Random(size)
    return b"".join(chosen.choices(words, k=size // 12 + 1))[:size]


def unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return gzip.decompress(data)


@pytest.mark.parametrize(("compression", "media_type"), [("gzip", OCI_TAR_GZIP), ("zstd", OCI_TAR_ZSTD)])
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 4711])
def test_compressed_form_holds_the_layer_and_is_described_exactly(
    tmp_path: Path, compression: str, media_type: str, size: int
) -> None:
    content = some_bytes(size)
    diff_id, path = layer(tmp_path, content)
    read: list[int] = []
    made = CompressedStore(Cache(tmp_path / "cache"), compression).make(diff_id, path, read=read.append)
    assert unpacked(made.path) == content
    blob = made.path.read_bytes()
    assert made.descriptor.digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert (made.descriptor.size, made.descriptor.media_type) == (len(blob), media_type)
    assert (made.diff_id, sum(read)) == (diff_id, size)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_equal_input_gives_equal_bytes_whatever_the_time_the_name_and_the_number_of_threads(
    tmp_path: Path, compression: str
) -> None:
    content = some_bytes(9 * BLOCK + 1)
    diff_id, first = layer(tmp_path, content, "one.tar")
    _, second = layer(tmp_path, content, "another name.tar")
    os.utime(second, (1, 1))
    digests = set()
    for number, (path, threads) in enumerate([(first, 1), (second, 1), (first, 3), (second, 8)]):
        with CompressedStore(Cache(tmp_path / f"cache-{number}"), compression, threads=threads) as store:
            digests.add(store.make(diff_id, path).descriptor.digest)
    assert len(digests) == 1


@pytest.mark.parametrize("extra", [0, 1])
def test_threads_of_a_zstd_frame_do_not_decide_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    # From _LARGE on the frame gets several threads; below, one. The border must not show in the bytes.
    from himl_container.publish import compress

    content = some_bytes(20 * BLOCK)
    diff_id, path = layer(tmp_path, content)
    found = []
    for limit in (len(content) + 1, len(content) - extra):
        monkeypatch.setattr(compress, "_LARGE", limit)
        store = CompressedStore(Cache(tmp_path / f"cache-{limit}"), "zstd", threads=4)
        found.append(store.make(diff_id, path).descriptor)
    assert found[0] == found[1]


def test_gzip_header_names_no_file_and_no_time(tmp_path: Path) -> None:
    diff_id, path = layer(tmp_path, b"content")
    head = CompressedStore(Cache(tmp_path / "cache")).make(diff_id, path).path.read_bytes()[:10]
    assert head == b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=8), st.integers(1, 5))
def test_any_cut_of_any_content_is_one_gzip_member(pieces: list[bytes], ahead: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        packed = b"".join(gzip_blocks(pieces, pool, ahead=ahead))
    engine = zlib.decompressobj(wbits=31)
    assert engine.decompress(packed) == b"".join(pieces)
    assert engine.eof
    assert engine.unused_data == b""


def test_made_once_and_found_by_a_later_process(tmp_path: Path) -> None:
    diff_id, path = layer(tmp_path, some_bytes(3000))
    cache = Cache(tmp_path / "cache")
    assert CompressedStore(cache).get(diff_id) is None
    made = CompressedStore(cache).make(diff_id, path)
    path.unlink()
    assert CompressedStore(cache).get(diff_id) == made
    assert CompressedStore(cache).make(diff_id, path) == made
    assert CompressedStore(cache, "zstd").get(diff_id) is None


def test_damaged_missing_or_foreign_entries_are_not_there(tmp_path: Path) -> None:
    content = some_bytes(3000)
    diff_id, path = layer(tmp_path, content)
    cache = Cache(tmp_path / "cache")
    store = CompressedStore(cache)
    made = store.make(diff_id, path)
    record = cache.root / "compressed" / "gzip" / f"{diff_id[7:]}.json"

    made.path.write_bytes(made.path.read_bytes()[:-1])  # cut short
    assert store.get(diff_id) is None
    made = store.make(diff_id, path)
    damaged = bytearray(made.path.read_bytes())
    damaged[50] ^= 1
    made.path.write_bytes(damaged)  # same size, another time, another content
    os.utime(made.path, (2, 2))  # the clock of files may not have moved since
    assert store.get(diff_id) is None
    made = store.make(diff_id, path)
    os.utime(made.path, (1, 1))  # a copied cache: hashed once, then known again
    assert store.get(diff_id) == made
    assert json.loads(record.read_bytes())["mtime_ns"] == 10**9
    for hostile in ("../../../etc/passwd", "sha256:" + "Z" * 64, 7):
        record.write_text(json.dumps({"digest": hostile, "size": 5, "mtime_ns": 5}))
        assert store.get(diff_id) is None
    made.path.unlink()
    assert store.get(diff_id) is None


def test_a_tar_that_is_not_the_layer_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    diff_id, path = layer(tmp_path, some_bytes(3000))
    path.write_bytes(b"something else")
    cache = Cache(tmp_path / "cache")
    with pytest.raises(BuildError, match="not that of its digest"):
        CompressedStore(cache).make(diff_id, path)
    path.unlink()
    with pytest.raises(BuildError, match="No such file"):
        CompressedStore(cache).make(diff_id, path)
    assert not [found for found in cache.root.rglob("*") if found.is_file() and found.parent.name != "locks"]


def test_a_stop_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    diff_id, path = layer(tmp_path, some_bytes(4 * BLOCK))
    cache = Cache(tmp_path / "cache")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), CompressedStore(cache) as store:
        store.make(diff_id, path, read=stop)
    assert not [found for found in cache.root.rglob("*") if found.is_file() and found.parent.name != "locks"]
    assert CompressedStore(cache).make(diff_id, path).diff_id == diff_id


def _make(root: str, diff_id: str, path: str, barrier: object, results: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    results.put(CompressedStore(Cache(Path(root))).make(diff_id, Path(path)).descriptor.digest)  # type: ignore[attr-defined]


def test_several_processes_that_make_the_same_layer_agree(tmp_path: Path) -> None:
    diff_id, path = layer(tmp_path, some_bytes(3 * BLOCK))
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    arguments = (str(tmp_path / "cache"), diff_id, str(path), barrier, results)
    processes = [context.Process(target=_make, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    digests = {results.get(timeout=300) for _ in processes}
    for process in processes:
        process.join()
    assert len(digests) == 1
    blobs = list((tmp_path / "cache" / "compressed" / "sha256").iterdir())
    assert ["sha256:" + hashlib.sha256(blob.read_bytes()).hexdigest() for blob in blobs] == list(digests)


def test_memory_does_not_grow_with_the_layer(tmp_path: Path) -> None:
    path = tmp_path / "large.tar"
    piece, total = os.urandom(BLOCK), hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(80):
            file.write(piece)
            total.update(piece)
    with CompressedStore(Cache(tmp_path / "cache"), threads=2) as store:
        tracemalloc.start()
        try:
            store.make("sha256:" + total.hexdigest(), path)
            assert tracemalloc.get_traced_memory()[1] < 20 << 20
        finally:
            tracemalloc.stop()


def test_unknown_compression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="brotli"):
        CompressedStore(Cache(tmp_path), "brotli")


def test_cache_listing_and_pruning_know_compressed_layers(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    store = CompressedStore(cache)
    old = layer(tmp_path, some_bytes(300_000), "old.tar")
    new = layer(tmp_path, some_bytes(200_000), "new.tar")
    store.make(*old, name="conda:old")
    made = store.make(*new, name="conda:new")
    record = cache.root / "compressed" / "gzip" / f"{old[0][7:]}.json"
    long_ago = time.time() - 100_000
    os.utime(record, (long_ago, long_ago))
    (cache.root / "compressed" / "sha256" / ("0" * 64)).write_bytes(b"left by a kill")
    os.utime(cache.root / "compressed" / "sha256" / ("0" * 64), (long_ago, long_ago))
    listed = {item.name: item.size for item in list_cache(cache) if item.kind == "compressed"}
    assert set(listed) == {"conda:old", "conda:new", "unnamed " + "0" * 12}
    assert listed["conda:new"] >= made.descriptor.size
    removed = {item.name for item in prune(cache, keep=0).removed}
    assert removed == {"conda:old", "unnamed " + "0" * 12}
    assert store.get(old[0]) is None
    assert store.get(new[0]) == made
    assert not record.exists()


def test_a_layer_is_read_in_whole_blocks_however_short_reads_are() -> None:
    from himl_container.publish.compress import _filled

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 1000))

    source = Slow(some_bytes(BLOCK + 5))
    assert [len(_filled(source.read)) for _ in range(3)] == [BLOCK, 5, 0]
