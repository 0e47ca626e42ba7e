"""The client against a real registry: what goes in comes out, and nothing is sent that is there."""

from __future__ import annotations

import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_proxy import FaultProxy, with_referrers_api
from registry_client import Told, client, file_digest, layer_file, small_image
from registry_server import Host, registry

from himl_container.errors import InputError, RegistryError, StorageError
from himl_container.registry.api import connect
from himl_container.registry.client import RegistryClient
from himl_container.registry.credentials import Credentials
from himl_container.registry.model import OCI_INDEX, OCI_MANIFEST, OCI_TAR_GZIP, Descriptor, sha256_of
from himl_container.registry.refusals import MissingBlobsError

pytestmark = pytest.mark.registry
MIB = 1 << 20


def test_an_empty_registry_has_nothing(host: Host, name: str) -> None:
    repository = client(f"{host}/{name}")
    assert repository.head("latest") is None
    assert repository.manifest("latest") is None
    assert not repository.blob_exists(sha256_of(b"nothing"))
    assert repository.referrers(sha256_of(b"nothing")) == ()
    assert (repository.host, repository.name) == (host, name)


@pytest.mark.parametrize("size", [0, 1, 300_000, MIB, MIB + 1, 3 * MIB, 3 * MIB + 17])
def test_a_blob_comes_back_as_it_was_sent(host: Host, name: str, tmp_path: Path, size: int) -> None:
    descriptor = layer_file(tmp_path / "layer", size, seed=size)
    repository = client(f"{host}/{name}", chunk=MIB)
    sent: list[int] = []
    repository.upload(tmp_path / "layer", descriptor, sent=sent.append)
    assert sum(sent) == size
    assert repository.blob_exists(descriptor.digest)
    received: list[int] = []
    repository.download(descriptor, tmp_path / "got", received=received.append)
    assert sum(received) == size
    assert file_digest(tmp_path / "got") == descriptor.digest
    assert b"".join(repository.stream(descriptor)) == repository.blob(descriptor.digest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["got", "layer"]


def test_a_small_blob_takes_three_requests_and_a_large_one_goes_in_chunks(
    proxy: FaultProxy, name: str, tmp_path: Path
) -> None:
    repository = client(f"{proxy.host}/{name}", chunk=MIB)
    repository.upload(tmp_path / "small", layer_file(tmp_path / "small", MIB, seed=1))
    assert [one.method for one in proxy.seen] == ["POST", "PUT", "HEAD"]
    proxy.seen.clear()
    repository.upload(tmp_path / "large", layer_file(tmp_path / "large", 2 * MIB + 1, seed=2))
    assert [one.method for one in proxy.seen] == ["POST", "PATCH", "PATCH", "PATCH", "PUT", "HEAD"]
    ranges = [one.headers["content-range"] for one in proxy.seen if one.method == "PATCH"]
    assert ranges == [f"0-{MIB - 1}", f"{MIB}-{2 * MIB - 1}", f"{2 * MIB}-{2 * MIB}"]
    assert repository.requests == 9


def test_the_smallest_chunk_of_the_registry_is_kept(proxy: FaultProxy, name: str, tmp_path: Path) -> None:
    from fault_proxy import change

    proxy.on("POST", change(lambda reply: reply.set("OCI-Chunk-Min-Length", str(2 * MIB))))
    repository = client(f"{proxy.host}/{name}", chunk=MIB)
    repository.upload(tmp_path / "layer", layer_file(tmp_path / "layer", 5 * MIB))
    assert [one.body for one in proxy.seen if one.method == "PATCH"] == [2 * MIB, 2 * MIB, MIB]


def test_bytes_are_sent_once(host: Host, name: str) -> None:
    repository = client(f"{host}/{name}")
    digest = repository.upload_bytes(b"some document")
    before = repository.requests
    assert repository.upload_bytes(b"some document") == digest
    assert repository.requests == before + 1
    assert repository.blob(digest) == b"some document"
    with pytest.raises(RegistryError, match="larger than 4 bytes"):
        repository.blob(digest, limit=4)


def test_a_blob_is_mounted_where_another_repository_has_it(proxy: FaultProxy, name: str) -> None:
    repository = client(f"{proxy.host}/{name}")
    digest = repository.upload_bytes(b"shared")
    other = repository.sibling(f"{name}-other")
    assert not other.blob_exists(digest)
    assert other.mount(digest, name)
    assert other.blob(digest) == b"shared"
    assert other.requests == repository.requests == len(proxy.seen)


def test_an_upload_goes_on_with_what_the_registry_began_instead_of_a_mount(
    proxy: FaultProxy, name: str, tmp_path: Path
) -> None:
    descriptor = layer_file(tmp_path / "layer", 1000)
    repository = client(f"{proxy.host}/{name}")
    assert not repository.mount(descriptor.digest, f"{name}-nowhere")
    repository.upload(tmp_path / "layer", descriptor)
    assert repository.blob_exists(descriptor.digest)
    assert [one.method for one in proxy.seen] == ["POST", "PUT", "HEAD", "HEAD"]


def test_an_image_is_found_by_tag_and_digest(host: Host, name: str, tmp_path: Path) -> None:
    repository = client(f"{host}/{name}")
    layer = layer_file(tmp_path / "layer", 5000)
    repository.upload(tmp_path / "layer", layer)
    data = small_image(repository, layer)
    digest = repository.put_manifest(data, OCI_MANIFEST, "1.0")
    assert digest == sha256_of(data)
    expected = Descriptor(OCI_MANIFEST, digest, len(data))
    assert repository.head("1.0") == repository.head(digest) == expected
    found = repository.manifest("1.0")
    assert found is not None
    assert (found.data, found.descriptor, found.content["layers"]) == (data, expected, [layer.as_json()])
    assert repository.manifest("2.0") is None


def test_a_manifest_without_its_blobs_is_refused_and_they_are_named(host: Host, name: str) -> None:
    repository = client(f"{host}/{name}")
    missing = sha256_of(b"never sent")
    data = small_image(repository, Descriptor(OCI_TAR_GZIP, missing, 10))
    with pytest.raises(MissingBlobsError, match="MANIFEST_BLOB_UNKNOWN") as caught:
        repository.put_manifest(data, OCI_MANIFEST, "broken")
    assert caught.value.digests == (missing,)
    assert repository.head("broken") is None


def test_a_manifest_is_only_stored_under_its_own_digest(host: Host, name: str) -> None:
    with pytest.raises(RegistryError, match="was to be stored as"):
        client(f"{host}/{name}").put_manifest(b"{}", OCI_MANIFEST, sha256_of(b"other"))


@pytest.mark.parametrize("api", [False, True])
def test_documents_are_attached_and_found(proxy: FaultProxy, name: str, api: bool) -> None:
    if api:
        with_referrers_api(proxy, page=1)
    repository = client(f"{proxy.host}/{name}")
    data = small_image(repository)
    subject = Descriptor(OCI_MANIFEST, repository.put_manifest(data, OCI_MANIFEST, "image"), len(data))
    kinds = ("application/vnd.cyclonedx+json", "application/vnd.test.lock")
    attached = [
        repository.attach(subject, f"a {kind}".encode(), artifact_type=kind, media_type=kind, annotations={"k": "v"})
        for kind in kinds
    ]
    assert sorted(repository.referrers(subject.digest), key=lambda one: one.artifact_type) == attached
    assert repository.referrers(subject.digest, kinds[1]) == (attached[1],)
    assert attached[0].annotations == {"k": "v"}
    found = repository.manifest(attached[0].digest)
    assert found is not None
    assert found.content["subject"] == subject.as_json()
    assert repository.blob(found.content["layers"][0]["digest"]) == f"a {kinds[0]}".encode()
    stand_in = repository.manifest(subject.digest.replace(":", "-"))
    assert (stand_in is None) == api


def test_attaching_again_changes_nothing_and_keeps_entries_of_others(host: Host, name: str) -> None:
    repository = client(f"{host}/{name}")
    data = small_image(repository)
    subject = Descriptor(OCI_MANIFEST, repository.put_manifest(data, OCI_MANIFEST, "image"), len(data))
    tag = subject.digest.replace(":", "-")
    options = {"artifact_type": "application/a", "media_type": "text/plain"}
    repository.attach(subject, b"one", **options)
    first = repository.manifest(tag)
    assert first is not None
    repository.attach(subject, b"one", **options)
    again = repository.manifest(tag)
    assert again is not None
    assert again.digest == first.digest
    foreign = {**first.content, "annotations": {"by": "another tool"}}
    foreign["manifests"][0]["x-other"] = 1
    import json

    repository.put_manifest(json.dumps(foreign).encode(), OCI_INDEX, tag)
    repository.attach(subject, b"two", **options)
    last = repository.manifest(tag)
    assert last is not None
    assert last.content["annotations"] == {"by": "another tool"}
    assert [one.get("x-other") for one in last.content["manifests"]].count(1) == 1
    assert len(repository.referrers(subject.digest)) == 2


def test_the_missing_referrers_api_is_asked_for_once(proxy: FaultProxy, name: str) -> None:
    repository = client(f"{proxy.host}/{name}")
    for text in (b"a", b"b"):
        assert repository.referrers(sha256_of(text)) == ()
    assert len(proxy.paths("GET", "/referrers/")) == 1


def test_many_threads_share_the_connections(host: Host, name: str, tmp_path: Path) -> None:
    repository = client(f"{host}/{name}", chunk=MIB)

    def there_and_back(number: int) -> str:
        path = tmp_path / str(number)
        descriptor = layer_file(path, 1_500_000 + number, seed=number)
        repository.upload(path, descriptor)
        repository.download(descriptor, tmp_path / f"{number}.got")
        assert file_digest(tmp_path / f"{number}.got") == descriptor.digest
        return descriptor.digest

    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(there_and_back, range(12)))
    assert len(set(digests)) == 12
    assert repository.requests == 12 * (1 + 2 + 1 + 1 + 1)


