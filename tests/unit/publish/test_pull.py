"""Pulling an image: what travels, what is believed, and what becomes of it when something is wrong."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pull_fakes import REPOSITORY, FakeEngine, PulledRepository, packed, tar

from himl_container.cache import Cache
from himl_container.errors import EngineError, HimlError, InputError, RegistryError
from himl_container.image.model import ImageInfo
from himl_container.progress import SilentReporter
from himl_container.publish.known_names import names_of
from himl_container.publish.pull import PullPlan, plan_pull, pull
from himl_container.registry.model import OCI_MANIFEST, canonical_json, sha256_of

A, B, C, D = (tar(f"opt/{name}", name.encode() * 3000) for name in "abcd")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


class Place:
    """One machine, and a registry."""

    def __init__(self, cache: Cache) -> None:
        self.cache, self.repository, self.engine = cache, PulledRepository(), FakeEngine()
        self.connections = 0

    def _connect(self, name: str, **_options: object) -> PulledRepository:
        assert name == REPOSITORY
        self.connections += 1
        return self.repository

    def _call(self, function: object, reference: str, platform: str) -> object:
        call = functools.partial(function, engine=self.engine, cache=self.cache, platform=platform)  # type: ignore[arg-type]
        return call(f"{REPOSITORY}{reference}", reporter=SilentReporter(), connect=self._connect)

    def pull(self, reference: str = ":1", platform: str = "linux-64") -> ImageInfo:
        found = self._call(pull, reference, platform)
        assert isinstance(found, ImageInfo)
        return found

    def plan(self, reference: str = ":1", platform: str = "linux-64") -> PullPlan:
        found = self._call(plan_pull, reference, platform)
        assert isinstance(found, PullPlan)
        return found

    def downloaded(self) -> set[str]:
        """The diff ids of the layers that came from the registry."""
        forms = {sha256_of(packed(layer)): sha256_of(layer) for layer in (A, B, C, D)}
        found = {forms[digest] for digest in self.repository.downloads}
        self.repository.downloads.clear()
        return found


@pytest.fixture
def place(cache: Cache) -> Place:
    return Place(cache)


def ids(*layers: bytes) -> set[str]:
    return {sha256_of(layer) for layer in layers}


def test_an_image_arrives_with_the_id_tag_and_digest_of_the_registry(place: Place) -> None:
    manifest = place.repository.add_image(A, B)
    found = place.pull()
    assert found.id == manifest.content["config"]["digest"]
    assert found.tags == (f"{REPOSITORY}:1",)
    assert found.repo_digests == (f"{REPOSITORY}@{manifest.digest}",)
    assert found.diff_ids == (sha256_of(A), sha256_of(B))
    assert names_of(place.cache, found.id) == found.repo_digests


def test_only_what_neither_the_daemon_nor_the_store_has_travels(place: Place) -> None:
    place.repository.add_image(A, B, C, tag="1")
    place.repository.add_image(A, B, D, tag="2")
    place.repository.add_image(A, D, C, tag="3")
    place.pull(":1")
    assert place.downloaded() == ids(A, B, C)
    place.engine.sent.clear()
    place.pull(":2")
    assert place.downloaded() == ids(D)
    assert place.engine.sent == [sha256_of(D)]
    # The daemon needs C anew, because it lies on top of something else now; it is still in the store.
    place.pull(":3")
    assert place.downloaded() == set()
    assert place.engine.sent == [sha256_of(D), sha256_of(D), sha256_of(C)]


def test_an_empty_store_needs_no_layers_that_the_daemon_has(place: Place, tmp_path: Path) -> None:
    place.repository.add_image(A, B, C, tag="1")
    place.repository.add_image(A, B, D, tag="2")
    place.pull(":1")
    place.downloaded()
    place.cache = Cache(tmp_path / "another")
    place.pull(":2")
    assert place.downloaded() == ids(D)


def test_a_layer_that_is_in_an_image_twice_travels_once(place: Place) -> None:
    place.repository.add_image(A, B, A)
    assert place.plan().size == len(packed(A)) + len(packed(B))
    assert place.pull().diff_ids == (sha256_of(A), sha256_of(B), sha256_of(A))
    assert sorted(place.repository.downloads) == sorted({sha256_of(packed(A)), sha256_of(packed(B))})


def test_an_image_that_is_there_costs_one_question_to_the_registry(place: Place) -> None:
    place.repository.add_image(A)
    first = place.pull()
    place.repository.registry.forget()
    assert place.pull() == first
    assert place.repository.registry.calls == [("manifest", "1")]
    assert place.engine.loads == 1


def test_an_image_that_is_there_by_its_digest_costs_none(place: Place) -> None:
    manifest = place.repository.add_image(A)
    place.pull()
    found = place.pull(f"@{manifest.digest}")
    assert place.connections == 1
    assert place.engine.loads == 1
    assert f"{REPOSITORY}@{manifest.digest}" in found.repo_digests


def test_a_digest_wins_over_the_tag_and_gives_a_name_where_there_is_none(place: Place) -> None:
    old = place.repository.add_image(A, tag="1")
    place.repository.add_image(B, tag="1")
    found = place.pull(f"@{old.digest}")
    assert found.diff_ids == (sha256_of(A),)
    assert found.tags == (f"{REPOSITORY}:pulled-{old.digest[7:39]}",)
    assert place.pull(f":mine@{old.digest}").tags == (*found.tags, f"{REPOSITORY}:mine")
    assert place.pull(":1").diff_ids == (sha256_of(B),)


def test_a_tag_without_a_name_is_latest(place: Place) -> None:
    place.repository.add_image(A, tag="latest")
    assert place.pull("").tags == (f"{REPOSITORY}:latest",)


def test_an_index_gives_the_image_of_the_platform(place: Place) -> None:
    amd = place.repository.add_image(A, tag="a")
    arm = place.repository.add_image(B, tag="b", architecture="arm64")
    index = place.repository.add_index("1", amd64=amd, arm64=arm)
    found = place.pull()
    assert found.diff_ids == (sha256_of(A),)
    assert found.repo_digests == (f"{REPOSITORY}@{amd.digest}", f"{REPOSITORY}@{index.digest}")
    assert place.pull(platform="linux-aarch64").diff_ids == (sha256_of(B),)
    # By the index's digest each platform is found again without the registry.
    connections = place.connections
    assert place.pull(f"@{index.digest}").id == found.id
    assert place.pull(f"@{index.digest}", "linux-aarch64").diff_ids == (sha256_of(B),)
    assert place.connections == connections


def test_an_index_without_the_platform(place: Place) -> None:
    arm = place.repository.add_image(B, tag="b", architecture="arm64")
    place.repository.add_index("1", arm64=arm)
    with pytest.raises(RegistryError, match="does not exist for linux/amd64") as caught:
        place.pull()
    assert "linux/arm64" in caught.value.hint


def test_an_image_for_another_platform(place: Place) -> None:
    place.repository.add_image(A, architecture="arm64")
    with pytest.raises(RegistryError, match="is for linux/arm64, not for linux/amd64"):
        place.pull()
    assert place.repository.downloads == []


def test_an_index_whose_manifest_is_gone(place: Place) -> None:
    image = place.repository.add_image(A, tag="a")
    place.repository.add_index("1", amd64=image)
    del place.repository.manifests[image.digest]
    with pytest.raises(RegistryError, match="which its index names"):
        place.pull()


def test_an_image_that_does_not_exist(place: Place) -> None:
    with pytest.raises(RegistryError, match="no such image") as caught:
        place.pull(":2")
    assert caught.value.where == f"{REPOSITORY}:2"
    with pytest.raises(RegistryError, match="no such image"):
        place.pull(f"@{sha256_of(b'')}")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "train:1",
        "team/train:1",
        "../x",
        "host.test/../x:1",
        "host.test/x:1\n",
        "host.test/X",
        "a.b/x@sha256:12",
        "-v",
    ],
)
def test_names_that_no_registry_can_have(cache: Cache, name: str) -> None:
    with pytest.raises(InputError):
        pull(name, engine=FakeEngine(), cache=cache, reporter=SilentReporter())  # type: ignore[arg-type]


def damaged_form(place: Place) -> None:
    place.repository.add_image(A, B, forms=(packed(A), packed(B)[:-3]))


def another_layer(place: Place) -> None:
    place.repository.add_image(A, B, forms=(packed(A), packed(C)))


def lost_blob(place: Place) -> None:
    place.repository.add_image(A, B)
    del place.repository.blobs[sha256_of(packed(B))]


def changed_blob(place: Place) -> None:
    place.repository.add_image(A, B)
    place.repository.blobs[sha256_of(packed(B))] = packed(C)


@pytest.mark.parametrize("fault", [damaged_form, another_layer, lost_blob, changed_blob])
def test_a_layer_that_cannot_be_had_leaves_no_image(place: Place, fault: object) -> None:
    fault(place)  # type: ignore[operator]
    with pytest.raises(RegistryError):
        place.pull()
    assert place.engine.images == {}
    assert not place.cache.blob(sha256_of(B)).exists()


def test_the_failure_that_is_told_is_the_one_that_ended_the_pull(place: Place) -> None:
    place.repository.add_image(A, B, C)
    del place.repository.blobs[sha256_of(packed(C))]
    with pytest.raises(RegistryError, match=sha256_of(packed(C))):
        place.pull()


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"config": {"mediaType": "x", "digest": "sha256:../../x", "size": 1}},
        {"config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256_of(b"{}"), "size": 2}},
        {"layers": "abc"},
        {"layers": [1]},
        {"layers": [{"mediaType": "x", "digest": sha256_of(b""), "size": -1}]},
        {"layers": [{"mediaType": "x", "digest": sha256_of(b""), "size": "1"}]},
        {"layers": [{"mediaType": "x", "digest": "sha512:" + "0" * 128, "size": 1}]},
        {"layers": []},
    ],
)
def test_a_manifest_that_makes_no_sense(place: Place, change: dict[str, object]) -> None:
    manifest = place.repository.add_image(A)
    place.repository.add_manifest({**manifest.content, **change}, "1")
    with pytest.raises(RegistryError):
        place.pull()
    assert place.engine.images == {}


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b'{"rootfs":{"diff_ids":[]},"os":"linux","architecture":"amd64"}',
        b'{"rootfs":{"diff_ids":["sha256:../x"]},"os":"linux","architecture":"amd64"}',
        b'{"rootfs":{"diff_ids":[1]},"os":"linux","architecture":"amd64"}',
        b'{"rootfs":null,"os":"linux","architecture":"amd64"}',
        pytest.param(b"[" * 100_000, id="nested without end"),
        b'{"rootfs":{"diff_ids":["' + sha256_of(A).encode() + b'"]},"os":"linux","architecture":"amd64","history":[1]}',
    ],
)
def test_a_configuration_that_makes_no_sense(place: Place, config: bytes) -> None:
    manifest = place.repository.add_image(A)
    digest = place.repository.add_blob(config)
    entry = {**manifest.content["config"], "digest": digest, "size": len(config)}
    place.repository.add_manifest({**manifest.content, "config": entry}, "1")
    with pytest.raises(RegistryError, match="malformed"):
        place.pull()


def test_something_that_is_no_image(place: Place) -> None:
    place.repository.add_manifest({"anything": 1}, "1", media_type="application/vnd.oci.artifact.manifest.v1+json")
    with pytest.raises(RegistryError, match="not an image"):
        place.pull()


def test_the_names_of_layers_are_ours_or_numbers(place: Place) -> None:
    steps = ("himl-container: conda:numpy", "himl-container: \x1b[31mred", "RUN apt-get")
    place.repository.add_image(A, B, C, steps=steps)
    assert [layer.name for layer in place.plan().layers] == ["conda:numpy", "layer 2", "layer 3"]


def test_a_plan_says_what_would_travel_and_keeps_nothing(place: Place) -> None:
    place.repository.add_image(A, B, tag="1")
    place.repository.add_image(A, C, tag="2")
    place.pull(":1")
    place.downloaded()
    before = sorted(path for path in place.cache.root.rglob("*"))
    plan = place.plan(":2")
    assert [layer.where for layer in plan.layers] == ["daemon", "registry"]
    assert plan.size == len(packed(C))
    assert json.loads(json.dumps(plan.as_json()))["bytes"] == len(packed(C))
    assert place.downloaded() == set()
    assert f"{REPOSITORY}:2" not in place.engine.names
    assert sorted(path for path in place.cache.root.rglob("*")) == before
    assert place.plan(":1").present is not None
    assert place.plan(":1").size == 0


def test_a_damaged_blob_of_the_store_is_fetched_again(place: Place) -> None:
    place.repository.add_image(A, B)
    blob = place.cache.blob(sha256_of(A))
    blob.parent.mkdir(parents=True)
    blob.write_bytes(A[:-1])
    place.pull()
    assert place.downloaded() == ids(A, B)
    assert blob.read_bytes() == A


def test_an_image_that_the_daemon_loses_meanwhile_is_sent_again(place: Place) -> None:
    place.repository.add_image(A, tag="1")
    place.repository.add_image(A, B, tag="2")
    place.pull(":1")

    def lose() -> None:
        place.engine.images.clear()
        place.engine.before_load = lambda: None

    place.engine.before_load = lose
    assert place.pull(":2").diff_ids == (sha256_of(A), sha256_of(B))


def test_a_daemon_that_refuses_is_asked_once(place: Place) -> None:
    place.repository.add_image(A)

    def refuse() -> None:
        raise EngineError("no space left on device")

    place.engine.before_load = refuse
    with pytest.raises(EngineError, match="no space left"):
        place.pull()
    assert place.engine.loads == 1


def test_a_pull_that_was_interrupted_goes_on(place: Place) -> None:
    place.repository.add_image(A, B, C)
    done = threading.Semaphore(0)

    @contextlib.contextmanager
    def interrupted(digest: str) -> Iterator[None]:
        if digest == sha256_of(packed(C)):
            assert done.acquire(timeout=60)
            assert done.acquire(timeout=60)
            raise KeyboardInterrupt
        yield
        done.release()

    place.repository.around = interrupted
    with pytest.raises(KeyboardInterrupt):
        place.pull()
    assert place.engine.images == {}
    assert place.downloaded() == ids(A, B)
    place.repository.around = contextlib.nullcontext
    place.pull()
    assert place.downloaded() == ids(C)


def test_a_record_that_is_damaged_costs_a_question(place: Place) -> None:
    manifest = place.repository.add_image(A)
    place.pull()
    for path in place.cache.root.glob("memo/registry-*/*"):
        path.write_text('{"x": [1')
    assert place.pull(f"@{manifest.digest}").diff_ids == (sha256_of(A),)
    assert place.connections == 2
    assert place.engine.loads == 1


def test_an_image_with_another_configuration_is_another_image(place: Place) -> None:
    manifest = place.repository.add_image(A)
    place.pull()
    config = canonical_json({**json.loads(place.repository.blobs[manifest.content["config"]["digest"]]), "author": "x"})
    entry = {**manifest.content["config"], "digest": place.repository.add_blob(config), "size": len(config)}
    place.repository.add_manifest({**manifest.content, "config": entry}, "1", media_type=OCI_MANIFEST)
    place.downloaded()
    assert place.pull().id == sha256_of(config)
    assert place.downloaded() == set()


def test_all_errors_are_for_people(place: Place) -> None:
    with pytest.raises(HimlError) as caught:
        place.pull(":missing")
    assert caught.value.hint
