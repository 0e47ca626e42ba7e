"""Whole pushes to a real registry that misbehaves. After each fault the tag is the old whole image, or the new one.

What the client makes of each fault is in ``test_client_faults.py``; here it is what becomes of an image.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote

import kit
import pytest
from fault_proxy import (
    Action,
    Exchange,
    FaultProxy,
    change,
    cut_request,
    damage,
    drop,
    error,
    first,
    lose_answer,
    misbehaving,
    status,
    swallow,
)
from registry_client import Told, client, file_digest
from registry_server import Host, registry
from token_server import TokenServer, token_server
from whole_pushes import MIB, TAG, Machine, blobs_at, image_at, image_of

from himl_container.errors import RegistryError
from himl_container.publish.model import Pushed, PushImage, PushLayer, RemoteBlob
from himl_container.registry.client import RegistryClient
from himl_container.registry.credentials import Credentials
from himl_container.registry.model import EMPTY_JSON, Descriptor, sha256_of

pytestmark = pytest.mark.registry

PASSWORD = "the password of the test"
UPLOAD = "/blobs/uploads/"
LAYERS = tuple(f"new {number}" for number in range(5))


@dataclass
class Scene:
    """A tag that has an image, and a machine that is about to give it another one through a proxy.

    The base is in the registry already, the other layers are not.
    """

    host: Host
    proxy: FaultProxy
    name: str
    machine: Machine
    old: PushImage
    new: PushImage
    was: Pushed

    def push(self, **more: object) -> Pushed:
        """Push the new image through the proxy."""
        return self.machine.push(self.new, f"{self.proxy.host}/{self.name}", before=self.was.manifest, **more)  # type: ignore[arg-type]

    def is_old(self) -> bool:
        """Whether the tag is the old image, whole."""
        return image_at(self.host, self.name) == sha256_of(self.old.config)

    def is_new(self) -> bool:
        """Whether the tag is the new image, whole."""
        return image_at(self.host, self.name) == sha256_of(self.new.config)

    def fails(self, match: str) -> None:
        """Push: it has to be an error, nothing may be left in the cache, and the old image has to be whole."""
        with pytest.raises(RegistryError, match=match):
            self.push()
        assert self.is_old()
        assert self.machine.leftovers() == []

    def recovers(self) -> Pushed:
        """Push without any fault: only the blobs that the registry lacks are sent, and the new image is whole."""
        self.proxy.behave()
        self.proxy.rest()
        self.proxy.seen.clear()
        there = blobs_at(self.host, self.name)
        pushed = self.push()
        config = {sha256_of(self.new.config): len(self.new.config)}
        rest = {**{one.digest: one.size for one in pushed.layers}, **config}
        missing = sum(size for digest, size in rest.items() if digest not in there)
        assert sum(one.body for one in self.proxy.seen) == missing + 2 * pushed.manifest.size == pushed.bytes_sent
        assert self.is_new()
        return pushed


def scene_of(host: Host, proxy: FaultProxy, name: str, folder: Path) -> Scene:
    """Set the scene; the old image goes into the registry without any fault."""
    machine = Machine(folder / "machine")
    old, new = machine.image("old"), machine.image(*LAYERS)
    return Scene(host, proxy, name, machine, old, new, machine.push(old, f"{host}/{name}"))


@pytest.fixture
def scene(host: Host, proxy: FaultProxy, name: str, tmp_path: Path) -> Scene:
    return scene_of(host, proxy, name, tmp_path)


# Connections


@pytest.mark.parametrize("fault", [swallow(after=100_000), cut_request(after=100_000), lose_answer])
@pytest.mark.parametrize("size", [300_000, MIB + 300_000])
def test_blobs_that_are_cut_in_their_middle_arrive(scene: Scene, fault: Action, size: int) -> None:
    scene.new = scene.machine.image(*LAYERS, size=size)
    scene.proxy.on("PATCH|PUT", UPLOAD, fault, times=4)
    pushed = scene.push()
    assert scene.is_new()
    # What had not arrived is sent again, and nothing else. (A lost answer is to a whole blob; a cut one is begun again,
    # and Debian's registry may need a moment to give the broken one up.)
    assert pushed.bytes_sent <= sum(one.size for one in pushed.layers[1:]) + 5 * (size + 300) + 5000


def test_a_line_that_always_breaks_is_an_error_and_the_next_push_sends_the_rest(scene: Scene) -> None:
    scene.proxy.on("PUT", UPLOAD, swallow(after=100_000), times=None, skip=3)
    scene.fails("tried 6 times")
    pushed = scene.recovers()
    assert 0 < pushed.sent < len(LAYERS)


@pytest.mark.parametrize("fault", [status(500), status(503), status(408), drop, lose_answer])
def test_every_third_request_fails(scene: Scene, fault: Action) -> None:
    scene.proxy.every(3, fault)
    pushed = scene.push()
    assert scene.is_new()
    assert pushed.sent == len(LAYERS)
    assert len(scene.machine.told.pauses) >= len(scene.proxy.seen) // 3 - 1


# Refusals


class Guarded:
    """A registry that wants tokens, between a proxy and a server that gives them; tokens run out on demand."""

    def __init__(self, scene: Scene, tokens: TokenServer) -> None:
        self.scene = scene
        self.tokens = tokens
        self._over: set[str] = set()
        scene.proxy.on(".*", self._pass, times=None)

    def run_out(self) -> None:
        """Make the registry refuse every token that was given so far."""
        self._over.update(self.tokens.issued)

    def _pass(self, exchange: Exchange) -> None:
        # The registry itself refuses: what comes without a token gets its 401 and its challenge.
        if exchange.seen.headers.get("authorization", "").removeprefix("Bearer ") in self._over:
            del exchange.handler.headers["Authorization"]
        exchange.pass_on()

    def repository(self) -> RegistryClient:
        """Return the scene's repository, with the login of a user."""
        environ = {
            "HOME": str(self.scene.machine.folder),
            "HIML_CONTAINER_REGISTRY_USER": "ada",
            "HIML_CONTAINER_REGISTRY_PASSWORD": PASSWORD,
        }
        return RegistryClient.connect(
            f"{self.scene.proxy.host}/{self.scene.name}",
            credentials=Credentials.of(environ, registry=self.scene.proxy.host, workspace=()),
            environ=environ,
            patience=self.scene.machine.told.patience,
            chunk=MIB,
        )

    def push(self) -> Pushed:
        """Push the new image."""
        return self.scene.machine.push(self.scene.new, self.repository(), before=self.scene.was.manifest)


