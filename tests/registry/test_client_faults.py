"""A registry that misbehaves: what can be done again is, the rest is an error in words, and nothing wrong is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import (
    Exchange,
    FaultProxy,
    Reply,
    change,
    cut_and_keep,
    cut_answer,
    cut_request,
    damage,
    drop,
    error,
    lose_answer,
    misbehaving,
    status,
    swallow,
)
from registry_client import Told, client, file_digest, layer_file, small_image
from registry_server import Host

from himl_container.errors import RegistryError
from himl_container.registry.model import OCI_INDEX, OCI_MANIFEST, OCI_TAR_GZIP, Descriptor, sha256_of

pytestmark = pytest.mark.registry
MIB = 1 << 20


@pytest.mark.parametrize("size", [700_000, 3 * MIB + 5])
def test_an_upload_that_is_cut_goes_on_where_the_registry_stopped(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path, size: int
) -> None:
    descriptor = layer_file(tmp_path / "layer", size, seed=size)
    repository = client(f"{proxy.host}/{name}", told, chunk=MIB)
    proxy.on("PATCH|PUT", cut_and_keep(proxy, after=400_000), skip=1 if size > MIB else 0)
    sent: list[int] = []
    repository.upload(tmp_path / "layer", descriptor, sent=sent.append)
    assert repository.blob_exists(descriptor.digest)
    assert sum(sent) == size
    assert sum(one.body for one in proxy.seen) == size, "what had arrived was sent again"
    assert len(told.pauses) == 1
    assert "try 2 of 6" in told.lines[0]


@pytest.mark.parametrize("size", [700_000, 3 * MIB + 5])
def test_only_the_chunk_that_was_lost_is_sent_again(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path, size: int
) -> None:
    descriptor = layer_file(tmp_path / "layer", size, seed=size + 1)
    repository = client(f"{proxy.host}/{name}", told, chunk=MIB)
    proxy.on("PATCH|PUT", swallow(after=400_000), skip=2 if size > MIB else 0)
    repository.upload(tmp_path / "layer", descriptor)
    assert repository.blob_exists(descriptor.digest)
    assert sum(one.body for one in proxy.seen) == size + 400_000
    assert len(proxy.paths("POST")) == 1


def test_an_upload_that_the_registry_drops_after_a_cut_begins_again(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path
) -> None:
    descriptor = layer_file(tmp_path / "layer", 3 * MIB)
    repository = client(f"{proxy.host}/{name}", told, chunk=MIB)
    proxy.on("PATCH", cut_request(after=400_000), skip=1)
    sent: list[int] = []
    repository.upload(tmp_path / "layer", descriptor, sent=sent.append)
    assert repository.blob_exists(descriptor.digest)
    assert (sum(sent), len(told.pauses), len(proxy.paths("POST"))) == (3 * MIB, 1, 2)


def test_an_upload_that_the_registry_forgot_begins_again(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path
) -> None:
    descriptor = layer_file(tmp_path / "layer", 2 * MIB)
    proxy.on("PATCH", error(404, "BLOB_UPLOAD_UNKNOWN"), skip=1)
    sent: list[int] = []
    client(f"{proxy.host}/{name}", told, chunk=MIB).upload(tmp_path / "layer", descriptor, sent=sent.append)
    assert len(proxy.paths("POST")) == 2
    assert (sum(sent), min(sent) < 0) == (2 * MIB, True)


def test_an_upload_whose_last_answer_is_lost_is_not_sent_again(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path
) -> None:
    descriptor = layer_file(tmp_path / "layer", MIB)
    proxy.on("PUT", lose_answer)
    repository = client(f"{proxy.host}/{name}", told)
    repository.upload(tmp_path / "layer", descriptor)
    assert sum(one.body for one in proxy.seen) == MIB
    assert repository.blob_exists(descriptor.digest)


def test_every_third_request_fails_and_everything_arrives(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path
) -> None:
    for number, (fault, chunk) in enumerate([(status(500), MIB), (drop, MIB), (lose_answer, 4 * MIB)]):
        proxy.behave()
        proxy.every(3, fault)
        descriptor = layer_file(tmp_path / "layer", 3 * MIB + number, seed=number)
        repository = client(f"{proxy.host}/{name}", told, chunk=chunk)
        repository.upload(tmp_path / "layer", descriptor)
        data = small_image(repository, descriptor, seed=number)
        digest = repository.put_manifest(data, OCI_MANIFEST, "latest")
        found = repository.head("latest")
        assert found is not None
        assert found.digest == digest
        repository.download(descriptor, tmp_path / "got")
        assert file_digest(tmp_path / "got") == descriptor.digest
    assert told.pauses


def test_a_registry_that_always_fails_is_an_error_after_six_tries(proxy: FaultProxy, name: str, told: Told) -> None:
    proxy.on(".*", error(500, "UNKNOWN", "disk is full"), times=None)
    repository = client(f"{proxy.host}/{name}", told)
    with pytest.raises(RegistryError, match="tried 6 times: the registry answered 500, UNKNOWN: disk is full"):
        repository.manifest("latest")
    assert told.pauses == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert len(told.lines) == 5


def test_an_upload_that_never_gets_further_ends(proxy: FaultProxy, name: str, told: Told, tmp_path: Path) -> None:
    descriptor = layer_file(tmp_path / "layer", 3 * MIB)
    proxy.on("PATCH", f"{name}", cut_request(after=100_000), times=None, skip=1, every=2)
    with pytest.raises(RegistryError, match=r"the connection was cut|BLOB_UPLOAD"):
        client(f"{proxy.host}/{name}", told, chunk=MIB).upload(tmp_path / "layer", descriptor)
    assert len(told.pauses) == 5


def test_an_upload_into_a_full_registry_is_an_error(proxy: FaultProxy, name: str, told: Told, tmp_path: Path) -> None:
    descriptor = layer_file(tmp_path / "layer", 2 * MIB)
    proxy.on("PATCH", error(500, "UNKNOWN", "no space left on device"), times=None)
    repository = client(f"{proxy.host}/{name}", told, chunk=MIB)
    with pytest.raises(RegistryError, match="no space left on device"):
        repository.upload(tmp_path / "layer", descriptor)
    assert not repository.blob_exists(descriptor.digest)
    proxy.behave()
    proxy.on("POST", status(507))
    with pytest.raises(RegistryError) as caught:
        repository.upload(tmp_path / "layer", descriptor)
    assert "disk is full" in caught.value.hint


def test_a_full_registry_that_cannot_even_be_asked_afterwards_is_an_error_that_says_so(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path
) -> None:
    descriptor = layer_file(tmp_path / "layer", 50_000)
    repository = client(f"{proxy.host}/{name}", told)

    def full(exchange: Exchange) -> None:
        exchange.forward()
        proxy.on("HEAD", status(500), times=None)
        error(500, "UNKNOWN", "no space left on device")(exchange)

    proxy.on("PUT", full)
    with pytest.raises(RegistryError, match=r"Look-up.* answered 500; .*no space left on device") as caught:
        repository.upload(tmp_path / "layer", descriptor)
    assert "disk is full" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "pause"),
    [("7", 7.0), ("0", 0.0), ("Thu, 01 Jan 2026 00:00:40 GMT", 40.0), ("999999", 120.0), ("soon", 0.5), ("-1", 0.5)],
)
def test_retry_after_is_kept(proxy: FaultProxy, name: str, told: Told, value: str, pause: float) -> None:
    proxy.on("HEAD", status(429, headers={"Retry-After": value}))
    assert client(f"{proxy.host}/{name}", told).head("latest") is None
    assert told.pauses == [pause]
    assert "429" in told.lines[0]


def test_too_many_requests_to_the_end_is_never_not_found(proxy: FaultProxy, name: str, told: Told) -> None:
    proxy.on(".*", status(429, headers={"Retry-After": "1"}), times=None)
    repository = client(f"{proxy.host}/{name}", told)
    for ask in (repository.head, repository.manifest):
        with pytest.raises(RegistryError, match="429"):
            ask("latest")
    with pytest.raises(RegistryError, match="429"):
        repository.blob_exists(sha256_of(b"x"))
    assert set(told.pauses) == {1.0}


@pytest.mark.parametrize("code", [400, 401, 403, 409, 418])
def test_other_answers_are_errors_at_once(proxy: FaultProxy, name: str, told: Told, code: int) -> None:
    proxy.on("HEAD|GET", error(code, "DENIED", "not you"), times=None)
    repository = client(f"{proxy.host}/{name}", told)
    for ask in (repository.manifest, repository.blob_exists):
        with pytest.raises(RegistryError):
            ask(sha256_of(b"x"))  # type: ignore[operator]
    assert told.pauses == []


def test_a_registry_that_is_not_there_is_an_error(told: Told) -> None:
    with pytest.raises(RegistryError, match="no connection: Connection refused"):
        client("127.0.0.1:1/himl/x", told).head("latest")  # a port that the system gives to nobody
    with pytest.raises(RegistryError, match="name is not known"):
        client("registry.invalid/himl/x", told).head("latest")


@pytest.mark.parametrize("size", [MIB, 5 * MIB])
def test_a_download_that_is_cut_goes_on(proxy: FaultProxy, name: str, told: Told, tmp_path: Path, size: int) -> None:
    descriptor = layer_file(tmp_path / "layer", size, seed=size)
    repository = client(f"{proxy.host}/{name}", told)
    repository.upload(tmp_path / "layer", descriptor)
    proxy.on("GET", "/blobs/", cut_answer(after=300_000), times=3)
    received: list[int] = []
    repository.download(descriptor, tmp_path / "got", received=received.append)
    assert file_digest(tmp_path / "got") == descriptor.digest
    assert sum(received) == size
    ranges = [one.headers.get("range") for one in proxy.seen if one.method == "GET"]
    assert ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_download_goes_on_where_the_registry_knows_no_ranges(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path
) -> None:
    descriptor = layer_file(tmp_path / "layer", MIB)
    repository = client(f"{proxy.host}/{name}", told)
    repository.upload(tmp_path / "layer", descriptor)

    def whole(exchange: Exchange) -> None:
        del exchange.handler.headers["Range"]
        exchange.pass_on()

    proxy.on("GET", "/blobs/", whole, times=None)
    proxy.on("GET", "/blobs/", cut_answer(after=300_000))
    repository.download(descriptor, tmp_path / "got")
    assert file_digest(tmp_path / "got") == descriptor.digest


def _other_bytes(reply: Reply) -> None:
    reply.data = bytes(byte ^ 1 for byte in reply.data)


def _more_bytes(reply: Reply) -> None:
    reply.data += b"x" * 100_000


def _another_part(reply: Reply) -> None:
    reply.status = 206
    reply.set("Content-Range", "bytes 5-9/10")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (_other_bytes, "What the registry gives as"),
        (_more_bytes, "bytes in the registry, not"),
        (_another_part, "another part of a blob"),
    ],
)
def test_a_blob_that_is_another_is_not_kept(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path, how: Any, message: str
) -> None:
    descriptor = layer_file(tmp_path / "layer", 50_000)
    repository = client(f"{proxy.host}/{name}", told)
    repository.upload(tmp_path / "layer", descriptor)
    proxy.on("GET", "/blobs/", change(how), times=None)
    with pytest.raises(RegistryError, match=message):
        repository.download(descriptor, tmp_path / "got")
    with pytest.raises(RegistryError, match=message):
        b"".join(repository.stream(descriptor))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layer"]
    assert told.pauses == []


def test_a_small_blob_that_is_another_is_not_taken(proxy: FaultProxy, name: str) -> None:
    repository = client(f"{proxy.host}/{name}")
    digest = repository.upload_bytes(b"document")
    proxy.on("GET", "/blobs/", change(_other_bytes))
    with pytest.raises(RegistryError, match="What the registry gives as"):
        repository.blob(digest)


def test_a_body_that_is_damaged_on_its_way_is_sent_again(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path
) -> None:
    descriptor = layer_file(tmp_path / "layer", 50_000)
    proxy.on("PUT", damage)
    repository = client(f"{proxy.host}/{name}", told)
    repository.upload(tmp_path / "layer", descriptor)
    assert len(proxy.paths("POST")) == 2
    assert "DIGEST_INVALID" in told.lines[0]
    (tmp_path / "layer").write_bytes(b"x" * 50_000)
    with pytest.raises(RegistryError, match="not what it should be"):
        repository.upload(tmp_path / "layer", Descriptor(OCI_TAR_GZIP, sha256_of(b"other"), 50_000))


def test_an_upload_that_the_registry_stores_under_another_digest_is_an_error(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path
) -> None:
    descriptor = layer_file(tmp_path / "layer", 50_000)
    repository = client(f"{proxy.host}/{name}", told)
    proxy.on("PUT", change(lambda reply: reply.set("Docker-Content-Digest", sha256_of(b"other"))))
    with pytest.raises(RegistryError, match="stored sha256"):
        repository.upload(tmp_path / "layer", descriptor)


@pytest.mark.parametrize("size", [None, 49_999])
def test_an_upload_that_the_registry_says_to_have_but_does_not_is_an_error(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path, size: int | None
) -> None:
    descriptor = layer_file(tmp_path / "layer", 50_000)
    repository = client(f"{proxy.host}/{name}", told)

    def pretend(exchange: Exchange) -> None:
        exchange.body()
        exchange.reply(Reply(201, [], b""))

    proxy.on("PUT", pretend)
    if size is not None:
        proxy.on("HEAD", status(200, headers={"Content-Length": str(size)}))
    with pytest.raises(RegistryError, match="The registry took"):
        repository.upload(tmp_path / "layer", descriptor)


@pytest.mark.parametrize(
    "place",
    [
        "http://127.0.0.1:1/v2/upload",
        "https://elsewhere.invalid/upload",
        "//elsewhere.invalid/upload",
        "file:///etc/passwd",
        "",
        "http://user:word@{host}/v2/upload",
        "http://{host}/v2/a b",
    ],
)
def test_a_layer_is_only_sent_to_the_registry_itself(
    proxy: FaultProxy, name: str, told: Told, tmp_path: Path, place: str
) -> None:
    descriptor = layer_file(tmp_path / "layer", 2 * MIB)
    repository = client(f"{proxy.host}/{name}", told, chunk=MIB)
    proxy.on("POST", change(lambda reply: reply.set("Location", place.format(host=proxy.host))))
    with pytest.raises(RegistryError, match=r"Location|not itself") as caught:
        repository.upload(tmp_path / "layer", descriptor)
    assert [one.method for one in proxy.seen] == ["POST"]
    assert "word" not in str(caught.value)


def test_a_relative_location_is_followed(proxy: FaultProxy, name: str, tmp_path: Path) -> None:
    descriptor = layer_file(tmp_path / "layer", 2 * MIB)
    repository = client(f"{proxy.host}/{name}", chunk=MIB)

    def relative(reply: Reply) -> None:
        reply.set("Location", reply.header("Location").removeprefix(f"http://{proxy.host}"))

    proxy.on("POST|PATCH", change(relative), times=None)
    repository.upload(tmp_path / "layer", descriptor)
    assert repository.blob_exists(descriptor.digest)


def test_a_download_from_a_blob_store_does_not_carry_the_login(
    host: Host, proxy: FaultProxy, name: str, tmp_path: Path
) -> None:
    from himl_container.registry.client import RegistryClient
    from himl_container.registry.credentials import Credentials

    descriptor = layer_file(tmp_path / "layer", MIB)
    client(f"{host}/{name}").upload(tmp_path / "layer", descriptor)
    environ = {
        "HIML_CONTAINER_REGISTRY_USER": "ada",
        "HIML_CONTAINER_REGISTRY_PASSWORD": "secret",
        "HIML_CONTAINER_REGISTRY_HOST": proxy.host,
    }

    def guarded(exchange: Exchange) -> None:
        if "Authorization" not in exchange.handler.headers:
            exchange.reply(Reply(401, [("WWW-Authenticate", 'Basic realm="test"')], b""))
            return
        exchange.reply(Reply(307, [("Location", f"http://{store.host}{exchange.path}?signature=hidden")], b""))

    with misbehaving(host) as store:
        proxy.on("GET", "/blobs/", guarded, times=None)
        store.on("GET", cut_answer(after=1000))
        told = Told()
        repository = RegistryClient.connect(
            f"{proxy.host}/{name}",
            credentials=Credentials.of(environ, workspace=()),
            environ=environ,
            patience=told.patience,
        )
        repository.download(descriptor, tmp_path / "got")
        assert file_digest(tmp_path / "got") == descriptor.digest
        assert [one.headers.get("authorization") for one in store.seen] == [None, None]
        assert "hidden" not in " ".join(told.lines)
        store.on("GET", status(403), times=None)
        with pytest.raises(RegistryError, match="403") as caught:
            repository.download(descriptor, tmp_path / "again")
        assert "hidden" not in str(caught.value)


def test_endless_redirects_end(proxy: FaultProxy, name: str) -> None:
    proxy.on("GET", change(lambda reply: None), times=None)
    proxy.on("GET", status(307, headers={"Location": "/v2/round/blobs/again"}), times=None)
    with pytest.raises(RegistryError, match="redirects more than"):
        client(f"{proxy.host}/{name}").blob(sha256_of(b"x"))
    assert len(proxy.seen) <= 6


def _other_digest(reply: Reply) -> None:
    reply.set("Docker-Content-Digest", sha256_of(b"other"))


def _no_digest(reply: Reply) -> None:
    reply.set("Docker-Content-Digest", None)


def _another_type(reply: Reply) -> None:
    reply.set("Content-Type", OCI_INDEX)


def _both(reply: Reply) -> None:
    reply.data = json.dumps({**json.loads(reply.data), "manifests": []}).encode()
    reply.set("Docker-Content-Digest", None)


def _too_large(reply: Reply) -> None:
    reply.data = b" " * (4 * MIB) + reply.data


def _no_json(reply: Reply) -> None:
    reply.data = b"[" * 100_000
    reply.set("Docker-Content-Digest", None)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (_other_bytes, "What the registry gives as"),
        (_other_digest, "What the registry gives as"),
        (_another_type, "says that it is"),
        (_both, "image and an index at once"),
        (_too_large, "larger than"),
        (_no_json, "no JSON"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(proxy: FaultProxy, name: str, how: Any, message: str) -> None:
    repository = client(f"{proxy.host}/{name}")
    repository.put_manifest(small_image(repository), OCI_MANIFEST, "latest")
    proxy.on("GET", "/manifests/", change(how))
    with pytest.raises(RegistryError, match=message):
        repository.manifest("latest")


def test_a_head_without_a_digest_is_asked_in_full(proxy: FaultProxy, name: str) -> None:
    repository = client(f"{proxy.host}/{name}")
    data = small_image(repository)
    digest = repository.put_manifest(data, OCI_MANIFEST, "latest")
    proxy.on("HEAD", "/manifests/", change(_no_digest))
    assert repository.head("latest") == Descriptor(OCI_MANIFEST, digest, len(data))
    proxy.on("HEAD", "/manifests/", change(_other_digest))
    with pytest.raises(RegistryError, match="What the registry gives as"):
        repository.head(digest)


def test_a_manifest_that_is_stored_as_another_is_noticed(proxy: FaultProxy, name: str) -> None:
    repository = client(f"{proxy.host}/{name}")
    data, other = small_image(repository), small_image(repository, seed=1)
    proxy.on("PUT", "/manifests/", change(_other_digest))
    with pytest.raises(RegistryError, match="stored the manifest as"):
        repository.put_manifest(data, OCI_MANIFEST, "latest")

    def overwritten(reply: Reply) -> None:
        repository.sibling(name).put_manifest(other, OCI_MANIFEST, "latest")
        _no_digest(reply)

    proxy.on("PUT", "/manifests/", change(overwritten))
    with pytest.raises(RegistryError, match="somebody else pushed the same tag"):
        repository.put_manifest(data, OCI_MANIFEST, "latest")


def test_what_raises_in_progress_ends_the_upload(proxy: FaultProxy, name: str, told: Told, tmp_path: Path) -> None:
    descriptor = layer_file(tmp_path / "layer", 3 * MIB)
    repository = client(f"{proxy.host}/{name}", told, chunk=MIB)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repository.upload(tmp_path / "layer", descriptor, sent=interrupt)
    assert not repository.blob_exists(descriptor.digest)
    repository.upload(tmp_path / "layer", descriptor)
    assert repository.blob_exists(descriptor.digest)
    assert told.pauses == []
