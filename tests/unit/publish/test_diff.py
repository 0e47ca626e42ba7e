"""What differs between two images: packages, layers, files; and what is read for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from proof_images import NAME, PREFIX, Made, World, conda, conda_files, lock, saved, tar, wheel, wheel_files

from himl_container.cache import Cache
from himl_container.cli.diff import as_text
from himl_container.environment.lockfile import write_lock
from himl_container.errors import EngineError, InputError, RegistryError
from himl_container.image.store import LayerStore
from himl_container.image.tar import Written
from himl_container.progress import SilentReporter
from himl_container.publish.diff import FileChanges, ImageDiff, diff_images, file_changes
from himl_container.publish.listing import list_layer
from himl_container.publish.proof import attach_proof
from himl_container.registry.model import OCI_MANIFEST, canonical_json, sha256_of

OLD = lock(conda("blas"), conda("numpy", "1.0"), wheels=[wheel("ours", "1", private=True)])
NEW = lock(conda("blas"), conda("numpy", "1.1"), conda("zlib"), wheels=[wheel("ours", "1", private=True)])
OLD_FILES = {"conda:numpy": conda_files("numpy", "1.0", {"lib/n.so": b"12345", "lib/gone": b"123"})}
NEW_FILES = {
    "conda:numpy": conda_files("numpy", "1.1", {"lib/n.so": b"1234567", "lib/new": b"1"}),
    "conda:zlib": conda_files("zlib", "1.0", {"lib/z.so": b"zz"}),
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def attach(world: World, made: Made) -> None:
    attach_proof(
        world.repository,
        made.subject,
        lock=made.lock,
        lock_bytes=made.lock_bytes,
        settings=world.settings,
        reporter=SilentReporter(),
    )


def diff(world: World, old: str, new: str, *, files: bool = True) -> ImageDiff:
    return diff_images(
        old,
        new,
        world.settings,
        reporter=SilentReporter(),
        files=files,
        connect=world.connect,
        connect_engine=world.engine,  # type: ignore[arg-type, return-value]
        export=world.export,
    )


def fetched_layers(world: World, made: Made) -> set[str]:
    """The layers of an image whose blobs were asked for, by what they unpack to."""
    image = world.repository.manifest(made.subject.digest)
    assert image is not None
    asked = set(world.registry.named("blob"))
    blobs = [layer["digest"] for layer in image.content["layers"]]
    return {diff_id for blob, diff_id in zip(blobs, made.diff_ids, strict=True) if blob in asked}


def test_one_package_changed_and_one_added(world: World) -> None:
    old, new = world.push(OLD, OLD_FILES), world.push(NEW, NEW_FILES, compression="zstd")
    attach(world, old)
    attach(world, new)
    world.registry.forget()
    found = diff(world, old.name, new.name)
    assert found.packages_from == "locks"
    changes = {(one.kind, one.name): one.change for one in found.packages}
    assert changes == {("conda", "numpy"): "changed", ("conda", "zlib"): "added"}
    assert [(one.name, one.change) for one in found.layers] == [("conda:numpy", "changed"), ("conda:zlib", "added")]
    assert found.same_layers == len(old.tars) - 1
    assert found.files is not None
    assert {one.package: one for one in found.files}["conda zlib"].added == 2  # its file and its record
    numpy = {one.package: one for one in found.files}["conda numpy"]
    assert (numpy.added, numpy.removed, numpy.changed) == (2, 2, 1)
    records = [
        len(next(v for k, v in files["conda:numpy"].items() if "conda-meta" in k)) for files in (OLD_FILES, NEW_FILES)
    ]
    assert numpy.bytes_removed == 5 + 3 + records[0]
    assert numpy.bytes_added == 7 + 1 + records[1]
    # Of each image only the layers that differ travelled.
    assert len(fetched_layers(world, old)) == 1
    assert len(fetched_layers(world, new)) == 2
    text = as_text(found)
    assert "~ conda numpy: 1.0" in text
    assert "Layers: 1 added, 1 changed; 5 are the same" in text
    json.dumps(found.as_json())


def test_the_same_image_in_two_compressions_does_not_differ(world: World) -> None:
    one = world.push(OLD)
    first = one.subject.digest
    world.push(OLD, compression="zstd")
    world.registry.forget()
    found = diff(world, f"{NAME}@{first}", one.name)
    assert found.identical
    assert not fetched_layers(world, one)
    assert "Nothing differs" in as_text(found)


def test_settings_differ_by_name_and_no_value_is_shown(world: World) -> None:
    old = world.push(OLD)
    first = old.subject.digest
    world.push(OLD, Env=["PATH=/opt/himl/bin", "TOKEN=CANARY"], Cmd=["sh"])
    found = diff(world, f"{NAME}@{first}", old.name)
    assert found.settings == ("Cmd", "Env TOKEN")
    assert not found.identical
    assert "CANARY" not in as_text(found) + json.dumps(found.as_json())


def test_without_locks_the_records_in_the_layers_tell(world: World) -> None:
    old, new = world.push(OLD, OLD_FILES), world.push(NEW, NEW_FILES)
    found = diff(world, old.name, new.name)
    assert found.packages_from == "layers"
    assert [(one.name, one.old, one.new) for one in found.packages] == [
        ("numpy", "1.0 h1_0", "1.1 h1_0"),
        ("zlib", "", "1.0 h1_0"),
    ]
    without = diff(world, old.name, new.name, files=False)
    assert (without.packages_from, without.files) == ("", None)
    assert "not compared" in as_text(without)


@pytest.mark.parametrize("layout", ["docker", "oci"])
def test_an_image_of_the_daemon_is_read_from_its_archive(world: World, layout: str) -> None:
    old, new = world.push(OLD, OLD_FILES), world.push(NEW, NEW_FILES)
    image = new.in_daemon("local:1")
    world.images["local:1"] = image
    world.archives[image.id] = saved(new, layout=layout)
    found = diff(world, old.name, "local:1")
    assert found.new.source == "daemon"
    assert found.files == diff(world, old.name, new.name).files
    world.archives[image.id] = tar({"manifest.json": b"[]"})
    with pytest.raises(EngineError, match="lacks a layer"):
        diff(world, old.name, "local:1")


def test_layers_that_lie_in_the_cache_are_not_fetched(world: World) -> None:
    old, new = world.push(OLD, OLD_FILES), world.push(NEW, NEW_FILES)
    cache = Cache(world.settings.cache_dir)
    for made in (old, new):
        for number, content in enumerate(made.tars):
            with cache.new_file() as temporary:
                temporary.write_bytes(content)
                written = Written(sha256_of(content), len(content), 1)
                LayerStore(cache).put(f"{number}{made.tag}", "x", written, temporary)
    world.registry.forget()
    assert diff(world, old.name, new.name).files
    assert not fetched_layers(world, old) | fetched_layers(world, new)


def test_a_layer_that_is_not_what_the_configuration_says_is_an_error(world: World) -> None:
    old, new = world.push(OLD, OLD_FILES), world.push(NEW, NEW_FILES)
    config = json.loads(new.config)
    config["rootfs"]["diff_ids"][-1] = "sha256:" + "0" * 64
    data = canonical_json(config)
    manifest = json.loads(world.repository.manifests[new.subject.digest][0])
    manifest["config"] |= {"digest": world.repository.upload_bytes(data), "size": len(data)}
    world.repository.put_manifest(canonical_json(manifest), OCI_MANIFEST, "lies")
    with pytest.raises(RegistryError, match="not the one"):
        diff(world, old.name, f"{NAME}:lies")


def test_a_layer_that_unpacks_to_more_than_a_layer_may_be_is_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = world.push(OLD, OLD_FILES), world.push(NEW, NEW_FILES)
    monkeypatch.setattr("himl_container.publish.contents.plausible_size", lambda compressed: 1000)
    with pytest.raises(RegistryError, match="more than 1000 bytes"):
        diff(world, old.name, new.name)


def test_locks_are_compared_with_each_other_and_with_images(world: World, tmp_path: Path) -> None:
    made = world.push(OLD)
    write_lock(NEW, world.settings.lock_file)
    with pytest.raises(InputError, match="no lock is attached"):
        diff(world, made.name, ".")
    attach(world, made)
    found = diff(world, made.name, ".")
    assert (found.new.source, found.files) == ("lock", None)
    assert {one.name for one in found.packages} == {"numpy", "zlib"}
    assert {one.name for one in found.layers} == {"conda:numpy", "conda:zlib", "himl"}
    other = tmp_path / "other.toml"
    write_lock(NEW, other)
    assert diff(world, str(other), ".").identical


def test_files_of_wheels_folders_and_whiteouts() -> None:
    old = list_layer([tar({**wheel_files("a", "1", {"a.py": b"1", "b.py": b"2"}), "etc/x": b"1", "etc/l": "to"})])
    new = list_layer([tar({**wheel_files("a", "2", {"a.py": b"1", "b.py": b"3"}), "etc/.wh.y": b"", "etc/l": "on"})])
    found = {one.package: one for one in file_changes(old, new, fallback="base 1")}
    assert (found["pip a"].added, found["pip a"].removed, found["pip a"].changed) == (1, 1, 1)
    # x went with its layer, y is taken away from below, the link points elsewhere.
    assert found["base 1"] == FileChanges("base 1", added=0, removed=2, changed=1, bytes_added=0, bytes_removed=1)
    assert file_changes(old, old) == ()
    assert PREFIX in next(iter(old.facts))