@pytest.fixture
def guarded(tmp_path: Path, name: str) -> Iterator[Guarded]:
    with (
        token_server(tmp_path / "tokens", users={"ada": PASSWORD}) as tokens,
        registry(tmp_path / "guarded", token=tokens.service) as closed,
        registry(tmp_path / "open", storage=closed.folder) as host,  # the same storage, for whoever only looks
        misbehaving(closed) as proxy,
    ):
        yield Guarded(scene_of(host, proxy, name, tmp_path), tokens)


def test_a_token_that_runs_out_in_mid_push_is_renewed(guarded: Guarded) -> None:
    scene = guarded.scene
    scene.new = scene.machine.image(*LAYERS, size=MIB + 300_000)
    scene.proxy.on("PATCH|PUT", first(guarded.run_out, guarded._pass), skip=6)
    guarded.push()
    assert scene.is_new()
    assert 3 <= guarded.tokens.given("ada") <= 4  # to read and to write, twice; not once for each thread
    assert 401 in [one.status for one in scene.proxy.seen]
    assert scene.machine.told.pauses == []


def test_a_login_that_is_taken_away_in_mid_push_is_an_error(guarded: Guarded) -> None:
    scene = guarded.scene

    def revoke() -> None:
        guarded.tokens.users.clear()
        guarded.run_out()

    scene.proxy.on("PUT", UPLOAD, first(revoke, guarded._pass), skip=2)
    with pytest.raises(RegistryError, match="refuses the login") as caught:
        guarded.push()
    assert PASSWORD not in f"{caught.value} {scene.machine.told.lines}"
    assert scene.is_old()
    guarded.tokens.users["ada"] = PASSWORD
    guarded.push()
    assert scene.is_new()


