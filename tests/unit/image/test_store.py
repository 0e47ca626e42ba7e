from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from himl_container.cache import Cache
from himl_container.image.model import Layer
from himl_container.image.store import LayerStore
from himl_container.image.tar import Entry, write_tar

KEY = "k" * 64


def put(cache: Cache, key: str = KEY, data: bytes = b"content") -> Layer:
    with cache.new_file() as temporary:
        with temporary.open("wb") as file:
            written = write_tar([Entry("a", data=data)], file)
        return LayerStore(cache).put(key, "conda:a", written, temporary)


def test_a_layer_is_found_by_its_key_and_lies_under_its_digest(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    layer = put(cache)

    assert LayerStore(cache).get(KEY) == layer
    assert layer.path == cache.blob(layer.digest)
    assert layer.path.stat().st_size == layer.size
    assert LayerStore(cache).get("other") is None
    assert not list((tmp_path / "tmp").iterdir())


def test_a_layer_is_called_as_the_plan_calls_it_now(tmp_path: Path) -> None:
    put(Cache(tmp_path))

    found = LayerStore(Cache(tmp_path)).get(KEY, "pip:a")

    assert found is not None
    assert found.name == "pip:a"


def test_a_blob_that_is_cut_short_gone_or_another_is_no_layer(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    layer = put(cache)
    whole = layer.path.read_bytes()

    layer.path.write_bytes(whole[:-1])
    assert LayerStore(cache).get(KEY) is None

    layer.path.write_bytes(whole[:600] + b"X" + whole[601:])
    os.utime(layer.path, (1, 1))  # the clock of files may not have moved since the layer was made
    assert LayerStore(cache).get(KEY) is None, "same size, other content"

    layer.path.unlink()
    assert LayerStore(cache).get(KEY) is None

    put(cache)
    assert LayerStore(cache).get(KEY) is not None


def test_a_copied_cache_is_good(tmp_path: Path) -> None:
    layer = put(Cache(tmp_path))
    os.utime(layer.path, (1, 1))

    assert LayerStore(Cache(tmp_path)).get(KEY) == layer


def test_an_index_file_that_is_damaged_or_hostile_is_no_layer(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    put(cache)
    index = tmp_path / "layers" / f"{KEY}.json"
    good = index.read_text()
    for text in ("", "[]", "{", "{}", good.replace("sha256:", "../../x:"), good.replace('"sha256:', '"sha256:../../')):
        index.write_text(text)
        assert LayerStore(cache).get(KEY) is None, text


def test_two_keys_may_give_one_blob(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    one, two = put(cache, "one"), put(cache, "two")

    assert one.digest == two.digest
    assert LayerStore(cache).get("one") is not None
    assert LayerStore(cache).get("two") is not None


def test_verify_forgets_what_is_damaged_and_keeps_the_rest(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    good, bad = put(cache, "good", b"1"), put(cache, "bad", b"2")
    status = bad.path.stat()
    bad.path.write_bytes(b"\0" * status.st_size)
    os.utime(bad.path, ns=(status.st_atime_ns, status.st_mtime_ns))  # a bit that flipped on the disk leaves no trace
    store = LayerStore(cache)

    assert [layer.key for layer in store.verify()] == ["bad"]
    assert store.get("good") == good
    assert store.get("bad") is None
    assert [layer.key for layer in store] == ["good"]


def test_ctrl_c_while_work_in_progress_is_removed_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, remove, times = Cache(tmp_path), shutil.rmtree, []

    def interrupted_once(*words: object, **more: object) -> None:
        times.append(1)
        if len(times) == 1:
            raise KeyboardInterrupt
        remove(*words, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(shutil, "rmtree", interrupted_once)
    with pytest.raises(KeyboardInterrupt), cache.new_folder() as folder:
        (folder / "file").touch()
    assert list((tmp_path / "tmp").iterdir()) == []
