"""``push`` from a real daemon to a real registry, and back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import kit
import pytest
from registry_server import Host, registry
from runnable import remove, removed_afterwards

from himl_container.image.system import REPOSITORY
from himl_container.publish.manifest import FINGERPRINT
from himl_container.publish.model import TESTED

pytestmark = pytest.mark.docker

OLD = ("python =3.11", "tinytool", "tinylib =1.0")
NEW = ("python =3.11", "tinytool", "tinylib =1.1")


@pytest.fixture
def cache_dir(warm_cache_dir: Path) -> Path:
    return warm_cache_dir


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.from_env(timeout=300)) as found:
        yield found


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with registry(tmp_path / "registry") as found:
        yield found


def result(run_cli: kit.Cli, *arguments: str, **options: Any) -> dict[str, Any]:
    """Run a command with ``--json`` and return its result."""
    return events(run_cli, *arguments, **options)[-1]


def events(run_cli: kit.Cli, *arguments: str, **options: Any) -> list[dict[str, Any]]:
    done = run_cli(*arguments, "--json", **options)
    return [json.loads(line) for line in done.stdout.splitlines()]


def to(host: str, **more: str) -> dict[str, str]:
    return {"HIML_CONTAINER_REGISTRY": host, **more}


def manifest(host: Host, reference: str) -> dict[str, Any]:
    """The manifest that the registry's own disk has; its bytes must be those of its digest."""
    digest = reference.rpartition("@")[2]
    data = host.blob_file(digest).read_bytes()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    return dict(json.loads(data))


def test_pushed_image_is_pulled_by_docker_and_runs_and_later_pushes_send_the_rest(
    run_cli: kit.Cli,
    project: kit.ProjectFolder,
    client: docker.DockerClient,
    host: Host,
    image_name: str,
    tmp_path: Path,
) -> None:
    project.environment(*OLD)
    run_cli("push", environ=to(host), expect=67)  # no lock, so nothing can be built of it
    run_cli("lock")
    not_built = run_cli("push", environ=to(host), expect=71)
    assert "himl-container build" in not_built.stderr
    built = result(run_cli, "build")
    planned = result(run_cli, "push", "--dry-run", environ=to(host))
    # Other tests with the same cache may have compressed some of them.
    assert {layer["what"] for layer in planned["layers"]} <= {"export", "compress", "send"}
    assert host.blobs() == []

    pushed = result(run_cli, "push", environ=to(host))
    assert pushed["reference"] == f"{host}/{image_name}@{pushed['digest']}"
    assert pushed["sent"] == len(pushed["layers"])
    content = manifest(host, pushed["reference"])
    assert content["config"]["digest"] == built["id"]  # the classic store's id is the configuration's digest
    assert content["annotations"][FINGERPRINT] == built["fingerprint"]
    assert content["annotations"][TESTED] == "true"
    attached = [json.loads(host.blob_file(blob).read_bytes()) for blob in host.blobs() if _is_artifact(host, blob)]
    assert {one["subject"]["digest"] for one in attached if "subject" in one} == {pushed["digest"]}

    remove(str(built["tag"]))
    with removed_afterwards(f"{host}/{image_name}"):
        subprocess.run(["docker", "pull", "-q", pushed["reference"]], check=True)
        image = client.images.get(pushed["reference"])
        assert image.id == built["id"]
        assert b"tinytool with tinylib" in client.containers.run(pushed["reference"], ["tinytool"], remove=True)

    # The image is gone here, and no daemon has to answer: the registry has it, and is asked once.
    nowhere = f"unix://{tmp_path}/no.sock"
    for environ in (to(host), to(host, DOCKER_HOST=nowhere)):
        again = result(run_cli, "push", environ=environ)
        assert (again["existed"], again["digest"], again["bytes_sent"]) == (True, pushed["digest"], 0)
        assert again["requests"] <= 2
    pipeline = to(host, GITHUB_OUTPUT=str(tmp_path / "output"), TF_BUILD="True")
    lines = run_cli("push", environ=pipeline).stdout.splitlines()
    assert f"##vso[task.setvariable variable=digest;isOutput=true]{pushed['digest']}" in lines
    assert f"\n{pushed['digest']}\n" in (tmp_path / "output").read_text()

    before = set(host.blobs())
    project.environment(*NEW)
    result(run_cli, "build", environ=to(host))
    told = events(run_cli, "push", environ=to(host))
    changed = told[-1]
    assert "export" not in [event.get("verb") for event in told]  # the base was compressed before, and is kept
    assert 0 < changed["sent"] <= 2
    assert changed["bytes_sent"] < 0.02 * pushed["bytes_sent"]
    new = sum(host.blob_file(blob).stat().st_size for blob in set(host.blobs()) - before)
    assert new < 0.02 * pushed["bytes_sent"]  # with proof and index