def test_too_many_requests_wait_for_as_long_as_the_registry_asks(scene: Scene) -> None:
    for method, where in (("HEAD", ""), ("POST", ""), ("PUT", UPLOAD), ("PATCH", ""), ("PUT", "/manifests/")):
        scene.proxy.on(method, where, error(429, "TOOMANYREQUESTS", headers={"Retry-After": "7"}), times=2, skip=1)
    scene.new = scene.machine.image(*LAYERS, size=MIB + 300_000)
    scene.proxy.on("PUT", "/manifests/", error(429, "TOOMANYREQUESTS", headers={"Retry-After": "11"}))
    scene.push()
    assert scene.is_new()
    assert sorted(scene.machine.told.pauses) == [7.0] * 10 + [11.0]


def test_a_registry_that_never_has_time_is_an_error(scene: Scene) -> None:
    scene.proxy.on("PUT", "/manifests/", error(429, "TOOMANYREQUESTS", headers={"Retry-After": "7"}), times=None)
    scene.fails("429")
    assert scene.machine.told.pauses == [7.0] * 5
    assert scene.recovers().sent == 0


# A registry that does not store what it was sent, or does not have what it says


def stores_another(exchange: Exchange) -> None:
    """Keep half of a blob under the digest of that half, and say that all is well."""
    data = exchange.body()
    half = data[: len(data) // 2]
    digest = re.search(r"digest=([^&]*)", exchange.path)
    assert digest is not None
    exchange.path = exchange.path.replace(digest[1], sha256_of(half))
    reply = exchange.forward(body=half)
    assert reply is not None
    assert reply.status == 201
    reply.set("Docker-Content-Digest", unquote(digest[1]))
    exchange.reply(reply)


def test_blobs_that_are_damaged_on_their_way_are_sent_again(scene: Scene) -> None:
    scene.proxy.on("PUT", UPLOAD, damage, times=3)
    scene.push()
    assert scene.is_new()
    assert sum("DIGEST_INVALID" in line for line in scene.machine.told.lines) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (damage, "DIGEST_INVALID"),
        (stores_another, "does not have it"),
        (change(lambda reply: reply.set("Docker-Content-Digest", sha256_of(b"another"))), "stored sha256:"),
        (status(201), "does not have it"),
    ],
)
def test_a_blob_that_is_stored_as_another_is_an_error(scene: Scene, fault: Action, message: str) -> None:
    scene.proxy.on("PUT", UPLOAD, fault, times=None, skip=2)
    scene.fails(message)
    scene.recovers()


@pytest.mark.parametrize("left", [0, 1000])
def test_a_layer_of_which_the_registry_has_only_a_part_is_not_taken_for_there(
    tmp_path: Path, name: str, left: int
) -> None:
    """As a power cut leaves it: the registry has a file for the layer, and looks no further."""
    with registry(tmp_path / "registry") as host, misbehaving(host) as proxy:
        scene = scene_of(host, proxy, name, tmp_path)
        layers = scene.machine.push(scene.new, f"{host}/{name}", tag="first").layers
        os.truncate(host.blob_file(layers[2].digest), left)
        scene.fails(f"has {left} bytes")
        host.blob_file(layers[2].digest).unlink()
        assert scene.recovers().sent == 1


@pytest.mark.parametrize("everywhere", [False, True])
def test_blobs_that_are_said_to_exist_and_do_not_are_sent(scene: Scene, everywhere: bool) -> None:
    known = Machine(scene.machine.folder)  # the digests are known before: the layers were compressed for another push
    layers = known.push(scene.new, f"{scene.host}/himl/elsewhere-{scene.name[-8:]}").layers
    lies = [*layers[1:4], *([layers[4], layers[5]] if everywhere else [])]
    digests = [one.digest for one in lies] + ([sha256_of(scene.new.config)] if everywhere else [])
    sizes = {**{one.digest: one.size for one in lies}, sha256_of(scene.new.config): len(scene.new.config)}
    for digest in digests:
        there = status(200, headers={"Content-Length": str(sizes[digest]), "Docker-Content-Digest": digest})
        scene.proxy.on("HEAD", digest, there, times=None)
    scene.push()
    assert scene.is_new()
    assert any("said it had" in line for line in scene.machine.told.lines)


