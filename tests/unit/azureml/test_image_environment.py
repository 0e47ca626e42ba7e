"""Environments of our images: what they are called, what is in them, when they are registered."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from himl_container.azureml.environments import (
    INTERPRETER,
    environment_of,
    image_environment,
    register_environment,
    registered_environment,
)
from himl_container.cache import Cache
from himl_container.errors import AzureMLError
from himl_container.image.model import PREFIX
from himl_container.launch.spec import ImageRef

FINGERPRINT = "0123456789abcdef" * 4
DIGEST = "sha256:" + "a" * 64
IMAGE = ImageRef("himl/p:0123", digest=f"reg.azurecr.io/himl/p@{DIGEST}", fingerprint=FINGERPRINT)
WORKSPACE = cast("Any", SimpleNamespace(subscription_id="s", resource_group="g", name="w", _workspace_id="1"))


class Service:
    """The service of environments, through the SDK's own class."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Any] = {}
        self.asked: list[str] = []
        self.failures: list[Exception] = []

    def get(self, _workspace: object, name: str, version: str | None = None) -> Any:
        self.asked.append("get")
        if self.failures:
            raise self.failures.pop(0)
        found = [item for key, item in self.kept.items() if key[0] == name and version in (None, key[1])]
        if not found:
            # The SDK's own words (``environment_client.py``).
            raise Exception("Error retrieving the environment definition. Code: 404\n: {}")
        return found[-1]

    def register(self, environment: Any, _workspace: object) -> Any:
        self.asked.append("register")
        registered = SimpleNamespace(name=environment.name, version=environment.version, registered=True)
        self.kept[environment.name, environment.version] = registered
        return registered


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    from azureml.core import Environment

    made = Service()
    monkeypatch.setattr(Environment, "get", made.get)
    # A bound method would not be given the environment.
    monkeypatch.setattr(Environment, "register", lambda self, workspace: made.register(self, workspace))  # noqa: PLW0108
    monkeypatch.setattr("himl_container.azureml.retry.time.sleep", lambda _seconds: None)
    return made


def test_the_image_by_digest_with_its_registry() -> None:
    made = image_environment(IMAGE)
    assert made.docker.base_image == f"himl/p@{DIGEST}"
    assert made.docker.base_image_registry.address == "reg.azurecr.io"
    assert made.python.user_managed_dependencies is True
    assert made.python.interpreter_path == INTERPRETER == f"{PREFIX}/bin/python"
    assert made.name == f"himl-{FINGERPRINT[:32]}"


def test_the_image_by_its_immutable_tag() -> None:
    made = image_environment(IMAGE, by_tag=True)
    assert made.docker.base_image == f"himl/p:{FINGERPRINT[:32]}"
    assert made.version != image_environment(IMAGE).version


def test_a_name_never_means_two_images() -> None:
    other = ImageRef("x", digest=IMAGE.digest.replace("a" * 64, "b" * 64), fingerprint=FINGERPRINT)
    elsewhere = ImageRef("x", digest=IMAGE.digest.replace("reg.", "other."), fingerprint=FINGERPRINT)
    versions = {(one.name, one.version) for one in map(image_environment, (IMAGE, other, elsewhere))}
    assert len(versions) == 3
    assert image_environment(IMAGE).version == image_environment(IMAGE).version


def test_an_image_that_is_not_ours() -> None:
    foreign = ImageRef("python:3", digest=f"reg.azurecr.io/python@{DIGEST}")
    assert image_environment(foreign).name.startswith("himl-")
    with pytest.raises(ValueError, match="no fingerprint"):
        image_environment(foreign, by_tag=True)


@pytest.mark.parametrize("digest", ["", f"himl@{DIGEST}", "reg.azurecr.io/himl:tag"])
def test_an_image_that_was_not_pushed(digest: str) -> None:
    with pytest.raises(ValueError, match="was not pushed"):
        image_environment(ImageRef("himl:1", digest=digest, fingerprint=FINGERPRINT))


def test_it_is_registered_once_and_known_afterwards(service: Service, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    first = environment_of(IMAGE, WORKSPACE, cache=cache)
    assert first.registered  # what the service has is what a run gets
    assert service.asked == ["get", "register"]
    again = environment_of(IMAGE, WORKSPACE, cache=cache)
    assert service.asked == ["get", "register"]
    assert (again.name, again.version) == (first.name, first.version)
    # A workspace of the same name that was made anew has nothing.
    new = cast("Any", SimpleNamespace(**{**vars(WORKSPACE), "_workspace_id": "2"}))
    service.kept.clear()
    environment_of(IMAGE, new, cache=cache)
    assert service.asked[2:] == ["get", "register"]


def test_what_somebody_else_has_registered_is_found(service: Service, tmp_path: Path) -> None:
    environment_of(IMAGE, WORKSPACE, cache=Cache(tmp_path / "one"))
    environment_of(IMAGE, WORKSPACE, cache=Cache(tmp_path / "other"))
    assert service.asked == ["get", "register", "get"]


def test_only_the_word_that_there_is_none_registers_one(service: Service) -> None:
    from azureml.core import Environment

    service.failures = [Exception("Error retrieving the environment definition. Code: 403\n: no")]
    with pytest.raises(AzureMLError, match="Code: 403"):
        register_environment(WORKSPACE, Environment("mine"))
    assert service.asked == ["get"]


def test_a_transient_failure_is_tried_again(service: Service) -> None:
    from azureml.core import Environment

    service.failures = [Exception("Error retrieving the environment definition. Code: 503\n: busy")]
    made: Any = register_environment(WORKSPACE, Environment("mine"))
    assert service.asked == ["get", "get", "register"]
    assert (made.version, made.registered) == ("1", True)
    assert register_environment(WORKSPACE, Environment("mine")) is made


def test_an_environment_by_name(service: Service) -> None:
    service.kept["mine", "3"] = "found"
    assert cast("Any", registered_environment(WORKSPACE, "mine")) == "found"
    with pytest.raises(ValueError, match="The environment 'none' does not exist"):
        registered_environment(WORKSPACE, "none")


def test_the_sdk_does_not_warn_about_our_version(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    from azureml.core import Environment
    from azureml.core.environment import EnvironmentClient  # type: ignore[attr-defined]

    made = Environment("mine")
    made.version = "7"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EnvironmentClient, "__init__", lambda self, _context: None)
        patch.setattr(Environment, "get", Service().get)
        patch.setattr(EnvironmentClient, "_register_environment_definition", lambda self, document: document)
        register_environment(cast("Any", SimpleNamespace(service_context=None)), made)
    assert "version is set" not in caplog.text
