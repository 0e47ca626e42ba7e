"""Attaching while others do the same, and manifests that are refused for blobs that were sent a moment ago."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_proxy import Action, Exchange, FaultProxy, change, error, first, status
from registry_client import Told, client, layer_file, small_image
from registry_server import Host

from himl_container.registry.client import RegistryClient
from himl_container.registry.model import (
    EMPTY_JSON,
    OCI_INDEX,
    OCI_MANIFEST,
    OCI_TAR_GZIP,
    Descriptor,
    canonical_json,
    sha256_of,
)
from himl_container.registry.refusals import MissingBlobsError

pytestmark = pytest.mark.registry

EMPTY = sha256_of(EMPTY_JSON)
DOCUMENT = b"document"
MANIFEST = "/manifests/sha256:"


def attach(repository: RegistryClient, subject: Descriptor, data: bytes = DOCUMENT) -> Descriptor:
    return repository.attach(subject, data, artifact_type="application/a", media_type="text/plain")


@pytest.fixture
def repository(proxy: FaultProxy, name: str, told: Told) -> RegistryClient:
    return client(f"{proxy.host}/{name}", told)


@pytest.fixture
def subject(host: Host, name: str) -> Descriptor:
    """An image to attach to, which the proxy has not seen."""
    repository = client(f"{host}/{name}")
    data = small_image(repository)
    return Descriptor(OCI_MANIFEST, repository.put_manifest(data, OCI_MANIFEST, "image"), len(data))


@pytest.fixture
def link(host: Host, name: str) -> Callable[[str], Path]:
    """Where the registry notes that the repository has a blob or (second) a manifest."""

    def of(digest: str, kind: str = "_layers") -> Path:
        folder = host.folder / "docker/registry/v2/repositories" / name / kind / "sha256"
        return folder / digest.removeprefix("sha256:") / "link"

    return of


def while_rewritten(path: Path) -> Action:
    """Let the registry see a request in the moment in which another client's upload has emptied a link of it."""

    def act(exchange: Exchange) -> None:
        kept = path.read_bytes()
        path.write_bytes(b"")
        reply = exchange.forward()
        path.write_bytes(kept)
        assert reply is not None
        assert reply.status == 400, reply.data
        assert b"MANIFEST_BLOB_UNKNOWN" in reply.data
        exchange.reply(reply)

    return act


def test_an_artifact_is_stored_though_another_client_sends_its_configuration_at_that_moment(
    proxy: FaultProxy,
    repository: RegistryClient,
    subject: Descriptor,
    told: Told,
    link: Callable[[str], Path],
) -> None:
    proxy.on("PUT", MANIFEST, while_rewritten(link(EMPTY)))
    attached = attach(repository, subject)
    assert repository.referrers(subject.digest) == (attached,)
    assert len(proxy.paths("POST")) == 2, "a blob that the registry has was sent again"
    assert told.pauses == [0.5]
    assert "refused it for blobs that it has" in told.lines[0]
    assert "try 2 of 6" in told.lines[0]


def test_an_image_is_stored_though_another_client_sends_its_layer_at_that_moment(
    proxy: FaultProxy,
    repository: RegistryClient,
    told: Told,
    link: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    layer = layer_file(tmp_path / "layer", 5000)
    repository.upload(tmp_path / "layer", layer)
    data = small_image(repository, layer)
    sent = len(proxy.paths("POST"))
    proxy.on("PUT", "/manifests/", while_rewritten(link(layer.digest)), times=2)
    assert repository.put_manifest(data, OCI_MANIFEST, "latest") == sha256_of(data)
    assert told.pauses == [0.5, 1.0]
    assert len(proxy.paths("POST")) == sent


def test_an_index_is_stored_though_another_client_stores_its_manifest_at_that_moment(
    proxy: FaultProxy, repository: RegistryClient, subject: Descriptor, told: Told, link: Callable[..., Path]
) -> None:
    revision = link(subject.digest, "_manifests/revisions")
    data = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [subject.as_json()]})
    proxy.on("PUT", "/manifests/", while_rewritten(revision))
    assert repository.put_manifest(data, OCI_INDEX, "index") == sha256_of(data)
    assert told.pauses == [0.5]


def test_a_blob_that_was_lost_after_it_was_sent_is_sent_again(
    proxy: FaultProxy, repository: RegistryClient, subject: Descriptor, link: Callable[[str], Path]
) -> None:
    lose = first(lambda: shutil.rmtree(link(sha256_of(DOCUMENT)).parent))
    proxy.on("PUT", MANIFEST, lose)
    attached = attach(repository, subject)
    assert repository.referrers(subject.digest) == (attached,)
    assert repository.blob(sha256_of(DOCUMENT)) == DOCUMENT
    assert len(proxy.paths("POST")) == 3


