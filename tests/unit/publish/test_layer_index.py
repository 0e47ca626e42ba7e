"""The layer index: kept in a registry, read back as hostile input."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_registry import MemoryRepository, lone_repository

from himl_container.errors import RegistryError
from himl_container.progress import SilentReporter
from himl_container.publish import layer_index
from himl_container.publish.index_document import (
    DamagedError,
    Document,
    IndexEntry,
    pack,
    read_document,
    write_document,
)
from himl_container.publish.layer_index import TAG, LayerIndex
from himl_container.registry.model import OCI_MANIFEST, OCI_TAR_GZIP, OCI_TAR_ZSTD, Descriptor


@dataclass
class Told(SilentReporter):
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def hexed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def entry(name: str, *, seen: int = 20_000, zstd: bool = False) -> IndexEntry:
    kind, media_type = ("zstd", OCI_TAR_ZSTD) if zstd else ("gzip", OCI_TAR_GZIP)
    blob = Descriptor(media_type, f"sha256:{hexed(name + kind)}", 17)
    return IndexEntry(f"sha256:{hexed(name + ' tar')}", 40, 3, seen, {kind: blob})


def some(*names: str, seen: int = 20_000) -> dict[str, IndexEntry]:
    return {hexed(name): entry(name, seen=seen) for name in names}


def fetched(repository: MemoryRepository) -> LayerIndex:
    return LayerIndex.fetch(repository, reporter=SilentReporter())


def stored(repository: MemoryRepository, *names: str, seen: int = 20_000) -> LayerIndex:
    return fetched(repository).merged(some(*names, seen=seen)).store(repository, reporter=SilentReporter())


def test_missing_index_is_empty_and_costs_one_request() -> None:
    repository, told = lone_repository(), Told()
    index = LayerIndex.fetch(repository, reporter=told)
    assert (len(index), index.known(hexed("a"), "gzip"), told.warnings) == (0, None, [])
    assert repository.registry.calls == [("manifest", TAG)]


def test_what_was_stored_is_known_elsewhere_by_compression() -> None:
    repository = lone_repository()
    variables = {"GDAL_DATA": "/opt/himl/share/gdal"}
    fetched(repository).merged(some("a"), {hexed("scripts"): variables}).store(repository, reporter=SilentReporter())
    index = fetched(repository)
    assert index.known(hexed("a"), "gzip") == entry("a")
    assert index.known(hexed("a"), "zstd") is None
    assert index.known(hexed("b"), "gzip") is None
    assert index.activation(hexed("scripts")) == variables


def test_second_compression_of_a_layer_adds_to_the_first() -> None:
    repository = lone_repository()
    stored(repository, "a")
    more = {hexed("a"): entry("a", zstd=True)}
    fetched(repository).merged(more).store(repository, reporter=SilentReporter())
    known = fetched(repository).known(hexed("a"), "gzip")
    assert known is not None
    assert sorted(known.blobs) == ["gzip", "zstd"]


def test_layer_is_found_by_the_key_that_its_packages_have_without_shared_paths() -> None:
    repository = lone_repository()
    stored(repository, "other")
    same = {hexed("apart"): hexed("a")}
    fetched(repository).merged(some("a"), same=same).store(repository, reporter=SilentReporter())
    index = fetched(repository)
    assert index.like(hexed("apart")) == index.like(hexed("a")) == entry("a")
    assert index.entry(hexed("apart")) is None
    assert index.like(hexed("unknown")) is None


def test_nothing_new_sends_nothing() -> None:
    repository = lone_repository()
    index = stored(repository, "a")
    repository.registry.calls.clear()
    index.merged(some("a", seen=20_001)).store(repository, reporter=SilentReporter())
    assert repository.registry.calls == []
    index.merged(some("a", seen=20_100)).store(repository, reporter=SilentReporter())
    assert fetched(repository).known(hexed("a"), "gzip") == entry("a", seen=20_100)


def test_writer_that_was_slower_keeps_the_entries_of_the_faster_one() -> None:
    repository = lone_repository()
    slow = fetched(repository).merged(some("slow"))
    stored(repository, "fast")
    slow.store(repository, reporter=SilentReporter())
    index = fetched(repository)
    assert index.known(hexed("slow"), "gzip")
    assert index.known(hexed("fast"), "gzip")


def test_writer_whose_index_was_overwritten_adds_its_entries_again() -> None:
    repository = lone_repository()
    stored(repository, "old")
    other = fetched(repository).merged(some("other"))
    overwritten: list[str] = []

    def interfere(method: str, argument: str) -> None:
        # Between the write and the look back, another writer that began earlier puts its own index in place.
        written = repository.registry.named("put_manifest").count(TAG)
        if (method, argument) == ("head", TAG) and written == 2 and not overwritten:
            overwritten.append(repository.tags[TAG])
            repository.registry.before = None
            other._written(repository)

    repository.registry.before = interfere
    fetched(repository).merged(some("mine")).store(repository, reporter=SilentReporter())
    assert overwritten
    index = fetched(repository)
    assert all(index.known(hexed(name), "gzip") for name in ("old", "other", "mine"))


def test_many_pushes_leave_few_documents_and_send_little() -> None:
    repository = lone_repository()
    for number in range(200):
        stored(repository, f"package {number}")
    manifest = repository.manifest(TAG)
    assert manifest is not None
    assert len(manifest.content["layers"]) <= 9  # about the logarithm of 200
    assert all(fetched(repository).known(hexed(f"package {number}"), "gzip") for number in range(200))
    sizes = sorted(len(repository.blobs[digest]) for digest in repository.registry.named("upload_bytes"))
    assert sizes[len(sizes) // 2] < 1000


def test_entries_not_seen_for_longest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_index, "LARGEST_INDEX", 10)
    repository = lone_repository()
    for number in range(10):
        stored(repository, f"package {number}", seen=20_000 + (number if number else 50))
    stored(repository, "last", seen=20_051)
    index = fetched(repository)
    kept = [number for number in range(10) if index.known(hexed(f"package {number}"), "gzip")]
    assert kept == [0, 3, 4, 5, 6, 7, 8, 9]  # the first was pushed again lately
    assert index.known(hexed("last"), "gzip")


@pytest.mark.parametrize(
    "manifest",
    [
        {"schemaVersion": 2, "layers": []},
        {"artifactType": layer_index.ARTIFACT_TYPE, "layers": "none"},
        {"artifactType": layer_index.ARTIFACT_TYPE, "layers": [7]},
        {"artifactType": layer_index.ARTIFACT_TYPE, "layers": [{"mediaType": "a/b", "digest": "sha256:0", "size": 1}]},
        {
            "artifactType": layer_index.ARTIFACT_TYPE,
            "layers": [{"mediaType": "a/b", "digest": f"sha256:{'0' * 64}", "size": 1}],
        },
        {"artifactType": layer_index.ARTIFACT_TYPE, "layers": [{}] * 1000},
    ],
)
def test_manifest_that_is_not_an_index_is_told_and_replaced(manifest: dict[str, object]) -> None:
    repository, told = lone_repository(), Told()
    data = json.dumps(manifest).encode()
    repository.manifests["sha256:x"] = (data, OCI_MANIFEST)
    repository.tags[TAG] = "sha256:x"
    index = LayerIndex.fetch(repository, reporter=told)
    assert len(index) == 0
    assert len(told.warnings) == 1
    assert TAG in told.warnings[0]
    index.merged(some("a")).store(repository, reporter=told)
    assert fetched(repository).known(hexed("a"), "gzip")


@pytest.mark.parametrize("lost", [True, False])
def test_lost_or_damaged_document_is_told_and_the_others_are_used(lost: bool) -> None:
    repository, told = lone_repository(), Told()
    stored(repository, *(f"first {number}" for number in range(8)))
    stored(repository, "second")
    digests = [layer["digest"] for layer in repository.manifest(TAG).content["layers"]]  # type: ignore[union-attr]
    assert len(digests) == 2
    if lost:
        del repository.blobs[digests[0]]
    else:
        repository.blobs[digests[0]] = b"something else"
    index = LayerIndex.fetch(repository, reporter=told)
    assert index.known(hexed("second"), "gzip")
    assert not index.known(hexed("first 0"), "gzip")
    assert ("no longer has" if lost else "other content") in told.warnings[0]
    index.merged(some("third")).store(repository, reporter=told)
    again = Told()
    assert LayerIndex.fetch(repository, reporter=again).known(hexed("third"), "gzip")
    assert again.warnings == []


def test_document_that_cannot_be_fetched_is_an_error_not_an_empty_index() -> None:
    repository = lone_repository()
    stored(repository, "a")

    def interfere(method: str, argument: str) -> None:
        if method == "blob":
            raise RegistryError("the registry answers 500")

    repository.registry.before = interfere
    with pytest.raises(RegistryError, match="500"):
        fetched(repository)


def hostile(**changes: object) -> dict[str, object]:
    value = json.loads(zlib.decompress(write_document(Document(some("a"))), 31))
    next(iter(value["layers"].values())).update(changes)
    return value  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "value",
    [
        hostile(diff_id="sha256:../../etc/passwd"),
        hostile(diff_id=f"sha256:{'0' * 64}\n"),
        hostile(size=-1),
        hostile(size=True),
        hostile(size=10**20),
        hostile(entries="many"),
        hostile(blobs={"gzip": [OCI_TAR_ZSTD, f"sha256:{'0' * 64}", 1]}),
        hostile(blobs={"xz": [OCI_TAR_GZIP, f"sha256:{'0' * 64}", 1]}),
        hostile(blobs=[1]),
        hostile(facts=["text/html; charset=x", f"sha256:{'0' * 64}", 1]),
        {"format": 1, "layers": {"../x": {}}, "activations": {}, "same": {}},
        {"format": 1, "layers": {}, "activations": {"0" * 64: {"A B": "x"}}, "same": {}},
        {"format": 1, "layers": {}, "activations": {"0" * 64: {"A": "x\nRUN y"}}, "same": {}},
        {"format": 1, "layers": {}, "activations": {"0" * 64: {"A": 1}}, "same": {}},
        {"format": 1, "layers": {}, "activations": {}, "same": {"0" * 64: "1"}},
        {"format": 1, "layers": {}, "activations": {}, "same": []},
        {"format": 2, "layers": {}, "activations": {}},
        {"format": 1, "layers": []},
        [],
        None,
    ],
)
def test_hostile_document_is_refused(value: object) -> None:
    with pytest.raises(DamagedError):
        read_document(pack(value))


def test_document_that_grows_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("himl_container.publish.index_document.LARGEST", 1 << 16)
    with pytest.raises(DamagedError, match="too large"):
        read_document(pack("0" * (1 << 20)))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_without_another_error(data: bytes) -> None:
    with pytest.raises(DamagedError):
        read_document(data)


def test_damaged_bytes_are_refused_or_harmless() -> None:
    data = write_document(Document(some("a", "b"), {hexed("s"): {"A": "b"}}))
    chance = random.Random(7)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            read_document(bytes(damaged))
        except DamagedError:
            continue