def test_a_registry_that_never_has_what_it_says_is_an_error(scene: Scene) -> None:
    layers = scene.machine.push(scene.new, f"{scene.host}/himl/elsewhere-{scene.name[-8:]}").layers
    there = status(200, headers={"Content-Length": str(layers[2].size)})
    scene.proxy.on("HEAD", layers[2].digest, there, times=None)
    scene.proxy.on("PUT", re.escape(quote(layers[2].digest, safe="")), status(201), times=None)
    scene.fails("BLOB_UNKNOWN")
    scene.recovers()


def test_a_mount_that_was_not_made_is_sent(scene: Scene) -> None:
    elsewhere = f"himl/elsewhere-{scene.name[-8:]}"
    layers = scene.machine.push(scene.new, f"{scene.host}/{elsewhere}").layers
    remotes = [(RemoteBlob(scene.proxy.host, elsewhere, blob),) for blob in layers]
    mountable = [replace(one, remotes=remote) for one, remote in zip(scene.new.layers, remotes, strict=True)]
    scene.new = replace(scene.new, layers=tuple(mountable))
    scene.proxy.on("POST", "mount=", status(201), times=2)
    pushed = scene.push()
    assert scene.is_new()
    assert (pushed.sent, pushed.mounted) == (2, 3)


# Others who push


@pytest.fixture
def rival(scene: Scene, tmp_path: Path) -> Callable[[], Pushed]:
    """Somebody else who replaces the same tag by an image of his own."""
    machine = Machine(tmp_path / "rival")
    image = machine.image("his")

    def push() -> Pushed:
        found = client(f"{scene.host}/{scene.name}").head(TAG)
        pushed = machine.push(image, f"{scene.host}/{scene.name}", before=found)
        assert image_at(scene.host, scene.name) == sha256_of(image.config)
        return pushed

    return push


@pytest.mark.parametrize("moment", ["while layers travel", "while the proof is attached", "after our manifest"])
def test_a_tag_that_another_overwrites_meanwhile_stays_his_and_the_loser_notices(
    scene: Scene, rival: Callable[[], Pushed], moment: str
) -> None:
    his: list[Pushed] = []
    attach: Callable[[Descriptor], None] | None = None
    if moment == "while layers travel":
        scene.proxy.on("PUT", UPLOAD, first(lambda: his.append(rival())), skip=2)
    elif moment == "while the proof is attached":
        attach = lambda _: his.append(rival())  # noqa: E731
    else:

        def overwritten(exchange: Exchange) -> None:
            reply = exchange.forward()
            assert reply is not None
            his.append(rival())
            exchange.reply(reply)

        scene.proxy.on("PUT", f"/manifests/{TAG}", overwritten)
    with pytest.raises(RegistryError, match="another image under this tag") as caught:
        scene.push(attach=attach)
    assert his[0].manifest.digest in caught.value.what
    assert client(f"{scene.host}/{scene.name}").head(TAG) == his[0].manifest
    image_at(scene.host, scene.name)


def test_the_same_image_of_another_machine_is_no_conflict(scene: Scene, tmp_path: Path) -> None:
    other = Machine(tmp_path / "other")
    other.told.slowly = scene.machine.told.slowly = 0.1
    same = other.image(*LAYERS)

    def push() -> None:
        other.push(same, f"{scene.host}/{scene.name}", before=scene.was.manifest)

    scene.proxy.on("PUT", UPLOAD, first(push), skip=3)
    assert scene.push().existed
    assert scene.is_new()