def _is_artifact(host: Host, digest: str) -> bool:
    return (
        host.blob_file(digest).read_bytes()[:200].startswith(b"{")
        and b'"artifactType"' in host.blob_file(digest).read_bytes()
    )


SHELL_AND_LIBRARIES = (
    *("bin", "lib", "lib64", "etc/passwd", "etc/group", "etc/os-release", "usr/lib/os-release", "usr/lib64"),
    *(f"usr/bin/{name}" for name in ("bash", "cat", "dash", "env", "sh", "true")),
    *(f"usr/lib/*-linux-gnu/{name}.so*" for name in ("ld-linux*", "libc", "libdl", "libm", "libpthread")),
    *(f"usr/lib/*-linux-gnu/{name}.so*" for name in ("librt", "libtinfo", "libutil", "libz")),
)


@contextlib.contextmanager
def base_in(host: Host, base_image: str, mark: str) -> Iterator[str]:
    """A base under a name in the registry; that goes afterwards, and the system parts that the test made on it.

    It is what a shell and Python need of the kit's base: a few megabytes, which Docker pushes at once.
    """
    name = f"{host}/bases/debian:12"
    pack = f"cd / && tar -c {' '.join(SHELL_AND_LIBRARIES)}"
    packed = subprocess.run(["docker", "run", "--rm", base_image, "sh", "-c", pack], check=True, stdout=subprocess.PIPE)
    command = ["docker", "import", "-", name]
    subprocess.run(command, check=True, input=packed.stdout, stdout=subprocess.DEVNULL)
    try:
        subprocess.run(["docker", "push", "-q", name], check=True, stdout=subprocess.DEVNULL)
        yield name
    finally:
        listed = subprocess.run(["docker", "images", "-q", REPOSITORY], check=True, capture_output=True, text=True)
        for image in set(listed.stdout.split()):
            command = ["docker", "history", "--no-trunc", image]
            if mark in subprocess.run(command, check=False, capture_output=True, text=True).stdout:
                subprocess.run(["docker", "rmi", image], check=False, stdout=subprocess.DEVNULL)
        subprocess.run(["docker", "rmi", name], check=True, stdout=subprocess.DEVNULL)


