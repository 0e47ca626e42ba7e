"""Pushing to registries in memory: what travels, what does not, and what happens when somebody interferes."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from memory_registry import MemoryRegistry, MemoryRepository

from himl_container.cache import Cache
from himl_container.errors import BuildError, RegistryError
from himl_container.progress import SilentReporter
from himl_container.publish.compress import CompressedStore
from himl_container.publish.model import Pushed, PushImage, PushLayer, RemoteBlob
from himl_container.publish.push import push
from himl_container.publish.push_result import diff_ids_of, layers_of
from himl_container.registry.model import OCI_MANIFEST, Descriptor, Manifest, canonical_json, sha256_of

TAG = "ab" * 16


class Machine:
    """A machine that pushes: its cache, its layers, and the registries that it can reach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = Cache(folder / "cache")
        self.registry = MemoryRegistry()
        self.target = self.registry.repository("team/train")
        self.others: dict[str, MemoryRegistry] = {}
        self.exported: list[list[str]] = []
        self.daemon: dict[str, Path] = {}
        self.told: list[str] = []

    def layer(self, name: str, size: int = 5000, *, in_daemon: bool = False, **more: object) -> PushLayer:
        """A layer that only a file, or only the daemon has."""
        content = (hashlib.sha256(name.encode()).digest() * (size // 32 + 1))[:size]
        path = self.folder / f"{name}.tar"
        path.write_bytes(content)
        diff_id = sha256_of(content)
        if in_daemon:
            self.daemon[diff_id] = path
        return PushLayer(name, diff_id, size=size, path=None if in_daemon else path, **more)  # type: ignore[arg-type]

    def remote(self, host: str, repository: str, content: bytes = b"compressed") -> RemoteBlob:
        """A compressed layer that another repository has."""
        registry = self.registry if host == self.registry.host else self.other(host)
        digest = sha256_of(content)
        registry.repository(repository).blobs[digest] = content
        media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
        return RemoteBlob(host, repository, Descriptor(media_type, digest, len(content)))

    def other(self, host: str) -> MemoryRegistry:
        return self.others.setdefault(host, MemoryRegistry(host))

    def connect(self, name: str) -> MemoryRepository:
        host, _, repository = name.partition("/")
        return (self.registry if host == self.registry.host else self.others[host]).repository(repository)

    def export(self, layers: Sequence[PushLayer]) -> Mapping[str, Path]:
        self.exported.append([layer.name for layer in layers])
        return {layer.diff_id: self.daemon[layer.diff_id] for layer in layers}

    def push(self, image: PushImage, *, tag: str = TAG, before: Descriptor | None = None, **more: object) -> Pushed:
        outer = self

        class Reporter(SilentReporter):
            def info(self, text: str) -> None:
                outer.told.append(text)

        arguments = {"export": self.export if self.daemon else None, "compression": "gzip", **more}
        return push(
            image,
            self.target,
            tag,
            cache=self.cache,
            reporter=Reporter(),
            before=before,
            connect_to=self.connect,
            **arguments,  # type: ignore[arg-type]
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def image_of(*layers: PushLayer, note: str = "", annotations: Mapping[str, str] | None = None) -> PushImage:
    config = {"note": note, "rootfs": {"diff_ids": [layer.diff_id for layer in layers]}}
    return PushImage(canonical_json(config), layers, annotations or {"io.himl.fingerprint": "ab" * 32})


def test_image_arrives_whole_with_its_manifest_last(machine: Machine) -> None:
    layers = [machine.layer(name) for name in ("base", "python", "numpy")]
    image = image_of(*layers, layers[1])  # one layer twice
    pushed = machine.push(image)
    manifest = json.loads(machine.target.manifests[machine.target.tags[TAG]][0])
    assert [Descriptor(x["mediaType"], x["digest"], x["size"]) for x in manifest["layers"]] == list(pushed.layers)
    assert manifest["annotations"] == image.annotations
    assert manifest["config"]["digest"] == sha256_of(image.config)
    made = [CompressedStore(machine.cache).get(layer.diff_id) for layer in image.layers]
    assert [one.descriptor for one in made if one] == list(pushed.layers)
    last = [("put_manifest", digest := pushed.manifest.digest), ("head", digest)]
    assert machine.registry.calls[-5:] == [*last, ("head", TAG), ("put_manifest", TAG), ("head", TAG)]
    assert (pushed.manifest.digest, pushed.manifest.media_type) == (machine.target.tags[TAG], OCI_MANIFEST)
    assert pushed.reference == f"registry.example/team/train@{pushed.manifest.digest}"
    distinct = {blob.digest: blob.size for blob in pushed.layers}
    assert pushed.bytes_sent == sum(distinct.values()) + len(image.config) + 2 * pushed.manifest.size
    assert pushed.requests == len(machine.registry.calls)
    assert not pushed.existed


def test_second_push_of_the_same_layers_sends_the_manifest_alone(machine: Machine) -> None:
    image = image_of(*[machine.layer(name) for name in ("base", "python")])
    first = machine.push(image)
    machine.registry.forget()
    second = machine.push(image, tag="cd" * 16)
    assert machine.registry.uploaded == []
    assert second.bytes_sent == 2 * first.manifest.size
    assert second.manifest == first.manifest


def test_one_changed_layer_is_all_that_travels(machine: Machine) -> None:
    kept = [machine.layer("base", 300_000), machine.layer("python", 300_000)]
    machine.push(image_of(*kept, machine.layer("old")))
    machine.registry.forget()
    image = image_of(*kept, machine.layer("new"))
    pushed = machine.push(image, tag="cd" * 16)
    assert machine.registry.uploaded.count(pushed.layers[2].digest) == 1
    assert set(machine.registry.uploaded) == {pushed.layers[2].digest, sha256_of(image.config)}


def test_layers_are_found_mounted_copied_exported_or_compressed_in_this_order(machine: Machine) -> None:
    there = machine.remote("registry.example", "team/train", b"there")
    beside = machine.remote("registry.example", "bases/debian", b"beside")
    elsewhere = machine.remote("mcr.example", "azureml/base", b"elsewhere")
    gone = RemoteBlob("registry.example", "team/old", Descriptor(there.descriptor.media_type, sha256_of(b"gone"), 4))
    layers = [
        machine.layer("there", in_daemon=True, remotes=(elsewhere, there)),
        machine.layer("beside", in_daemon=True, remotes=(gone, beside)),
        machine.layer("elsewhere", in_daemon=True, remotes=(elsewhere,)),
        machine.layer("hidden one", in_daemon=True),
        machine.layer("hidden two", in_daemon=True),
        machine.layer("ours", remotes=(gone,)),
    ]
    pushed = machine.push(image_of(*layers))
    assert [blob.digest for blob in pushed.layers[:3]] == [
        there.descriptor.digest,
        beside.descriptor.digest,
        elsewhere.descriptor.digest,
    ]
    assert machine.exported == [["hidden one", "hidden two"]]
    assert beside.descriptor.digest not in machine.registry.uploaded
    assert elsewhere.descriptor.digest in machine.registry.uploaded
    assert not list((machine.cache.root / "tmp").iterdir())


def test_layer_that_another_registry_does_not_give_comes_from_the_daemon(machine: Machine) -> None:
    remote = machine.remote("mcr.example", "azureml/base")
    del machine.other("mcr.example").repository("azureml/base").blobs[remote.descriptor.digest]
    layer = machine.layer("base", in_daemon=True, remotes=(remote,))
    pushed = machine.push(image_of(layer))
    assert machine.exported == [["base"]]
    assert pushed.layers[0].digest in machine.target.blobs
    assert any("base: cannot be copied from mcr.example/azureml/base" in text for text in machine.told)


def test_layer_of_ours_that_is_here_is_not_fetched_from_another_registry(machine: Machine) -> None:
    remote = machine.remote("mcr.example", "team/other")
    machine.push(image_of(machine.layer("python", key="ab" * 32, remotes=(remote,))))
    assert machine.other("mcr.example").calls == []


def test_layer_of_the_base_keeps_the_digest_of_its_registry_also_where_its_content_is_here(machine: Machine) -> None:
    remote = machine.remote("mcr.example", "azureml/base")
    layer = machine.layer("base", remotes=(remote,))
    own = CompressedStore(machine.cache).make(layer.diff_id, layer.path or Path())
    pushed = machine.push(image_of(layer))
    assert pushed.layers[0] == remote.descriptor != own.descriptor
    # Where its registry does not give it, what is here is sent.
    machine.other("mcr.example").repository("azureml/base").blobs.clear()
    machine.target.blobs.clear()
    assert machine.push(image_of(layer, note="again"), tag="cd" * 16).layers[0] == own.descriptor


def test_layer_that_is_nowhere_is_told_by_name_and_nothing_is_tagged(machine: Machine) -> None:
    layer = machine.layer("base 1", in_daemon=True)
    with pytest.raises(RegistryError, match="base 1") as caught:
        machine.push(image_of(layer), export=None)
    assert "himl-container build" in caught.value.hint
    assert machine.target.tags == {}


@pytest.mark.parametrize("how", ["there", "mounted"])
def test_blob_that_the_registry_claims_to_have_is_sent_when_it_turns_out_to_be_missing(
    machine: Machine, how: str
) -> None:
    layers = [machine.layer("base"), machine.layer("python")]
    store = CompressedStore(machine.cache)
    digest = store.make(layers[0].diff_id, layers[0].path or Path()).descriptor.digest
    if how == "mounted":
        remote = RemoteBlob("registry.example", "bases/debian", Descriptor("", digest, 1))
        layers[0] = PushLayer("base", layers[0].diff_id, size=5000, path=layers[0].path, remotes=(remote,))
        machine.registry.before = lambda name, _: machine.registry.liars.add(digest) if name == "mount" else None
    else:
        machine.registry.liars.add(digest)
    pushed = machine.push(image_of(*layers))
    assert machine.target.tags[TAG] == pushed.manifest.digest
    assert {blob.digest for blob in pushed.layers} <= set(machine.target.blobs)
    assert machine.registry.uploaded.count(pushed.layers[1].digest) == 1  # what is there is not sent again
    assert any("lacks 1 blobs" in text for text in machine.told)


@pytest.mark.parametrize("gone", [False, True])
def test_layers_that_were_seen_are_not_asked_for_again_and_sent_when_they_are_gone_by_now(
    machine: Machine, gone: bool
) -> None:
    layers = [machine.layer(name) for name in ("python", "mine")]
    first = machine.push(image_of(layers[0]), tag="cd" * 16)
    seen = frozenset(layer.digest for layer in first.layers)
    if gone:
        machine.target.blobs.clear()
    machine.registry.forget()
    pushed = machine.push(image_of(*layers), seen=seen)
    assert seen.isdisjoint(machine.registry.named("blob_exists"))
    assert pushed.sent == (2 if gone else 1)
    assert {layer.digest for layer in pushed.layers} <= machine.target.blobs.keys()


def test_blob_that_is_missing_everywhere_is_a_clear_error(machine: Machine) -> None:
    blob = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", sha256_of(b"nowhere"), 7)
    machine.registry.liars.add(blob.digest)
    layer = PushLayer("base 1", sha256_of(b"tar"), remotes=(RemoteBlob("registry.example", "team/train", blob),))
    with pytest.raises(RegistryError, match=r"does not have them.*base 1"):
        machine.push(image_of(layer))
    assert machine.target.tags == {}


def test_configuration_that_the_registry_only_claims_to_have_is_sent(machine: Machine) -> None:
    image = image_of(machine.layer("base"))
    machine.registry.liars.add(sha256_of(image.config))
    pushed = machine.push(image)
    assert sha256_of(image.config) in machine.target.blobs
    assert pushed.manifest.digest == machine.target.tags[TAG]


def interfere(machine: Machine, moment: str, image: PushImage, *, times: int = 1) -> None:
    """Have somebody else put an image under our tag just before one of our requests."""
    content = {"config": {"mediaType": "", "digest": sha256_of(image.config), "size": 1}, "layers": []}
    left = [times]

    def act(name: str, argument: str) -> None:
        if name == moment and argument == TAG and left[0]:
            left[0] -= 1
            machine.target.blobs[sha256_of(image.config)] = image.config
            machine.target.put(canonical_json(content), OCI_MANIFEST, TAG)

    machine.registry.before = act


def test_tag_that_appears_meanwhile_with_the_same_image_is_taken(machine: Machine) -> None:
    image = image_of(machine.layer("base"), annotations={"io.himl.fingerprint": "ours"})
    interfere(machine, "head", image)
    pushed = machine.push(image)
    assert pushed.existed
    assert pushed.manifest.digest == machine.target.tags[TAG]
    assert TAG not in machine.registry.named("put_manifest")


def test_image_that_differs_in_labels_alone_is_the_same(machine: Machine) -> None:
    layer = machine.layer("base")

    def image(version: str) -> PushImage:
        inner = {"Env": ["PATH=/bin"], "Labels": {"himl.version": version}}
        rootfs = {"diff_ids": [layer.diff_id]}
        return PushImage(
            canonical_json({"config": inner, "rootfs": rootfs, "os": "linux", "architecture": "amd64"}), (layer,)
        )

    interfere(machine, "head", image("1.0"))
    assert machine.push(image("1.1")).existed


def test_tag_that_appears_meanwhile_with_another_image_is_left_alone(machine: Machine) -> None:
    other = image_of(machine.layer("other"), note="other")
    interfere(machine, "head", other)
    with pytest.raises(RegistryError, match="another image under this tag") as caught:
        machine.push(image_of(machine.layer("base")))
    assert "himl-container pull" in caught.value.hint
    assert TAG not in machine.registry.named("put_manifest")


def test_what_a_registry_says_of_another_image_may_be_anything(machine: Machine) -> None:
    nested = b"[" * 100_000
    interfere(machine, "head", PushImage(nested, ()))
    with pytest.raises(RegistryError, match="another image under this tag"):
        machine.push(image_of(machine.layer("base")))
    assert diff_ids_of(nested) == ()
    endless = {"layers": [{"mediaType": "a/b", "digest": sha256_of(b""), "size": json.loads("1e999")}]}
    with pytest.raises(RegistryError, match="malformed"):
        layers_of(Manifest(b"", OCI_MANIFEST, sha256_of(b""), endless))


@pytest.mark.parametrize("same", [True, False])
def test_tag_that_is_overwritten_right_after_us_is_noticed(machine: Machine, same: bool) -> None:
    image = image_of(machine.layer("base"))
    theirs = image if same else image_of(machine.layer("other"), note="other")
    content = {"config": {"mediaType": "", "digest": sha256_of(theirs.config), "size": 1}, "layers": []}

    def act(name: str, argument: str) -> None:
        if (name, argument) == ("head", TAG) and ("put_manifest", TAG) in machine.registry.calls:
            machine.target.blobs[sha256_of(theirs.config)] = theirs.config
            machine.target.put(canonical_json(content), OCI_MANIFEST, TAG)

    machine.registry.before = act
    if same:
        assert machine.push(image).existed
    else:
        with pytest.raises(RegistryError, match="another image under this tag"):
            machine.push(image)


def test_tag_that_the_caller_saw_is_replaced_but_no_other(machine: Machine) -> None:
    old = image_of(machine.layer("old"), note="old")
    before = machine.push(old).manifest
    image = image_of(machine.layer("new"))
    with pytest.raises(RegistryError, match="another image"):
        machine.push(image, before=Descriptor(OCI_MANIFEST, sha256_of(b"what was there before that"), 1))
    pushed = machine.push(image, before=before)
    assert machine.target.tags[TAG] == pushed.manifest.digest


def test_registry_that_guards_its_tags_refuses_and_the_same_image_is_fine(machine: Machine) -> None:
    image = image_of(machine.layer("base"))

    def act(name: str, argument: str) -> None:
        if (name, argument) == ("put_manifest", TAG):
            interfering()
            raise RegistryError("PUT manifest: the registry answered 409, TAG_INVALID: the tag is immutable")

    def interfering() -> None:
        content = {"config": {"mediaType": "", "digest": sha256_of(image.config), "size": 1}, "layers": []}
        machine.target.put(canonical_json(content), OCI_MANIFEST, TAG)

    machine.registry.before = act
    assert machine.push(image).existed


def test_registry_that_reports_another_digest_or_loses_the_manifest_is_not_believed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_of(machine.layer("base"))
    put = machine.target.put_manifest

    def answering(digest: str) -> None:
        def answer(data: bytes, media_type: str, reference: str) -> str:
            return digest if reference == TAG else put(data, media_type, reference)

        monkeypatch.setattr(machine.target, "put_manifest", answer)

    answering(sha256_of(b"another"))
    with pytest.raises(RegistryError, match="reports the digest"):
        machine.push(image)
    digest = next(iter(machine.target.manifests))
    answering(digest)
    with pytest.raises(RegistryError, match="does not have it"):
        machine.push(image)
    machine.target.manifests[digest] = (b"{}", OCI_MANIFEST)
    monkeypatch.setattr(machine.target, "put_manifest", lambda *_: digest)  # it has a part, and takes that for all
    with pytest.raises(RegistryError, match="does not give it whole"):
        machine.push(image)
    assert machine.target.tags == {}


def test_interrupted_push_leaves_no_tag_and_the_next_one_sends_only_the_rest(machine: Machine) -> None:
    layers = [machine.layer(f"layer {number}", 100_000 - number) for number in range(8)]
    image = image_of(*layers)

    def act(name: str, argument: str) -> None:
        if name == "upload" and len(machine.registry.uploaded) >= 3:
            raise KeyboardInterrupt

    machine.registry.before = act
    with pytest.raises(KeyboardInterrupt):
        machine.push(image)
    assert machine.target.tags == {}
    machine.registry.before = None
    arrived = set(machine.registry.uploaded)
    assert 3 <= len(arrived) < 9
    machine.registry.forget()
    pushed = machine.push(image)
    assert not arrived & set(machine.registry.uploaded)
    assert len(machine.registry.uploaded) == 9 - len(arrived)
    assert machine.target.tags[TAG] == pushed.manifest.digest
    assert not list((machine.cache.root / "tmp").iterdir())


def test_error_of_one_layer_stops_the_others_in_the_middle(machine: Machine) -> None:
    refused = machine.layer("refused", 300_000)
    going_on = threading.Event()

    def act(name: str, argument: str) -> None:
        if name != "upload":
            return
        made = CompressedStore(machine.cache).get(refused.diff_id)
        if made is not None and argument == made.descriptor.digest:
            going_on.wait(30)
            raise RegistryError("denied")
        going_on.set()

    machine.registry.before = act
    layers = [refused, *[machine.layer(f"layer {number}", 200_000) for number in range(20)]]
    before = set(threading.enumerate())
    with pytest.raises(RegistryError, match="denied"):
        machine.push(image_of(*layers))
    assert machine.target.tags == {}

    def left() -> set[threading.Thread]:
        # What other libraries set to tick in this process is none of ours.
        return {thread for thread in threading.enumerate() if not isinstance(thread, threading.Timer)} - before

    # Their work is over when the push returns; the threads themselves take a moment to end.
    until = time.monotonic() + 20
    while left() and time.monotonic() < until:
        time.sleep(0.01)
    assert not left()


def test_two_pushes_at_once_both_end_well(machine: Machine, tmp_path: Path) -> None:
    image = image_of(*[machine.layer(f"layer {number}", 50_000) for number in range(6)])
    results: list[Pushed] = []
    threads = [threading.Thread(target=lambda: results.append(machine.push(image))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.manifest for one in results] == [results[0].manifest] * 2
    assert sorted(one.existed for one in results) == [False, True]
    assert len(machine.registry.uploaded) == len(set(machine.registry.uploaded)) == 7


def test_image_whose_configuration_names_other_layers_is_refused_before_anything_is_sent(machine: Machine) -> None:
    layer = machine.layer("base")
    wrong = PushImage(canonical_json({"rootfs": {"diff_ids": []}}), (layer,))
    for image in (wrong, PushImage(b"not json", (layer,)), PushImage(b"[]", (layer,))):
        with pytest.raises(BuildError, match="configuration"):
            machine.push(image)
    assert machine.registry.calls == []


def test_zstd_layers_have_their_own_media_type(machine: Machine) -> None:
    pushed = machine.push(image_of(machine.layer("base")), compression="zstd")
    assert pushed.layers[0].media_type.endswith("tar+zstd")