@pytest.mark.parametrize("machines", [1, 10])
def test_ten_pushes_at_once_of_images_that_share_layers(
    host: Host, proxy: FaultProxy, name: str, tmp_path: Path, machines: int
) -> None:
    shared = [f"shared {number}" for number in range(4)]
    there = [Machine(tmp_path / f"machine {number}", Told(slowly=0.1)) for number in range(machines)]
    work = [(there[number % machines], number) for number in range(10)]
    images = [machine.image(*shared, f"own {number}") for machine, number in work]
    at_once = threading.Barrier(10)

    def push(number: int) -> Pushed:
        at_once.wait(60)
        return work[number][0].push(images[number], f"{proxy.host}/{name}", tag=f"tag-{number}")

    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(push, range(10)))
    for number, image in enumerate(images):
        assert image_at(host, name, f"tag-{number}") == sha256_of(image.config)
    distinct = {one.digest: one.size for pushed in done for one in pushed.layers}
    assert len(distinct) == 1 + 4 + 10
    if machines == 1:
        small = sum(2 * pushed.manifest.size for pushed in done) + sum(len(image.config) for image in images)
        # Who looked just before another's upload was done, and had its turn just after, sends a layer a second time.
        assert sum(one.body for one in proxy.seen) < 1.5 * (sum(distinct.values()) + small)
    for machine in there:
        assert machine.leftovers() == []


# Limits


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of some bytes."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "himl-test", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        kit.lacking(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def empty_link(host: Host, name: str, digest: str) -> None:
    """Make a repository's link to a blob what the server leaves when its disk is full."""
    links = host.folder / "docker/registry/v2/repositories" / name / "_layers/sha256"
    (links / digest.removeprefix("sha256:") / "link").write_bytes(b"")


def fill(disk: Path) -> None:
    """Leave no room."""
    with contextlib.suppress(OSError), (disk / "filled").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_registry_whose_disk_is_full_keeps_the_old_image(tmp_path: Path, name: str) -> None:
    with (
        small_disk(tmp_path / "disk", 4 * MIB + 500_000) as disk,
        registry(tmp_path / "registry", storage=disk) as host,
        misbehaving(host) as proxy,
    ):
        scene = scene_of(host, proxy, name, tmp_path)
        scene.fails("its disk is full")
        subprocess.run(["mount", "-o", f"remount,size={16 * MIB}", str(disk)], check=True)
        scene.recovers()


def test_blobs_to_which_a_full_disk_left_empty_links_are_sent_again(scene: Scene) -> None:
    """``distribution`` answers 500 to each question about such a blob, also when there is room again."""
    image = scene.push()
    layer, config = image.layers[-1].digest, sha256_of(scene.new.config)
    scene.machine.push(scene.old, f"{scene.host}/{scene.name}", before=image.manifest)
    for digest in (layer, config):
        empty_link(scene.host, scene.name, digest)
    assert blobs_at(scene.host, scene.name).isdisjoint({layer, config})
    assert scene.recovers().sent == 1


