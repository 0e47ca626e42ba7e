"""The base image: what is in a created one, and how a pin is made and kept."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_images import REPORTER, Place, base, image, layer

from himl_container.cache import Cache
from himl_container.cli.main import cli
from himl_container.environment.lockfile import read_lock, write_lock
from himl_container.environment.model import BasePin, Declared, Lock
from himl_container.errors import BuildError, InputError, RegistryError
from himl_container.image.base import pin_base, resolve_base
from himl_container.image.base_bump import describe
from himl_container.image.base_create import DebianBase, create_base
from himl_container.image.model import EPOCH

pytestmark = pytest.mark.docker

UNREACHABLE = "127.0.0.1:9/himl/none:1"


def test_an_image_that_no_registry_knows_is_pinned_by_its_layers(place: Place) -> None:
    below = place.base()
    pin = pin_base(place.tag("base"), engine=place.engine)
    assert pin == BasePin(place.tag("base"), rootfs=below.rootfs)
    assert resolve_base(pin, engine=place.engine, reporter=REPORTER) == below


def test_a_digest_in_the_name_is_the_pin(machine: Place) -> None:
    reference = "example.org/team/base@sha256:" + "1" * 64
    assert pin_base(reference, engine=machine.engine) == BasePin(reference, digest="sha256:" + "1" * 64)


def test_another_image_under_the_pinned_name_is_refused(machine: Place) -> None:
    below = machine.base()
    pin = pin_base(machine.tag("base"), engine=machine.engine)
    machine.engine.load(image(below, [layer(machine.folder, "more")], machine.tag("base")), REPORTER)
    with pytest.raises(BuildError, match="is not the one that the lock names") as caught:
        resolve_base(pin, engine=machine.engine, reporter=REPORTER)
    assert "base bump" in caught.value.hint


def test_a_pinned_image_that_is_not_there(machine: Place) -> None:
    with pytest.raises(BuildError, match="not in the daemon") as caught:
        resolve_base(
            BasePin(machine.tag("none"), rootfs="sha256:" + "2" * 64), engine=machine.engine, reporter=REPORTER
        )
    assert "base load" in caught.value.hint


def test_a_registry_that_does_not_answer(machine: Place) -> None:
    with pytest.raises(RegistryError, match="not in the daemon") as caught:
        pin_base(UNREACHABLE, engine=machine.engine)
    assert "base create" in caught.value.hint
    with pytest.raises(BuildError, match="cannot be pulled"):
        resolve_base(BasePin(UNREACHABLE, digest="sha256:" + "3" * 64), engine=machine.engine, reporter=REPORTER)


def test_an_image_for_another_kind_of_machine(machine: Place) -> None:
    machine.engine.load(base(machine.folder, machine.tag("arm"), architecture="arm64"), REPORTER)
    pin = pin_base(machine.tag("arm"), engine=machine.engine)
    assert resolve_base(pin, engine=machine.engine, reporter=REPORTER, platform="linux-aarch64")
    with pytest.raises(BuildError, match="is for arm64, the environment for linux-64"):
        resolve_base(pin, engine=machine.engine, reporter=REPORTER)


@pytest.mark.parametrize("name", ["", "UPPER", "a b", "a:b:c", "../x", "a@sha256:12", "-x", "a\nb", "$(id)"])
def test_what_is_no_name(machine: Place, name: str) -> None:
    with pytest.raises(InputError, match="not the name of an image"):
        pin_base(name, engine=machine.engine)


def test_what_a_created_base_holds(machine: Place, base_image: str, tmp_path: Path) -> None:
    """One layer without anything of the machine or the moment, in which apt works."""
    found = machine.engine.inspect(base_image)
    assert found is not None
    assert len(found.diff_ids) == 1
    assert found.config["Cmd"] == ["bash"]
    archive = tmp_path / "image.tar"
    with machine.engine._client.open("export", f"/images/{base_image}/get") as stream, archive.open("wb") as out:
        while chunk := stream.read(1 << 20):
            out.write(chunk)
    with tarfile.open(archive) as outer:
        name = next(one for one in outer.getnames() if one.endswith("layer.tar") or one == found.diff_ids[0])
        with tarfile.open(fileobj=outer.extractfile(name)) as inner:
            entries = {entry.name.removeprefix("./"): entry for entry in inner}
    assert {entry.mtime for entry in entries.values()} == {EPOCH}
    for path in ("etc/hostname", "etc/resolv.conf", "etc/machine-id", "var/cache/apt/pkgcache.bin"):
        assert path not in entries
    assert not [path for path in entries if path.startswith(("var/log/", "var/lib/apt/lists/", "usr/share/man/man"))]
    assert "usr/share/doc/bash/copyright" in entries
    assert entries["bin"].issym()


def test_a_base_can_be_looked_into(machine: Place, base_image: str) -> None:
    contents = describe(pin_base(base_image, engine=machine.engine), machine.engine)
    assert contents is not None
    assert contents.release.startswith("Debian GNU/Linux")
    assert contents.packages["bash"]
    assert contents.environment["PATH"].startswith("/usr/local/sbin")


@pytest.mark.network
@pytest.mark.slow
def test_the_same_packages_give_the_same_base(machine: Place, base_image: str, tmp_path: Path) -> None:
    """Made again, on another day; only what the mirror has published since may differ."""
    engine = machine.engine
    # dpkg waits for the disk after each file, and memory lets nobody wait.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        made = create_base(machine.tag("again"), DebianBase(), cache=Cache(Path(folder)), reporter=REPORTER)
        again = engine.load(made, REPORTER)
    kit = engine.inspect(base_image)
    assert kit is not None
    if again.id != kit.id:
        assert _packages(base_image, machine) != _packages(machine.tag("again"), machine)


def _packages(reference: str, machine: Place) -> object:
    contents = describe(pin_base(reference, engine=machine.engine), machine.engine)
    assert contents is not None
    return contents.packages


def test_load_names_what_it_brought(machine: Place, tmp_path: Path) -> None:
    from himl_container.image.base_create import write_archive

    file = tmp_path / "carried base.tar"
    write_archive(base(machine.folder, machine.tag("carried")), file)
    done = CliRunner().invoke(cli, ["base", "load", str(file), "--quiet", "--cache-dir", str(tmp_path / "c")])
    assert (done.exit_code, done.stdout) == (0, machine.tag("carried") + "\n")


def test_bump_takes_the_present_image_into_the_lock(machine: Place, tmp_path: Path) -> None:
    below = machine.base()
    name, lock_file = machine.tag("base"), tmp_path / "pylock.himl.toml"
    write_lock(_lock(BasePin(name, rootfs=below.rootfs)), lock_file)
    present = machine.engine.load(image(below, [layer(machine.folder, "more")], name), REPORTER)

    def bump(*flags: str) -> tuple[int, str]:
        options = ["--lock-file", str(lock_file), "--base-image", name, "--cache-dir", str(tmp_path / "c"), "--quiet"]
        (tmp_path / "environment.yml").write_text("name: x\ndependencies:\n  - python\n")
        options += ["--conda-file", str(tmp_path / "environment.yml")]
        done = CliRunner().invoke(cli, ["base", "bump", *options, *flags], catch_exceptions=False)
        return done.exit_code, done.stdout

    before = lock_file.read_bytes()
    code, text = bump("--dry-run")
    assert (code, lock_file.read_bytes()) == (0, before)
    assert text.startswith(f"- {name} layers {below.rootfs}\n+ {name} layers {present.rootfs}\n")
    assert bump()[0] == 0
    assert read_lock(lock_file) == _lock(BasePin(name, rootfs=present.rootfs))
    assert bump()[1].startswith("The pin has not moved.")


def _lock(pin: BasePin) -> Lock:
    return Lock(
        platform="linux-64",
        python_version="3.11.7",
        base=pin,
        virtual_packages=(),
        variables=(),
        declared=Declared((), (), (), (), (), (), pin.reference, "linux-64", ()),
        conda=(),
        wheels=(),
    )


def test_a_registry_s_digest_is_the_pin_and_brings_the_image_back(place: Place, registry: str) -> None:
    below = place.base()
    repository, name = f"{registry}/{place.name}", f"{registry}/{place.name}:1"
    place.engine.tag(below.id, name)
    push = list(place.engine._client.sdk.push(repository, tag="1", stream=True, decode=True))
    assert not [message for message in push if "error" in message]
    pushed = place.engine.registry_digest(name)
    for tag in (name, place.tag("base")):
        place.engine.remove_image(tag)
    if below.repo_digests:
        assert place.engine.inspect(below.id) is None

    pin = pin_base(name, engine=place.engine)
    assert pin == BasePin(name, digest=pushed)
    found = resolve_base(pin, engine=place.engine, reporter=REPORTER)
    assert found.diff_ids == below.diff_ids
    assert f"{repository}@{pushed}" in found.repo_digests
    assert pin_base(f"{repository}@{pushed}", engine=place.engine).digest == pushed
    # What was pulled is compressed in containerd's store; our layers go on top of it all the same.
    ours = image(found, [layer(place.folder, "one")], place.tag("1"))
    engine = place.engine
    assert engine.load(ours, REPORTER).diff_ids == ours.diff_ids
    assert engine.bytes_sent == ours.layers[0].size
    place.engine.remove_image(f"{repository}@{pushed}")


def test_a_registry_that_has_no_such_image(place: Place, registry: str) -> None:
    with pytest.raises(RegistryError):
        place.engine.registry_digest(f"{registry}/none:1")
    with pytest.raises(RegistryError):
        place.engine.pull(f"{registry}/none:1", REPORTER)