def test_a_blob_is_sent_whatever_the_registry_says_when_it_goes_on_missing_it(
    proxy: FaultProxy, repository: RegistryClient, subject: Descriptor, told: Told
) -> None:
    proxy.on("HEAD", EMPTY, status(200, headers={"Content-Length": "2"}), times=None)
    attached = attach(repository, subject)
    assert repository.referrers(subject.digest) == (attached,)
    assert repository.blob(EMPTY) == EMPTY_JSON
    assert told.pauses == [0.5, 1.0]


@pytest.mark.parametrize("named", [True, False])
def test_a_registry_that_never_takes_the_manifest_is_an_error_after_four_tries(
    proxy: FaultProxy, repository: RegistryClient, subject: Descriptor, told: Told, named: bool
) -> None:
    message = f"blob unknown to registry: {EMPTY}" if named else "blob unknown"
    proxy.on("PUT", MANIFEST, error(400, "MANIFEST_BLOB_UNKNOWN", message), times=None)
    with pytest.raises(MissingBlobsError, match="MANIFEST_BLOB_UNKNOWN"):
        attach(repository, subject)
    assert len(proxy.paths("PUT", MANIFEST)) == 4
    assert told.pauses == [0.5, 1.0, 2.0]


def test_a_blob_that_is_missing_and_cannot_be_sent_from_here_is_an_error_at_once(
    proxy: FaultProxy, repository: RegistryClient, told: Told
) -> None:
    missing = sha256_of(b"never sent")
    data = small_image(repository, Descriptor(OCI_TAR_GZIP, missing, 10))
    with pytest.raises(MissingBlobsError) as caught:
        repository.put_manifest(data, OCI_MANIFEST, "latest")
    assert caught.value.digests == (missing,)
    assert len(proxy.paths("PUT", "/manifests/")) == 1
    assert told.pauses == []


def test_digests_that_the_manifest_does_not_name_are_not_looked_at(
    proxy: FaultProxy, repository: RegistryClient, told: Told
) -> None:
    data = small_image(repository)
    looked_at = len(proxy.paths("HEAD"))
    others = " ".join(sha256_of(b"%d" % number) for number in range(50))
    proxy.on("PUT", "/manifests/", error(400, "MANIFEST_BLOB_UNKNOWN", others))
    with pytest.raises(MissingBlobsError):
        repository.put_manifest(data, OCI_MANIFEST, "latest")
    assert len(proxy.paths("HEAD")) == looked_at
    assert told.pauses == []


def test_a_blob_that_is_said_to_exist_is_missed_by_the_manifest(proxy: FaultProxy, repository: RegistryClient) -> None:
    missing = sha256_of(b"lost")
    proxy.on("HEAD", missing, status(200, headers={"Content-Length": "4"}), times=None)
    assert repository.blob_exists(missing)
    with pytest.raises(MissingBlobsError) as caught:
        repository.put_manifest(small_image(repository, Descriptor(OCI_TAR_GZIP, missing, 4)), OCI_MANIFEST, "latest")
    assert caught.value.digests == (missing,)


def test_attaching_at_the_same_time_keeps_both(proxy: FaultProxy, name: str, subject: Descriptor, told: Told) -> None:
    told.slowly = 0.1
    repositories = [client(f"{proxy.host}/{name}", told) for _ in range(2)]
    tag = subject.digest.replace(":", "-")
    both_read, both_written = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=60)
    proxy.on("GET", f"/manifests/{tag}", first(both_read.wait), times=2)
    proxy.on("PUT", f"/manifests/{tag}", change(lambda reply: both_written.wait()), times=2)

    def attached(number: int) -> str:
        with contextlib.ExitStack() as failing:
            for barrier in (both_read, both_written):
                failing.callback(barrier.abort)  # so that the other does not wait for one that failed
            digest = attach(repositories[number], subject, str(number).encode()).digest
            failing.pop_all()
        return digest

    with ThreadPoolExecutor(2) as pool:
        digests = set(pool.map(attached, range(2)))
    assert {one.digest for one in repositories[0].referrers(subject.digest)} == digests
    assert len(proxy.paths("PUT", f"/manifests/{tag}")) == 3


def test_threads_attach_one_after_the_other(
    proxy: FaultProxy, repository: RegistryClient, subject: Descriptor, told: Told
) -> None:
    told.slowly = 0.1
    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(lambda number: attach(repository, subject, b"%d" % number), range(4)))
    assert {one.digest for one in repository.referrers(subject.digest)} == {one.digest for one in entries}
    assert len(proxy.paths("PUT", "/manifests/sha256-")) == 4