def test_memory_does_not_grow_with_the_layer(host: Host, name: str, tmp_path: Path) -> None:
    size = 96 * MIB
    with (tmp_path / "layer").open("wb") as file:
        file.truncate(size)
    descriptor = Descriptor(OCI_TAR_GZIP, file_digest(tmp_path / "layer"), size)
    repository = client(f"{host}/{name}")
    tracemalloc.start()
    repository.upload(tmp_path / "layer", descriptor)
    repository.download(descriptor, tmp_path / "got")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * MIB
    assert (tmp_path / "got").stat().st_size == size


def test_a_registry_with_tls_on_this_machine_is_found_with_one_request(tmp_path: Path) -> None:
    with registry(tmp_path, tls=True) as host:
        secure = client(f"{host}/himl/x", environ={"SSL_CERT_FILE": str(host.ca)})
        assert secure.head("latest") is None
        assert secure.requests == 2
        assert secure.head("latest") is None
        assert secure.requests == 3
        with pytest.raises(RegistryError, match="certificate is not trusted") as caught:
            client(f"{host}/himl/x").head("latest")
        assert "SSL_CERT_FILE" in caught.value.hint


def test_certificates_are_found_where_docker_finds_them(tmp_path: Path) -> None:
    with registry(tmp_path / "registry", tls=True) as host:
        folder = tmp_path / "certs.d" / host
        folder.mkdir(parents=True)
        assert host.ca is not None
        (folder / "ca.crt").write_bytes(host.ca.read_bytes())
        repository = RegistryClient.connect(
            f"{host}/himl/x", credentials=Credentials(()), environ={}, certificates=tmp_path / "certs.d"
        )
        assert repository.head("latest") is None
        (folder / "ca.crt").write_text("no certificate")
        broken = RegistryClient.connect(
            f"{host}/himl/x", credentials=Credentials(()), environ={}, certificates=tmp_path / "certs.d"
        )
        with pytest.raises(InputError, match=r"certs\.d"):
            broken.head("latest")


