"""Pruning: least recently used first, never what is in use, whole or not at all."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from himl_container.cache import Cache
from himl_container.image import prune as pruning
from himl_container.image.model import Layer
from himl_container.image.prune import list_cache, prune
from himl_container.image.store import LayerStore
from image import plans

NOW = time.time()
DAY = 86_400.0


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def used(cache: Cache, layer: Layer, when: float) -> None:
    os.utime(cache.root / "layers" / f"{layer.key}.json", (when, when))


def layers(cache: Cache, ages: dict[str, float]) -> dict[str, Layer]:
    """Store a layer of about 100 kB for each name, last used so many seconds ago."""
    found = {name: plans.stored_layer(cache, name, {f"/{name}": os.urandom(100_000)}) for name in ages}
    for name, layer in found.items():
        used(cache, layer, NOW - ages[name])
    return found


def names(cache: Cache) -> set[str]:
    return {item.name for item in list_cache(cache) if item.kind == "layers"}


def test_the_oldest_go_first_until_the_rest_fits(cache: Cache) -> None:
    stored = layers(cache, {"new": DAY, "old": 9 * DAY, "middle": 3 * DAY})
    one = stored["new"].size
    done = prune(cache, keep=int(2.2 * one), now=NOW)
    assert [item.name for item in done.removed] == ["old"]
    assert names(cache) == {"new", "middle"}
    assert LayerStore(cache).get(stored["old"].key) is None
    assert not stored["old"].path.exists()
    kept = LayerStore(cache).get(stored["new"].key)
    assert kept is not None and kept.path.is_file()
    assert list((cache.root / "tmp").iterdir()) == []


def test_dry_run_takes_nothing_away(cache: Cache) -> None:
    layers(cache, {"a": DAY, "b": DAY})
    done = prune(cache, keep=0, now=NOW, dry_run=True)
    assert {item.name for item in done.removed} == {"a", "b"} == names(cache)


def test_what_was_used_a_short_while_ago_stays(cache: Cache) -> None:
    layers(cache, {"now": 5.0, "old": DAY})
    done = prune(cache, keep=0, now=NOW)
    assert [item.name for item in done.removed] == ["old"]
    assert done.in_use > 0


def test_while_a_build_runs_the_last_day_stays(cache: Cache) -> None:
    layers(cache, {"today": DAY / 2, "old": 2 * DAY})
    with open(cache.folder("locks") / "build-1", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = prune(cache, keep=0, now=NOW)
        assert [item.name for item in done.removed] == ["old"]
    assert [item.name for item in prune(cache, keep=0, now=NOW).removed] == ["today"]


def test_a_layer_that_is_used_in_between_is_put_back(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = layers(cache, {"a": DAY})
    listed = list_cache(cache)
    monkeypatch.setattr(pruning, "list_cache", lambda cache: listed)
    assert LayerStore(cache).get(stored["a"].key) is not None  # a build finds it now
    assert prune(cache, keep=0, now=NOW).removed == ()
    assert LayerStore(cache).get(stored["a"].key) is not None


def test_other_folders_count_by_their_last_use(cache: Cache) -> None:
    for kind, name in (("wheels", "aa"), ("interpreters", "bb"), ("bytecode", "cc/dd"), ("memo", "smoke/ee.json")):
        path = cache.folder(kind, *Path(name).parts[:-1]) / Path(name).name
        target = path if path.suffix else path / "file"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"x" * 10_000)
        for each in {target, path}:
            os.utime(each, (NOW - 2 * DAY, NOW - 2 * DAY))
    os.utime(cache.root / "wheels" / "aa" / "file", (NOW - 60, NOW - 60))
    done = prune(cache, keep=0, now=NOW)
    assert {item.kind for item in done.removed} == {"interpreters", "bytecode", "memo"}
    assert (cache.root / "wheels" / "aa" / "file").is_file()
    assert not (cache.root / "bytecode" / "cc" / "dd").exists()


def test_unfinished_work_goes_whatever_the_limit_is(cache: Cache) -> None:
    for name, age in (("dead", DAY), ("alive", 60.0)):
        folder = cache.folder("tmp", name)
        (folder / "part").write_bytes(b"x" * 5000)
        os.utime(folder, (NOW - age, NOW - age))
    done = prune(cache, keep=10**12, now=NOW)
    assert [item.name for item in done.removed] == ["dead"]
    assert (cache.root / "tmp" / "alive" / "part").is_file()


def test_a_blob_without_an_index_entry_can_go(cache: Cache) -> None:
    stored = layers(cache, {"a": DAY})["a"]
    (cache.root / "layers" / f"{stored.key}.json").unlink()
    os.utime(stored.path, (NOW - DAY, NOW - DAY))
    assert [item.name for item in prune(cache, keep=0, now=NOW).removed] == [f"unnamed {stored.digest[7:19]}"]


def test_two_keys_of_one_blob_go_together(cache: Cache) -> None:
    stored = layers(cache, {"a": DAY})["a"]
    index = cache.root / "layers"
    (index / ("f" * 64 + ".json")).write_bytes((index / f"{stored.key}.json").read_bytes())
    os.utime(index / ("f" * 64 + ".json"), (NOW - DAY, NOW - DAY))
    assert len(prune(cache, keep=0, now=NOW).removed) == 1
    assert list(index.iterdir()) == []


def test_an_empty_cache(cache: Cache) -> None:
    assert list_cache(cache) == ()
    assert prune(cache, keep=0, now=NOW).removed == ()
