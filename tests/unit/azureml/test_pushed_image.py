"""The image of a run in a registry, and what is asked of whom to have it there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from himl_container.azureml.images import REMEMBERED, pushed_image
from himl_container.azureml.workspace_registry import registry_of
from himl_container.cache import Cache
from himl_container.image import fingerprint as fingerprints
from himl_container.progress import SilentReporter
from himl_container.publish import build as building
from himl_container.publish.build import Built
from himl_container.publish.remote import RemoteImage
from himl_container.registry.model import Descriptor
from himl_container.settings import Settings

FINGERPRINT = "0123456789abcdef" * 4
DIGEST = "sha256:" + "a" * 64
RESOURCE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/Reg123"


class Workspace:
    """A workspace that counts who asks for its registry."""

    subscription_id, resource_group, name = "s", "g", "w"

    def __init__(self, identifier: str = "1", resource: str | None = RESOURCE) -> None:
        self._workspace_id, self._resource, self.asked = identifier, resource, 0

    def get_details(self) -> dict[str, Any]:
        self.asked += 1
        return {"containerRegistry": self._resource}


class Builds:
    """Stands for the pipeline: what it was asked, and an image that it has pushed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Settings, dict[str, Any]]] = []
        self.tested = True
        monkeypatch.setattr(building, "build", self.build)

    def build(self, settings: Settings, **words: Any) -> Built:
        self.asked.append((settings, words))
        settings.lock_file.write_text("lock")
        files = (settings.lock_file, *settings.conda_files)
        fingerprints.remember(settings, files, FINGERPRINT, Cache(settings.cache_dir))
        remote = RemoteImage(f"{settings.remote_name}:{FINGERPRINT[:32]}", Descriptor("m", DIGEST, 1), self.tested)
        return Built(
            fingerprints.tag_of(settings.image_name, FINGERPRINT), FINGERPRINT, True, self.tested, remote=remote
        )


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    return Builds(monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "environment.yml"
    file.write_text("name: a\n")
    return Settings(tmp_path, (file,), tmp_path / "pylock.himl.toml", tmp_path / "cache", image_name="himl/p")


def pushed(settings: Settings, workspace: Workspace, **words: Any) -> Any:
    return pushed_image(settings, cast("Any", workspace), SilentReporter(), **words)


def test_it_is_built_tested_and_pushed_to_the_workspaces_registry(settings: Settings, builds: Builds) -> None:
    image = pushed(settings, Workspace())
    assert image.digest == f"reg123.azurecr.io/himl/p@{DIGEST}"
    assert (image.tag, image.fingerprint) == (f"himl/p:{FINGERPRINT[:32]}", FINGERPRINT)
    ((used, words),) = builds.asked
    assert used.registry == "reg123.azurecr.io"
    assert (words["push"], words["test"], words["locked"]) == (True, True, False)


def test_a_registry_of_the_settings_wins(settings: Settings, builds: Builds) -> None:
    workspace = Workspace()
    image = pushed(dataclasses.replace(settings, registry="team.azurecr.io"), workspace)
    assert image.digest.startswith("team.azurecr.io/himl/p@")
    assert workspace.asked == 0


def test_a_rerun_asks_nobody(settings: Settings, builds: Builds) -> None:
    first = pushed(settings, Workspace())
    again = Workspace()
    assert pushed(settings, again) == first
    assert (len(builds.asked), again.asked) == (1, 0)


def test_a_changed_environment_is_built(settings: Settings, builds: Builds) -> None:
    pushed(settings, Workspace())
    settings.conda_files[0].write_text("name: b\n")
    pushed(settings, Workspace())
    assert len(builds.asked) == 2


def test_another_workspace_and_another_registry_are_asked(settings: Settings, builds: Builds) -> None:
    pushed(settings, Workspace())
    pushed(settings, Workspace("2"))
    pushed(dataclasses.replace(settings, registry="team.azurecr.io"), Workspace())
    pushed(dataclasses.replace(settings, compression="zstd"), Workspace())
    assert len(builds.asked) == 4


def test_what_was_seen_holds_for_a_day(settings: Settings, builds: Builds) -> None:
    pushed(settings, Workspace(), clock=lambda: 1000.0)
    pushed(settings, Workspace(), clock=lambda: 1000.0 + REMEMBERED)
    assert len(builds.asked) == 1
    pushed(settings, Workspace(), clock=lambda: 1001.0 + REMEMBERED)
    pushed(settings, Workspace(), clock=lambda: 10.0)  # a clock that was put back
    assert len(builds.asked) == 3


def test_an_untested_image_will_not_do_where_a_tested_one_is_wanted(settings: Settings, builds: Builds) -> None:
    builds.tested = False
    pushed(settings, Workspace(), test=False)
    pushed(settings, Workspace(), test=False)
    assert len(builds.asked) == 1
    pushed(settings, Workspace())
    assert len(builds.asked) == 2


def test_the_registry_is_asked_for_once(tmp_path: Path) -> None:
    workspace, cache = Workspace(), Cache(tmp_path)
    assert registry_of(cast("Any", workspace), cache) == "reg123.azurecr.io"
    assert registry_of(cast("Any", workspace), cache) == "reg123.azurecr.io"
    assert workspace.asked == 1
    new = Workspace("2", RESOURCE.replace("Reg123", "other1"))
    assert registry_of(cast("Any", new), cache) == "other1.azurecr.io"


def test_the_registry_of_another_cloud(tmp_path: Path) -> None:
    workspace = Workspace()
    suffixes = SimpleNamespace(acr_login_server_endpoint=".azurecr.cn")
    workspace._auth = SimpleNamespace(_cloud_type=SimpleNamespace(suffixes=suffixes))  # type: ignore[attr-defined]
    assert registry_of(cast("Any", workspace), Cache(tmp_path)) == "reg123.azurecr.cn"


@pytest.mark.parametrize("resource", [None, "", "/registries/..", "/registries/a.b"])
def test_a_workspace_without_a_registry(tmp_path: Path, resource: str | None) -> None:
    with pytest.raises(ValueError, match="has no container registry"):
        registry_of(cast("Any", Workspace(resource=resource)), Cache(tmp_path))