def test_base_is_mounted_in_its_own_registry_and_copied_to_another(
    run_cli: kit.Cli, project: kit.ProjectFolder, base_image: str, host: Host, image_name: str, tmp_path: Path
) -> None:
    with base_in(host, base_image, image_name) as base, registry(tmp_path / "other") as other:
        known = set(host.blobs())
        project.environment(*OLD)
        # The system part is made by Docker on top, and is nowhere else.
        line = f"RUN echo {image_name} > /etc/system-part"
        project.write("pyproject.toml", f"[tool.himl-container]\nsystem-lines = ['{line}']\n")
        run_cli("build", "--base-image", base)
        mounted = result(run_cli, "push", "--base-image", base, environ=to(host))
        assert (mounted["mounted"], mounted["copied"]) == (1, 0)
        assert mounted["layers"][0]["digest"] in known
        copied = result(run_cli, "push", "--base-image", base, environ=to(other))
        assert (copied["mounted"], copied["copied"]) == (0, 1)
        assert copied["digest"] == mounted["digest"]  # the same bytes under the same digests everywhere
        with removed_afterwards(f"{other}/{image_name}"):
            command = ["docker", "run", "--rm", copied["reference"], "cat", "/etc/system-part"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            assert done.stdout == f"{image_name}\n"
        _remove_images(image_name)


def _remove_images(repository: str) -> None:
    """Remove the images of a repository now: what they were made on can be removed only after them."""
    listed = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", repository],
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.split():
        remove(name)


def test_image_that_docker_built_is_taken_out_of_the_daemon_whole(
    run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient, host: Host, image_name: str
) -> None:
    project.environment(*OLD)
    built = result(run_cli, "build", "--builder", "docker")
    pushed = result(run_cli, "push", environ=to(host))
    assert manifest(host, pushed["reference"])["config"]["digest"] == built["id"]
    remove(str(built["tag"]))
    with removed_afterwards(f"{host}/{image_name}"):
        output = client.containers.run(pushed["reference"], ["tinytool"], remove=True)
        assert b"tinytool with tinylib" in output


def test_two_pushes_at_once_from_two_machines_leave_one_image(
    run_cli: kit.Cli, project: kit.ProjectFolder, host: Host, cache_dir: Path, tmp_path: Path
) -> None:
    project.environment(*OLD)
    run_cli("build")
    second = tmp_path / "another machine"
    shutil.copytree(cache_dir, second, symlinks=True)
    environs = [to(host), to(host, HIML_CONTAINER_CACHE_DIR=str(second))]
    run_cli("build", environ=environs[1])  # finds the image, and tests it for itself
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda environ: result(run_cli, "push", environ=environ), environs))
    assert done[0]["digest"] == done[1]["digest"]
    content = manifest(host, done[0]["reference"])
    for blob in [content["config"], *content["layers"]]:
        assert host.blob_file(blob["digest"]).stat().st_size == blob["size"]


class Stalling:
    """A way to a registry that takes no more after a number of bytes, like a cable that was pulled."""

    def __init__(self, target: str, limit: int) -> None:
        self._target = target
        self._left = limit
        self.stalled = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.stalled.set()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inside, _ = self._listener.accept()
                host, port = self._target.split(":")
                outside = socket.create_connection((host, int(port)))
                self._open += [inside, outside]
                threading.Thread(target=self._pass, args=(inside, outside, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(outside, inside, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if counted:
                    self._left -= len(data)
                    if self._left < 0:
                        self.stalled.set()
                        return  # reads nothing more: the sender's buffers fill, and it waits
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def test_interrupted_push_ends_at_once_and_the_next_sends_only_the_rest(
    run_cli: kit.Cli, project: kit.ProjectFolder, host: Host, image_name: str
) -> None:
    project.environment(*OLD)
    run_cli("build")
    whole = 80_000_000  # base and Python, compressed
    with contextlib.closing(Stalling(host, limit=whole * 3 // 4)) as way:
        process = subprocess.Popen(
            [kit.COMMAND, "push"], cwd=project.path, env={**run_cli.environ, **to(way.host)}, stderr=subprocess.PIPE
        )
        assert way.stalled.wait(300)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=25)  # the line that stalls would be waited for for 30
        assert process.returncode == 130, stderr
    until = time.monotonic() + 60
    while _takes_uploads(host):
        assert time.monotonic() < until
        time.sleep(0.02)
    tags = host.folder / "docker/registry/v2/repositories" / image_name / "_manifests"
    assert not tags.exists()
    there = set(host.blobs())
    pushed = result(run_cli, "push", environ=to(host))
    sizes = {layer["digest"]: layer["size"] for layer in pushed["layers"]}
    rest = sum(size for digest, size in sizes.items() if digest not in there)
    assert rest <= pushed["bytes_sent"] < rest + 50_000
    assert len(set(sizes) & there) >= 1


def _takes_uploads(host: Host) -> bool:
    """Whether the registry is busy with a blob: one that has arrived whole is kept, also when its sender is gone."""
    open_files = []
    for one in Path(f"/proc/{host.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            open_files.append(str(one.readlink()))
    return any("/_uploads/" in path for path in open_files)
