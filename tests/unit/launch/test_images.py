"""Which image a run gets, and what its record keeps of it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from launch_fakes import IMAGE_ID, FakeContainers, Told

from himl_container.cache import Cache
from himl_container.errors import InputError, LaunchError
from himl_container.image.lookup import BuiltImage
from himl_container.image.probe import FoundImage
from himl_container.launch import images
from himl_container.launch.containers import EngineFacts, ImageFacts
from himl_container.launch.images import named_image, project_image
from himl_container.launch.local import LocalOptions, run_local
from himl_container.launch.spec import ImageRef, LaunchSpec
from himl_container.progress import SilentReporter
from himl_container.publish.known_names import remember
from himl_container.settings import Settings

DIGEST = "sha256:" + "d" * 64
NAME = f"myworkspace.azurecr.io/train@{DIGEST}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        root=tmp_path,
        conda_files=(),
        lock_file=tmp_path / "pylock.himl.toml",
        cache_dir=tmp_path / "cache",
        image_name="train",
        registry="myworkspace.azurecr.io",
    )


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of a daemon's images; all of them have the same id."""
    names: set[str] = set()

    def look(name: str, environ: object = None) -> FoundImage | None:
        return FoundImage(IMAGE_ID, (), (), {}) if name in names else None

    monkeypatch.setattr(images, "image_exists", look)
    return names


def named(name: str, settings: Settings) -> ImageRef:
    return named_image(name, settings, reporter=SilentReporter(), environ={})


def test_an_image_of_the_daemon_is_taken_as_it_is(settings: Settings, daemon: set[str]) -> None:
    daemon |= {"train:1", NAME, IMAGE_ID}
    assert named("train:1", settings) == ImageRef("train:1", IMAGE_ID)
    assert named(NAME, settings) == ImageRef(NAME, IMAGE_ID, NAME)
    assert named(IMAGE_ID, settings) == ImageRef(IMAGE_ID, IMAGE_ID)


def test_a_digest_that_was_seen_once_is_recorded(settings: Settings, daemon: set[str]) -> None:
    daemon.add("train:1")
    elsewhere = f"elsewhere.azurecr.io/train@{DIGEST}"
    remember(Cache(settings.cache_dir), [IMAGE_ID], [elsewhere])
    assert named("train:1", settings).digest == elsewhere
    remember(Cache(settings.cache_dir), [IMAGE_ID], [NAME])
    assert named("train:1", settings).digest == NAME


def test_a_name_without_a_registry_is_the_daemons_alone(settings: Settings, daemon: set[str]) -> None:
    with pytest.raises(LaunchError, match="has no image 'train:2'") as caught:
        named("train:2", settings)
    assert "HOST/REPOSITORY:TAG" in caught.value.hint


@pytest.mark.parametrize("name", ["", "-v", "a b", "x:1\nHost: y", "../x", "x@sha256:1", "HOST/../x", "a.b/c:d:e"])
def test_names_that_are_none(settings: Settings, daemon: set[str], name: str) -> None:
    with pytest.raises(InputError, match="is not the name of an image"):
        named(name, settings)


def test_the_image_of_the_lock_is_recorded_with_what_it_was_made_from(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.lock_file.write_bytes(b"abc")
    found = BuiltImage("train:" + "f" * 32, IMAGE_ID, "f" * 64, built=False)
    monkeypatch.setattr(images, "find_image", lambda settings: found)
    remember(Cache(settings.cache_dir), [IMAGE_ID], [NAME])
    assert project_image(settings, reporter=SilentReporter()) == ImageRef(
        tag=found.tag,
        id=IMAGE_ID,
        digest=NAME,
        fingerprint="f" * 64,
        lock="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    )


class Daemon(FakeContainers):
    """Has an image of ours that the daemon itself pulled."""

    def __init__(self, *, containerd_store: bool = False) -> None:
        super().__init__()
        self._facts = EngineFacts(gpus=False, rootless=False, containerd_store=containerd_store)

    def image(self, reference: str) -> ImageFacts | None:
        return ImageFacts(IMAGE_ID, (f"train@{DIGEST}", NAME), {"himl.fingerprint": "f" * 64})


def recorded(source: Path, told: Told, containers: FakeContainers, image: ImageRef) -> dict[str, str]:
    screen = {"stdout": io.BytesIO(), "stderr": io.BytesIO()}
    spec = replace(LaunchSpec("train", image, ("python", "train.py")))
    result = run_local(
        spec,
        LocalOptions(source),
        containers=containers,
        reporter=told,  # type: ignore[arg-type]
        environ={},
        screen=screen,  # type: ignore[arg-type]
    )
    value = json.loads((result.folder / "run.json").read_text())["launch"]["image"]
    assert isinstance(value, dict)
    return value


def test_the_record_of_a_run_is_enough_to_find_its_image_again(source: Path, told: Told) -> None:
    known = ImageRef("train:1", IMAGE_ID, f"other.azurecr.io/train@{DIGEST}", "e" * 64, "a" * 64)
    assert recorded(source, told, Daemon(), known) == {
        "tag": "train:1",
        "id": IMAGE_ID,
        "digest": f"other.azurecr.io/train@{DIGEST}",
        "fingerprint": "e" * 64,
        "lock": "a" * 64,
    }


def test_what_the_daemon_itself_pulled_is_known_by_its_digest(source: Path, told: Told) -> None:
    value = recorded(source, told, Daemon(), ImageRef("train:1"))
    assert (value["digest"], value["fingerprint"]) == (NAME, "f" * 64)
    # containerd's store calls every image by a digest, pushed or not.
    assert recorded(source, told, Daemon(containerd_store=True), ImageRef("train:1"))["digest"] == ""
