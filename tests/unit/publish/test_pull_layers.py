"""Layers into the store of blobs: every form, every damage, several at once."""

from __future__ import annotations

import contextlib
import gzip
import threading
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pull_fakes import PulledRepository, packed, plain, tar

from himl_container.cache import Cache
from himl_container.errors import RegistryError
from himl_container.publish import pull_layers
from himl_container.publish.pull_layers import fetch_layer, plausible_size
from himl_container.registry.model import Descriptor, sha256_of

LAYER = tar("opt/himl/lib/a.py", b"print(1)\n" * 1000)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def fetch(cache: Cache, form: bytes, diff_id: str = sha256_of(LAYER), **options: object) -> Path:
    repository = PulledRepository()
    repository.add_blob(form)
    return fetch_layer(repository, plain(form), diff_id, cache=cache, **options)  # type: ignore[arg-type]


def nothing_left(cache: Cache) -> bool:
    return not [path for path in cache.root.rglob("*") if path.is_file() and path.parent.name != "locks"]


FORMS = {
    "gzip": packed(LAYER),
    "gzip in two members": packed(LAYER[:700]) + packed(LAYER[700:]),
    "zstd": zstandard.compress(LAYER),
    "zstd in two frames": zstandard.compress(LAYER[:700]) + zstandard.compress(LAYER[700:]),
    "plain": LAYER,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_a_layer_gives_the_same_tar(cache: Cache, form: bytes) -> None:
    received: list[int] = []
    path = fetch(cache, form, received=received.append)
    assert path == cache.blob(sha256_of(LAYER))
    assert path.read_bytes() == LAYER
    assert sum(received) == len(form)
    assert list((cache.root / "tmp").iterdir()) == []


def test_what_the_store_has_is_not_fetched(cache: Cache) -> None:
    fetch(cache, packed(LAYER))
    repository = PulledRepository()  # has nothing
    assert fetch_layer(repository, plain(b"x"), sha256_of(LAYER), cache=cache).read_bytes() == LAYER


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (packed(LAYER)[:-5], "damaged"),
        (packed(LAYER)[: len(packed(LAYER)) // 2], "damaged"),
        (packed(LAYER)[:20] + b"\xff\xff\xff\xff" + packed(LAYER)[24:], "damaged"),
        (packed(LAYER)[:-8] + bytes(8), "damaged"),
        (packed(LAYER) + b"more", "damaged"),
        (zstandard.compress(LAYER)[:-5], "is not the one"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 50, "damaged"),
        (packed(LAYER[:-1] + b"x"), "is not the one"),
        (LAYER[:-512], "is not the one"),
        (b"", "is not the one"),
    ],
)
def test_a_damaged_layer_leaves_nothing(cache: Cache, form: bytes, said: str) -> None:
    with pytest.raises(RegistryError, match=said) as caught:
        fetch(cache, form)
    assert "team/train@sha256:" in caught.value.where
    assert nothing_left(cache)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(packed(LAYER)) - 1), st.integers(1, 255))
def test_one_wrong_byte_is_never_taken(tmp_path_factory: pytest.TempPathFactory, place: int, change: int) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"))
    form = bytearray(packed(LAYER))
    form[place] ^= change
    # Some bytes of gzip's header mean nothing; what counts is that the tar is right or refused.
    with contextlib.suppress(RegistryError):
        assert fetch(cache, bytes(form)).read_bytes() == LAYER
        return
    assert nothing_left(cache)


def test_a_layer_that_would_fill_the_disk_is_stopped(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_layers, "_FREE", 1 << 20)
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    assert plausible_size(len(bomb)) < 64 << 20
    with pytest.raises(RegistryError, match="unpacks to more than"):
        fetch(cache, bomb, sha256_of(b"whatever"))
    assert nothing_left(cache)


def test_a_layer_of_known_size_may_not_be_larger(cache: Cache) -> None:
    with pytest.raises(RegistryError, match=f"more than {len(LAYER) - 1} bytes"):
        fetch(cache, packed(LAYER), size=len(LAYER) - 1)
    assert fetch(cache, packed(LAYER), size=len(LAYER)).read_bytes() == LAYER


def test_layers_of_zeros_are_no_bombs(cache: Cache) -> None:
    zeros = bytes(64 << 20)
    assert len(gzip.compress(zeros, 1)) * 200 < len(zeros)
    assert fetch(cache, gzip.compress(zeros, 1), sha256_of(zeros)).stat().st_size == len(zeros)


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "sha512:" + "0" * 128, "", "sha256:" + "A" * 64])
def test_no_digest_is_a_path(cache: Cache, digest: str) -> None:
    with pytest.raises(RegistryError, match="no sha256 digest"):
        fetch(cache, packed(LAYER), digest)
    with pytest.raises(RegistryError, match="no sha256 digest"):
        fetch_layer(PulledRepository(), Descriptor("", digest, 1), sha256_of(LAYER), cache=cache)
    assert not cache.root.exists()


def test_many_who_ask_for_one_layer_fetch_it_once(cache: Cache) -> None:
    form = packed(LAYER)
    everybody = threading.Barrier(5)
    repository = PulledRepository()
    repository.add_blob(form)

    def one() -> None:
        everybody.wait(60)
        fetch_layer(repository, plain(form), sha256_of(LAYER), cache=cache)

    threads = [threading.Thread(target=one) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert repository.downloads == [sha256_of(form)]


def test_what_was_downloaded_when_the_work_ended_is_used_next_time(cache: Cache) -> None:
    class EndError(Exception):
        pass

    def end() -> None:
        raise EndError

    form = packed(LAYER)
    repository = PulledRepository()
    repository.add_blob(form)
    with pytest.raises(EndError):
        fetch_layer(repository, plain(form), sha256_of(LAYER), cache=cache, check=end)
    assert not cache.blob(sha256_of(LAYER)).exists()
    assert fetch_layer(repository, plain(form), sha256_of(LAYER), cache=cache).read_bytes() == LAYER
    assert repository.downloads == [sha256_of(form)]
