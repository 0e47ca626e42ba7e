"""What a registry says of layers: enough to plan with, and nothing that stays on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_registry import lone_repository

from himl_container.cache import Cache
from himl_container.image.activation import find_files
from himl_container.image.model import Layer, LayerPlan
from himl_container.image.store import LayerStore
from himl_container.progress import SilentReporter
from himl_container.publish.index_document import DamagedError, IndexEntry, pack
from himl_container.publish.layer_facts import KnowingCache, LayerFacts, read_facts, write_facts
from himl_container.publish.layer_index import LayerIndex
from himl_container.publish.source import RegistrySource
from himl_container.registry.model import OCI_TAR_GZIP, Descriptor, sha256_of
from himl_container.settings import Settings

KEY = "a" * 64
DIFF_ID = f"sha256:{'b' * 64}"
SCRIPT = "opt/himl/etc/conda/activate.d/gdal.sh"


def test_facts_come_back_as_they_were() -> None:
    facts = LayerFacts({KEY: {"lib/größe.so": "-> x", "bin/a": "0" * 32}}, {SCRIPT: "export A=\xff\n"})
    assert read_facts(write_facts(facts)) == facts


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"format": 2, "paths": {}, "activation": {}},
        {"format": 1, "paths": [], "activation": {}},
        {"format": 1, "paths": {"../../x": {}}, "activation": {}},
        {"format": 1, "paths": {KEY: {"a": 1}}, "activation": {}},
        {"format": 1, "paths": {KEY: {"a" * 5000: "x"}}, "activation": {}},
        {"format": 1, "paths": {KEY: {}}, "activation": {SCRIPT: 1}},
        {"format": 1, "paths": {KEY: {}}, "activation": {SCRIPT: "\u2028"}},
        {"format": 1, "paths": {KEY: {}}},
    ],
)
def test_what_is_not_facts_is_refused(value: object) -> None:
    with pytest.raises(DamagedError):
        read_facts(pack(value))


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_without_another_error(data: bytes) -> None:
    with pytest.raises(DamagedError):
        read_facts(data)


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_nothing_that_a_registry_said_is_written_into_the_cache(tmp_path: Path) -> None:
    cache = KnowingCache(Cache(tmp_path))
    blob = cache.blob(DIFF_ID)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"x")
    record = {"name": "n", "digest": DIFF_ID, "size": 1, "entries": 1, "mtime_ns": blob.stat().st_mtime_ns}
    cache.learn_layer(KEY, record)
    facts = LayerFacts({KEY: {"bin/a": "0"}}, {SCRIPT: "export A=1"})
    cache.learn_paths(facts, [KEY])
    cache.learn_files(facts, DIFF_ID)
    cache.learn_activation(KEY, {"A": "1"})
    layer = LayerStore(cache).get(KEY)
    assert layer is not None
    assert layer.digest == DIFF_ID
    assert [path for path, _ in find_files([layer], cache=cache).scripts] == [f"/{SCRIPT}"]
    assert cache.has("memo", "paths", f"{KEY}.json")
    assert files_of(tmp_path) == [blob]
    assert LayerStore(Cache(tmp_path)).get(KEY) is None


def test_time_of_a_blob_that_changed_does_not_make_a_stranger_s_word_ours(tmp_path: Path) -> None:
    content = b"a layer"
    digest = sha256_of(content)
    cache = KnowingCache(Cache(tmp_path))
    blob = cache.blob(digest)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(content)
    cache.learn_layer(KEY, {"name": "n", "digest": digest, "size": len(content), "entries": 1, "mtime_ns": 1})
    os.utime(blob)
    assert LayerStore(cache).get(KEY) is not None  # hashed, and the new time noted
    assert files_of(tmp_path) == [blob]


def test_facts_learn_only_of_packages_that_are_meant_to_be_in_the_layer(tmp_path: Path) -> None:
    cache = KnowingCache(Cache(tmp_path))
    other = "c" * 64
    cache.learn_paths(LayerFacts({KEY: {"bin/a": "0"}, other: {"bin/b": "0"}}), [KEY])
    assert cache.has("memo", "paths", f"{KEY}.json")
    assert not cache.has("memo", "paths", f"{other}.json")


def test_own_knowledge_comes_before_that_of_a_registry(tmp_path: Path) -> None:
    own = Cache(tmp_path)
    own.write_json({"bin/a": "own"}, "memo", "paths", f"{KEY}.json")
    cache = KnowingCache(own)
    cache.learn_paths(LayerFacts({KEY: {"bin/a": "theirs"}}), [KEY])
    assert cache.read_json("memo", "paths", f"{KEY}.json") == {"bin/a": "own"}


class World:
    """A registry with one layer and its facts, and a machine that has neither."""

    def __init__(self, folder: Path) -> None:
        self.repository = lone_repository()
        self.blob = Descriptor(OCI_TAR_GZIP, self.repository.upload_bytes(b"compressed"), 10)
        data = write_facts(LayerFacts({}, {SCRIPT: "export A=1"}))
        self.facts = Descriptor("application/x", self.repository.upload_bytes(data), len(data))
        self.entry = IndexEntry(DIFF_ID, 100, 1, 20_000, {"gzip": self.blob}, self.facts)
        self.settings = Settings(folder, (), folder / "lock", folder / "cache", registry="registry.example")

    def store(self, entry: IndexEntry) -> None:
        index = LayerIndex.fetch(self.repository, reporter=SilentReporter()).merged({KEY: entry})
        index.store(self.repository, reporter=SilentReporter())

    def reusable(self, compression: str = "gzip") -> dict[str, Layer]:
        source = RegistrySource(self.settings, self.repository, reporter=SilentReporter())
        cache = KnowingCache(Cache(self.settings.cache_dir))
        return source.reusable([LayerPlan("conda:x", KEY)], cache, compression)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_layer_stays_in_the_registry_when_all_is_known_of_it(world: World) -> None:
    world.store(world.entry)
    layer = world.reusable()[KEY]
    assert (layer.name, layer.digest, layer.size, layer.path.exists()) == ("conda:x", DIFF_ID, 100, False)


def test_layer_in_another_compression_is_not_taken_as_it_is(world: World) -> None:
    world.store(world.entry)
    assert world.reusable("zstd") == {}


def test_layer_that_the_registry_no_longer_has_is_made(world: World) -> None:
    world.store(world.entry)
    del world.repository.blobs[world.blob.digest]
    assert world.reusable() == {}


@pytest.mark.parametrize("damage", ["lost", "other content", "not ours"])
def test_layer_of_which_too_little_is_known_is_made(world: World, damage: str) -> None:
    entry = world.entry
    if damage == "lost":
        del world.repository.blobs[world.facts.digest]
    elif damage == "other content":
        world.repository.blobs[world.facts.digest] = b"x"
    else:
        text = json.dumps({}).encode()
        entry = IndexEntry(DIFF_ID, 100, 1, 20_000, {"gzip": world.blob}, Descriptor("a/b", sha256_of(text), len(text)))
        world.repository.upload_bytes(text)
    world.store(entry)
    assert world.reusable() == {}


def test_nothing_is_known_without_facts(world: World) -> None:
    world.store(IndexEntry(DIFF_ID, 100, 1, 20_000, {"gzip": world.blob}))
    assert world.reusable() == {}
