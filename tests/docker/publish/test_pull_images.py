"""Pulling from a real registry into a real daemon."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit
import pytest
from registry_server import Host, registry
from runnable import load, noise, push, remove, removed_afterwards, shell

from himl_container.cache import Cache
from himl_container.image.docker_engine import DockerEngine
from himl_container.progress import SilentReporter
from himl_container.publish.pull import fetch_layer, plan_pull, pull_image

pytestmark = pytest.mark.docker


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with registry(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def name(host: Host, image_name: str) -> Iterator[str]:
    found = f"{host}/{image_name}"
    with removed_afterwards(found):
        yield found


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    folder = tmp_path / "layers"
    folder.mkdir()
    return folder


def connect(cache: Cache) -> DockerEngine:
    return DockerEngine.connect(cache=cache)


def fetched(host: Host) -> list[str]:
    """Return the digests of the blobs that were asked for, by the registry's own log."""
    return re.findall(r'"GET /v2/[^ ]*/blobs/(sha256:[0-9a-f]{64}) HTTP/1.1" 20[06]', host.log.read_text())


def test_only_the_missing_layer_travels(host: Host, name: str, layers: Path, tmp_path: Path) -> None:
    engine = connect(Cache(tmp_path / "builder"))
    ground, wheel = shell(layers), noise(layers, "wheel", 300_000)
    first = load(engine, f"{name}:1", ground)
    second = load(engine, f"{name}:2", ground, wheel)
    digest = [push(f"{name}:1"), push(f"{name}:2")][1]
    remove(name)
    assert engine.inspect(f"{name}:2") is None

    cache = Cache(tmp_path / "cache")
    pulled = pull_image(f"{name}:1", engine=connect(cache), cache=cache, reporter=SilentReporter())
    assert (pulled.image.id, pulled.fetched, pulled.existed) == (first.id, 1, False)
    shutil.rmtree(cache.root)  # what the daemon has is enough
    plan = plan_pull(f"{name}:2", engine=connect(cache), cache=cache)
    assert [one.where for one in plan.layers] == ["daemon", "registry"]
    before = len(fetched(host))
    pulled = pull_image(f"{name}:2", engine=connect(cache), cache=cache, reporter=SilentReporter())
    assert pulled.image.id == second.id
    assert pulled.image.diff_ids == second.diff_ids
    assert pulled.names == (f"{name}@{digest}",)
    assert 300_000 < pulled.bytes_received == plan.size < 310_000
    configuration = second.id
    until = time.monotonic() + 60
    while len(fetched(host)) < before + 2 and time.monotonic() < until:
        time.sleep(0.01)  # the registry writes the line when it has sent the blob, which may be here by then
    assert fetched(host)[before:] == [configuration, plan.missing[0].blob.digest]
    again = pull_image(f"{name}:2", engine=connect(cache), cache=cache, reporter=SilentReporter())
    assert (again.existed, again.bytes_received) == (True, 0)


def test_a_run_by_digest_where_the_image_never_was(
    name: str, layers: Path, tmp_path: Path, project: kit.ProjectFolder
) -> None:
    image = load(connect(Cache(tmp_path / "builder")), f"{name}:1", shell(layers))
    digest = push(f"{name}:1")
    remove(name)
    cli = kit.Cli(project.path, kit.clean_environ(HIML_CONTAINER_CACHE_DIR=str(tmp_path / "cache")))
    words = ("run", "--local", "--image", f"{name}@{digest}", "sh", "-c", 'echo "hello $AZUREML_RUN_ID"')
    done = cli(*words)
    assert done.stdout.startswith("hello sh_")
    assert "1 of 1 layers" in done.stderr
    record = json.loads((project.path / "runs" / "latest" / "run.json").read_text())
    assert record["launch"]["image"] == {
        "tag": f"{name}@{digest}",
        "id": image.id,
        "digest": f"{name}@{digest}",
        "fingerprint": "",
        "lock": "",
    }
    # Once it is here, nobody is asked: the registry's requests stay the same.
    shown = json.loads(cli("pull", "--json", f"{name}@{digest}").stdout.splitlines()[-1])
    assert (shown["existed"], shown["requests"], shown["id"]) == (True, 0, image.id)
    assert cli(*words).stdout.startswith("hello")


def test_an_image_that_nobody_has(name: str, project: kit.ProjectFolder, tmp_path: Path) -> None:
    cli = kit.Cli(project.path, kit.clean_environ(HIML_CONTAINER_CACHE_DIR=str(tmp_path / "cache")))
    assert "no such image" in cli("run", "--local", "--image", f"{name}:1", "true", expect=75).stderr
    assert "no such image" in cli("pull", f"{name}:1", expect=75).stderr
    assert not (project.path / "runs").exists()


