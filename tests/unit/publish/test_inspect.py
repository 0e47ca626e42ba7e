"""What an image says of itself, from the registry alone or from the daemon, and how that is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from proof_images import HOST, NAME, World, conda, lock, wheel

from himl_container.cli.inspect import as_text
from himl_container.cli.tables import plain, table
from himl_container.errors import InputError, RegistryError
from himl_container.progress import SilentReporter
from himl_container.publish.inspect import Inspection, inspect_image
from himl_container.publish.proof import attach_proof
from himl_container.publish.sbom import SBOM_TYPE
from himl_container.registry.model import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    OCI_TAR,
    Descriptor,
    canonical_json,
)
from himl_container.settings import Settings

LOCK = lock(
    conda("numpy", "1.26.4", license="BSD-3-Clause"),
    conda("blas"),
    wheels=[wheel("ours", "0.1", private=True), wheel("requests", "2.31.0")],
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def inspected(world: World, name: str, settings: Settings | None = None) -> Inspection:
    return inspect_image(
        name,
        settings or world.settings,
        reporter=SilentReporter(),
        connect=world.connect,
        connect_engine=world.engine,  # type: ignore[arg-type, return-value]
    )


def attach(world: World, made: object) -> None:
    attach_proof(
        world.repository,
        made.subject,  # type: ignore[attr-defined]
        lock=made.lock,  # type: ignore[attr-defined]
        lock_bytes=made.lock_bytes,  # type: ignore[attr-defined]
        settings=world.settings,
        reporter=SilentReporter(),
    )


def test_an_image_of_ours_from_the_registry_alone(world: World) -> None:
    made = world.push(LOCK)
    attach(world, made)
    world.running = False
    world.registry.forget()
    found = inspected(world, made.name)
    layers = {layer.blob.digest for layer in found.image.layers if layer.blob}
    assert not layers & set(world.registry.named("blob")), "a layer was fetched"
    value = found.as_json()
    assert (value["source"], value["digest"], value["fingerprint"]) == (
        "registry",
        made.subject.digest,
        made.fingerprint,
    )
    assert value["annotations"]["io.himl.tested"] == "true"
    assert [one["name"] for one in value["layers"]][:2] == ["base 1", "conda:python"]
    assert all(one["size"] and one["diff_id"] for one in value["layers"])
    packages = {one["name"]: one for one in value["packages"]}
    assert value["packages_from"] == "lock"
    assert packages["numpy"] == {
        "kind": "conda",
        "name": "numpy",
        "version": "1.26.4",
        "build": "h1_0",
        "license": "BSD-3-Clause",
        "size": 6_000_000,
        "layer": "conda:numpy",
    }
    assert (packages["ours"]["kind"], packages["ours"]["layer"]) == ("private wheel", "wheel:ours")
    text = as_text(found)
    row = next(line for line in text.splitlines() if "numpy" in line and "1.26.4" in line)
    assert row.split() == ["conda", "numpy", "1.26.4", "h1_0", "6.0", "MB", "BSD-3-Clause", "conda:numpy"]
    json.dumps(value)


@pytest.mark.parametrize("name", ["team/train:{tag}", "team/train@{digest}", NAME + "@{digest}"])
def test_a_name_without_an_address_is_of_the_registry_of_the_settings(world: World, name: str) -> None:
    made = world.push(LOCK)
    found = inspected(world, name.format(tag=made.tag, digest=made.subject.digest))
    assert found.image.source == "registry"
    assert found.image.digest == made.subject.digest


def test_an_image_that_only_the_daemon_has(world: World) -> None:
    made = world.push(LOCK)
    world.images["local:1"] = made.in_daemon("local:1")
    found = inspected(world, "local:1")
    assert (found.image.source, found.image.config_digest) == ("daemon", made.in_daemon().id)
    assert found.image.diff_ids == made.diff_ids
    assert "Docker daemon" in as_text(found)
    assert inspected(world, "local:1", world.with_settings(registry="")).image.source == "daemon"
    assert world.registry.named("head").count("1") == 1


def test_nobody_has_it(world: World) -> None:
    with pytest.raises(InputError, match="neither its registry nor the Docker daemon"):
        inspected(world, NAME + ":none")
    with pytest.raises(InputError, match="is not the name of an image"):
        inspected(world, "no image!")


def test_a_registry_that_does_not_answer_is_not_a_registry_without_the_image(world: World) -> None:
    world.images["team/train:1"] = world.push(LOCK).in_daemon()

    def refuse(name: str, argument: str) -> None:
        raise RegistryError("the registry does not answer")

    world.registry.before = refuse
    with pytest.raises(RegistryError):
        inspected(world, "team/train:1")


def foreign(world: World, config: object, *, tag: str = "foreign", layers: int = 1) -> str:
    data = canonical_json(config)
    blobs = [world.repository.upload_bytes(b"layer %d" % number) for number in range(layers)]
    manifest = {
        "schemaVersion": 2,
        "config": Descriptor(OCI_CONFIG, world.repository.upload_bytes(data), len(data)).as_json(),
        "layers": [Descriptor(OCI_TAR, blob, 7).as_json() for blob in blobs],
    }
    return world.repository.put_manifest(canonical_json(manifest), DOCKER_MANIFEST, tag)


@pytest.mark.parametrize(
    "config",
    [
        {},
        [],
        {"rootfs": None, "history": "x", "config": [], "created": 5, "os": "linux", "architecture": None},
        {"rootfs": {"diff_ids": ["sha256:" + "0" * 64] * 7}, "history": [None, {"created_by": 5}]},
        {"config": {"Labels": ["x"], "Env": {"a": 1}}, "history": [{"created_by": "RUN \x1b[2Jevil"}]},
    ],
)
def test_images_that_are_not_ours_say_less(world: World, config: object) -> None:
    foreign(world, config)
    found = inspected(world, NAME + ":foreign")
    assert len(found.image.layers) == 1
    assert found.packages == ()
    text = as_text(found)
    assert "Packages: not known" in text
    assert "\x1b" not in text
    json.dumps(found.as_json())


def test_packages_of_a_strangers_bill_of_materials(world: World) -> None:
    digest = foreign(world, {})
    bill = {
        "components": [
            {"type": "library", "name": "left\x1b]0;pad", "version": "1", "purl": "pkg:npm/left-pad@1"},
            {"type": "library", "name": "b", "licenses": [{"license": {"id": "MIT"}}, {"expression": "A OR B"}, 7]},
            {"type": "library", "name": 5},
            "nothing",
        ]
    }
    subject = Descriptor(DOCKER_MANIFEST, digest, 1)
    for document in (b"[" * 100_000, b"{}", json.dumps(bill).encode()):
        world.repository.attach(subject, document, artifact_type=SBOM_TYPE, media_type=SBOM_TYPE)
    found = inspected(world, NAME + ":foreign")
    assert found.packages_from == "sbom"
    assert [(one.kind, one.version, one.license) for one in found.packages] == [
        ("npm", "1", ""),
        ("package", "", "MIT, A OR B"),
    ]
    assert "\x1b" not in as_text(found)


def test_the_image_of_an_index_for_the_platform(world: World) -> None:
    made = world.push(LOCK)
    attach(world, made)
    entry = {**made.subject.as_json(), "platform": {"os": "linux", "architecture": "amd64"}}
    index = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    digest = world.repository.put_manifest(index, OCI_INDEX, "many")
    found = inspected(world, NAME + ":many")
    assert (found.image.digest, found.image.index) == (made.subject.digest, digest)
    assert found.packages_from == "lock"
    with pytest.raises(RegistryError, match="does not exist for linux/arm64"):
        inspected(world, NAME + ":many", world.with_settings(platform="linux-aarch64"))


def test_hostile_texts_are_harmless_in_a_table() -> None:
    hostile = "a\x1b[2J\r\n\u202eb\u2028c\x9b\ue000"
    assert plain(hostile) == "a\ufffd[2J\ufffd\ufffd\ufffdb\ufffdc\ufffd\ufffd"
    assert plain("x" * 500, longest=10) == "x" * 9 + "…"
    lines = table([("a", "1"), (hostile, "22"), ("漢字", "333")], right=(1,))
    assert lines[0].endswith("    1")
    assert lines[2] == "  漢字" + " " * 11 + "333"
    assert HOST in plain(NAME)
    assert plain(OCI_MANIFEST) == OCI_MANIFEST