def test_an_attachment_to_whose_blobs_a_full_disk_left_empty_links(host: Host, name: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    pushed = machine.push(machine.image("old"), f"{host}/{name}")

    def attached() -> Descriptor:
        repository = client(f"{host}/{name}")
        return repository.attach(pushed.manifest, b"a lock", artifact_type="text/x-lock", media_type="text/plain")

    first_time = attached()
    blobs = [sha256_of(b"a lock"), sha256_of(EMPTY_JSON)]
    for digest in blobs:
        empty_link(host, name, digest)
    assert attached() == first_time
    assert blobs_at(host, name).issuperset(blobs)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_has_room_for_all_layers_and_not_for_the_manifest(tmp_path: Path, name: str) -> None:
    with (
        small_disk(tmp_path / "disk", 16 * MIB) as disk,
        registry(tmp_path / "registry", storage=disk) as host,
        misbehaving(host) as proxy,
    ):
        scene = scene_of(host, proxy, name, tmp_path)
        scene.proxy.on("PUT", "/manifests/", first(lambda: fill(disk)), times=None)
        scene.fails("its disk is full|answered 500")
        (disk / "filled").unlink()
        # This registry keeps an empty file, and takes it for the manifest from now on: it would give the tag to it.
        empty = [digest for digest in host.blobs() if not host.blob_file(digest).stat().st_size]
        assert len(empty) == 1
        scene.proxy.behave()
        scene.fails("answered 500")
        host.blob_file(empty[0]).unlink()
        assert scene.recovers().sent == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_is_full_for_a_moment(tmp_path: Path, name: str) -> None:
    """There is room again at the second try: the empty file of the first must not become what the tag names."""
    with (
        small_disk(tmp_path / "disk", 16 * MIB) as disk,
        registry(tmp_path / "registry", storage=disk) as host,
        misbehaving(host) as proxy,
    ):
        scene = scene_of(host, proxy, name, tmp_path)

        def full(exchange: Exchange) -> None:
            fill(disk)
            exchange.pass_on()
            (disk / "filled").unlink()

        scene.proxy.on("PUT", "/manifests/", full)
        scene.fails("answered 500")


def test_an_interrupted_push_ends_at_once_and_the_next_one_sends_the_rest(scene: Scene) -> None:
    started = threading.Event()
    running: list[subprocess.Popen[str]] = []
    two_have_arrived = threading.Semaphore(0)

    def passed(exchange: Exchange) -> None:
        exchange.pass_on()
        two_have_arrived.release()

    def interrupt(exchange: Exchange) -> None:
        """Press Ctrl-C in the middle of a blob, and leave the connection as it is."""
        for _ in exchange.pieces(100_000):
            pass
        assert started.wait(60)
        for _ in range(2):  # those that were before this one on the wire; they must not be interrupted as well
            assert two_have_arrived.acquire(timeout=60)
        running[0].send_signal(signal.SIGINT)
        running[0].wait(30)
        exchange.cut()

    configuration = re.escape(quote(sha256_of(scene.new.config), safe=""))
    layer = f"{UPLOAD}.*digest=(?!{configuration})"
    scene.proxy.on("PUT", layer, passed, times=2)
    scene.proxy.on("PUT", layer, interrupt, skip=2)
    running.append(scene.machine.start(scene.new, f"{scene.proxy.host}/{scene.name}", before=scene.was.manifest))
    started.set()
    _, stderr = running[0].communicate(timeout=120)
    assert (running[0].returncode, stderr) == (130, "interrupted\n")
    assert scene.is_old()
    arrived = blobs_at(scene.host, scene.name) - {one.digest for one in scene.was.layers}
    assert len(arrived) >= 2
    assert 0 < scene.recovers().sent < len(LAYERS)


@pytest.mark.slow
def test_a_layer_of_3_gb_is_pushed_with_little_memory(host: Host, name: str, tmp_path: Path) -> None:
    """Three quarters of a gigabyte of it do not compress, so that neither compressing nor sending may hold it."""
    machine = Machine(tmp_path / "machine")
    path, size = tmp_path / "layer.tar", 3_000_000_000
    piece, total, hole = random.Random(3).randbytes(MIB), hashlib.sha256(), bytes(MIB)
    with path.open("wb") as file:
        for number in range(size // MIB):
            if number % 6 == 0:
                file.write(piece)
                total.update(piece)
            else:
                file.seek(MIB, os.SEEK_CUR)
                total.update(hole)
        file.truncate(size)
    total.update(bytes(size % MIB))
    layer = PushLayer("large", f"sha256:{total.hexdigest()}", size=size, path=path)
    process = machine.start(image_of(layer), f"{host}/{name}")
    stdout, stderr = process.communicate(timeout=800)
    assert process.returncode == 0, stderr
    said = json.loads(stdout)
    assert said["bytes"] > 450_000_000
    assert said["peak"] < 400_000_000
    manifest = client(f"{host}/{name}").manifest(TAG)
    assert manifest is not None
    digest = manifest.content["layers"][0]["digest"]
    assert file_digest(host.blob_file(digest)) == digest
    shutil.rmtree(host.blob_file(digest).parent)