def test_a_read_only_registry_says_so(tmp_path: Path, told: Told) -> None:
    with registry(tmp_path, readonly=True) as host:
        with pytest.raises(RegistryError, match="405") as caught:
            client(f"{host}/himl/x", told).upload_bytes(b"data")
        assert "read-only" in caught.value.hint
    assert told.pauses == []


def test_a_login_is_used(tmp_path: Path) -> None:
    with registry(tmp_path, htpasswd={"ada": "secret"}) as host:
        environ = {
            "HIML_CONTAINER_REGISTRY_USER": "ada",
            "HIML_CONTAINER_REGISTRY_PASSWORD": "secret",
            "HIML_CONTAINER_REGISTRY_HOST": str(host),
            "HOME": str(tmp_path),
        }
        repository = connect(f"{host}/himl/x", environ=environ)
        assert repository.blob(repository.upload_bytes(b"data")) == b"data"
        assert repository.requests == 1 + 4 + 1
        refused = connect(f"{host}/himl/x", environ={**environ, "HIML_CONTAINER_REGISTRY_PASSWORD": "wrong-one"})
        with pytest.raises(RegistryError) as caught:
            refused.head("latest")
        assert "wrong-one" not in str(caught.value)


def test_a_file_that_cannot_be_read_or_written_is_named(host: Host, name: str, tmp_path: Path) -> None:
    repository = client(f"{host}/{name}")
    descriptor = layer_file(tmp_path / "layer", 1000)
    with pytest.raises(StorageError, match="missing"):
        repository.upload(tmp_path / "missing", descriptor)
    with (tmp_path / "layer").open("r+b") as file:
        file.truncate(500)
    with pytest.raises(StorageError, match="became shorter"):
        repository.upload(tmp_path / "layer", descriptor)
    repository.upload_bytes(b"data")
    with pytest.raises(StorageError, match="nowhere"):
        repository.download(Descriptor("text/plain", sha256_of(b"data"), 4), tmp_path / "nowhere" / "file")


def test_nothing_is_sent_before_it_is_needed(tmp_path: Path) -> None:
    assert connect("registry.invalid/himl/x", environ=dict(os.environ)).requests == 0


def test_after_stop_no_request_begins(host: Host, name: str) -> None:
    repository = client(f"{host}/{name}")
    repository.stop()
    with pytest.raises(RegistryError, match="Stopped"):
        repository.sibling("other").head("latest")
    assert repository.requests == 0