class Interrupting(SilentReporter):
    """A reporter that stands for somebody who presses Ctrl-C once so many bytes have come in."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, verb: str, subject: str = "", *, total: int | None = None, unit: str = "items"):  # type: ignore[no-untyped-def]
        task = super().step(verb, subject, total=total, unit=unit)
        task.advance = self.advance  # type: ignore[method-assign]
        return task

    def advance(self, amount: int, *, total: int | None = None) -> None:
        self.left -= amount
        if self.left <= 0:
            raise KeyboardInterrupt


def test_a_pull_that_was_interrupted_fetches_only_the_rest(
    host: Host, name: str, layers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(Cache(tmp_path / "builder"))
    small, large = noise(layers, "small", 1000), noise(layers, "large", 10_000_000)
    image = load(engine, f"{name}:1", small, large)
    push(f"{name}:1")
    remove(name)
    cache = Cache(tmp_path / "cache")
    here = cache.blob(small.digest)

    def one_after_the_other(repository: object, descriptor: object, diff_id: str, **more: Any) -> Path:
        until = time.monotonic() + 60
        while diff_id == large.digest and not here.is_file() and time.monotonic() < until:
            time.sleep(0.01)  # or the large one may be here first, and nothing is left to interrupt
        return fetch_layer(repository, descriptor, diff_id, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("himl_container.publish.pull_downloads.fetch_layer", one_after_the_other)
    with pytest.raises(KeyboardInterrupt):
        pull_image(f"{name}:1", engine=connect(cache), cache=cache, reporter=Interrupting(1_000_000))
    assert here.is_file()
    assert not cache.blob(large.digest).exists()
    assert connect(cache).inspect(f"{name}:1") is None
    pulled = pull_image(f"{name}:1", engine=connect(cache), cache=cache, reporter=SilentReporter())
    assert (pulled.image.id, pulled.fetched) == (image.id, 1)
    assert [path for path in (cache.root / "tmp").iterdir() if path.stat().st_size] == []


def test_a_layer_that_the_registry_has_damaged(host: Host, name: str, layers: Path, tmp_path: Path) -> None:
    engine = connect(Cache(tmp_path / "builder"))
    load(engine, f"{name}:1", shell(layers), noise(layers, "x", 1000))
    push(f"{name}:1")
    remove(name)
    cache = Cache(tmp_path / "cache")
    plan = plan_pull(f"{name}:1", engine=connect(cache), cache=cache)
    blob = host.blob_file(plan.layers[1].blob.digest)
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    done = kit.Cli(tmp_path, kit.clean_environ(HIML_CONTAINER_CACHE_DIR=str(cache.root)))(
        "pull", f"{name}:1", expect=75
    )
    assert plan.layers[1].blob.digest in done.stderr
    assert connect(cache).inspect(f"{name}:1") is None


def test_somebody_with_the_same_lock_gets_the_image_and_builds_nothing(
    name: str, run_cli: kit.Cli, project: kit.ProjectFolder, image_name: str, tmp_path: Path
) -> None:
    """One machine builds and pushes; a second one just runs; a third one pulls first."""
    project.environment("python =3.11", "tinytool")
    first = {"HIML_CONTAINER_REGISTRY": name.removesuffix(f"/{image_name}")}
    second = {**first, "HIML_CONTAINER_CACHE_DIR": str(tmp_path / "second")}
    third = {**first, "HIML_CONTAINER_CACHE_DIR": str(tmp_path / "third")}
    local_name = run_cli("build", environ=first).stdout.splitlines()[0]
    pushed = json.loads(run_cli("push", "--json", environ=first).stdout.splitlines()[-1])
    expected = {
        "tag": local_name,
        "digest": f"{name}@{pushed['digest']}",
        "lock": hashlib.sha256((project.path / "pylock.himl.toml").read_bytes()).hexdigest(),
    }

    def run(environ: dict[str, str]) -> dict[str, str]:
        done = run_cli("run", "--local", "tinytool", environ=environ)
        assert "tinytool with tinylib" in done.stdout
        image = json.loads((project.path / "runs" / "latest" / "run.json").read_text())["launch"]["image"]
        assert image["fingerprint"][:32] == local_name.rpartition(":")[2]
        return {key: image[key] for key in expected}

    assert run(first) == expected
    remove(name, image_name)
    assert run(second) == expected
    assert not (tmp_path / "second" / "layers").exists()  # nothing was made

    remove(name, image_name)
    plan = json.loads(run_cli("pull", "--dry-run", "--json", environ=third).stdout.splitlines()[-1])
    assert plan["layers"][0]["from"] == "daemon"  # the base image
    missing = [layer for layer in plan["layers"] if layer["from"] == "registry"]  # what no other image has
    assert plan["bytes"] == sum(layer["size"] for layer in missing)
    shown = json.loads(run_cli("pull", "--json", environ=third).stdout.splitlines()[-1])
    assert (shown["tag"], shown["digests"]) == (local_name, [expected["digest"]])
    assert (shown["fetched"], shown["bytes_received"]) == (len(missing), plan["bytes"])
    assert run(third) == expected
    run_cli("verify", "latest", environ=third)

    # Another lock is another image, and nobody has pushed that.
    project.environment("python =3.11")
    run_cli("pull", environ=third, expect=67)
    run_cli("lock", environ=third)
    assert "no image of this lock" in run_cli("pull", environ=third, expect=75).stderr


def test_an_image_of_other_inputs_under_the_tag_of_the_lock(
    name: str, run_cli: kit.Cli, project: kit.ProjectFolder, image_name: str, layers: Path, tmp_path: Path
) -> None:
    project.environment("python =3.11")
    run_cli("lock")
    environ = {"HIML_CONTAINER_REGISTRY": name.removesuffix(f"/{image_name}")}
    wanted = run_cli("pull", environ=environ, expect=75).stderr
    found = re.search(rf"{re.escape(name)}:[0-9a-f]{{32}}", wanted)
    assert found, wanted
    load(connect(Cache(tmp_path / "builder")), found[0], shell(layers))
    push(found[0])
    remove(name)
    assert "was made from other inputs" in run_cli("pull", environ=environ, expect=75).stderr
    assert connect(Cache(tmp_path / "cache")).inspect(found[0]) is None


def test_a_pull_without_a_registry(run_cli: kit.Cli, project: kit.ProjectFolder) -> None:
    project.environment("python =3.11")
    assert "no registry is set" in run_cli("pull", expect=65).stderr
    assert "names no registry" in run_cli("pull", "train:1", expect=65).stderr
