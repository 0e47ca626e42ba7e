"""A tag is never given to a manifest that the registry has not whole; and layers in zstd's form, there and back.

What a full disk does to a registry is done to its files here, and by a disk that is full in ``test_push_faults.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from registry_client import Told, client, small_image
from registry_server import Host
from whole_pushes import TAG as IMAGE_TAG
from whole_pushes import Machine, image_of

from himl_container.cache import Cache
from himl_container.errors import RegistryError
from himl_container.publish.compress import CompressedStore
from himl_container.publish.index_document import IndexEntry
from himl_container.publish.layer_index import TAG, LayerIndex
from himl_container.publish.pull_layers import fetch_layer
from himl_container.publish.push import push
from himl_container.publish.push_plan import _planned
from himl_container.registry.client import RegistryClient
from himl_container.registry.model import OCI_MANIFEST, OCI_TAR_GZIP, OCI_TAR_ZSTD, Descriptor, sha256_of

pytestmark = pytest.mark.registry


@contextmanager
def emptied(host: Host, digest: str) -> Iterator[None]:
    """Leave the registry an empty file for a manifest, as a full disk does; it takes that for the manifest."""
    file = host.blob_file(digest)
    kept = file.read_bytes()
    file.write_bytes(b"")
    try:
        yield
    finally:
        file.write_bytes(kept)


def entries(*names: str) -> dict[str, IndexEntry]:
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    return {
        value: IndexEntry(f"sha256:{value}", 10, 1, 20_000, {"gzip": Descriptor(OCI_TAR_GZIP, f"sha256:{value}", 5)})
        for value in digests.values()
    }


def test_a_layer_index_that_the_registry_did_not_keep_does_not_get_the_tag(host: Host, name: str, told: Told) -> None:
    """Who asks for a tag of an empty file gets 500, always: no build could go on that wants to know of layers."""

    def stored(repository: RegistryClient, *names: str) -> LayerIndex:
        index = LayerIndex.fetch(repository, reporter=told)
        return index.merged(entries(*names)).store(repository, reporter=told)

    repository, other = client(f"{host}/{name}", told), client(f"{host}/{name}-other", told)
    old = stored(repository, f"{name} old")
    stored(other, f"{name} old")
    new = stored(other, f"{name} new")  # tells the digest, and has the registry store its parts
    with emptied(host, new.digest):
        with pytest.raises(RegistryError, match="took the manifest and does not give it") as caught:
            stored(repository, f"{name} new")
        assert caught.value.where.endswith(f"/{name}:{TAG}")
        found = LayerIndex.fetch(repository, reporter=told)
        assert found.digest == old.digest
        assert not any("damaged" in line for line in told.lines)
    assert stored(repository, f"{name} new").digest == new.digest


def test_an_index_of_attachments_that_the_registry_did_not_keep_does_not_get_the_tag(host: Host, name: str) -> None:
    """The lock that was attached before stays to be found."""
    options = {"artifact_type": "application/a", "media_type": "text/plain"}
    repository, other = client(f"{host}/{name}"), client(f"{host}/{name}-other")
    for one in (repository, other):
        data = small_image(one, seed=7)
        subject = Descriptor(OCI_MANIFEST, one.put_manifest(data, OCI_MANIFEST, "image"), len(data))
        first = one.attach(subject, name.encode(), **options)
    other.attach(subject, b"a test that was passed later", **options)
    tag = subject.digest.replace(":", "-")
    index = other.head(tag)
    assert index is not None
    with emptied(host, index.digest):
        with pytest.raises(RegistryError, match="took the manifest and does not give it"):
            repository.attach(subject, b"a test that was passed later", **options)
        assert client(f"{host}/{name}").referrers(subject.digest) == (first,)
    repository.attach(subject, b"a test that was passed later", **options)
    assert len(repository.referrers(subject.digest)) == 2


def test_a_plan_says_that_what_the_registry_cannot_read_is_sent_again(host: Host, name: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    layer = machine.layer("one")
    blob = machine.push(image_of(layer), f"{host}/{name}").layers[0]
    repository, store = client(f"{host}/{name}"), CompressedStore(machine.cache)
    assert _planned(layer, repository, store).what == "there"
    links = host.folder / "docker/registry/v2/repositories" / name / "_layers/sha256"
    (links / blob.digest.removeprefix("sha256:") / "link").write_bytes(b"")
    assert _planned(layer, repository, store).what == "send"


def test_layers_in_zstds_form_come_back_as_they_were(host: Host, name: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    image = machine.image("one", "two")

    def pushed() -> tuple[int, tuple[Descriptor, ...]]:
        target = client(f"{host}/{name}", machine.told)
        done = push(image, target, IMAGE_TAG, cache=machine.cache, compression="zstd", reporter=machine.told)
        return done.sent, done.layers

    sent, blobs = pushed()
    assert sent == len(image.layers)
    repository = client(f"{host}/{name}")
    found = repository.manifest(IMAGE_TAG)
    assert found is not None
    assert [one["mediaType"] for one in found.content["layers"]] == [OCI_TAR_ZSTD] * len(image.layers)
    assert found.content["config"]["digest"] == sha256_of(image.config)
    elsewhere = Cache(tmp_path / "elsewhere")
    for layer, blob in zip(image.layers, blobs, strict=True):
        assert host.blob_file(blob.digest).read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
        assert layer.path is not None
        got = fetch_layer(repository, blob, layer.diff_id, cache=elsewhere)
        assert got.read_bytes() == layer.path.read_bytes()
    assert pushed() == (0, blobs)
