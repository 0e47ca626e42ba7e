"""Look-ups that fail: told, repeated, then an error; nothing is ever built on a guess."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, field
from pathlib import Path

import kit
import pytest
from fault_proxy import Action, Exchange, FaultProxy, drop, status

from himl_container.errors import RegistryError
from himl_container.progress import SilentReporter
from himl_container.publish.build import build
from himl_container.publish.layer_index import TAG
from himl_container.registry.client import RegistryClient
from himl_container.registry.retries import Patience
from himl_container.settings import Settings, load_settings

pytestmark = pytest.mark.docker


@dataclass
class Told(SilentReporter):
    """A reporter that remembers."""

    lines: list[str] = field(default_factory=list)

    def info(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def settings(
    run_cli: kit.Cli, project: kit.ProjectFolder, proxy: FaultProxy, base: str, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings with a current lock, on a machine without a daemon."""
    project.environment("python =3.11")
    environ = {**run_cli.environ, "HIML_CONTAINER_REGISTRY": proxy.host, "HIML_CONTAINER_BASE_IMAGE": base}
    kit.Cli(run_cli.cwd, environ)("lock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project.path / 'none.sock'}")
    return load_settings({}, cwd=project.path, environ=environ)


@dataclass
class Attempt:
    """One ``build --push --no-test`` with a registry whose pauses take no time."""

    settings: Settings
    told: Told = field(default_factory=Told)
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> object:
        patience = Patience(self.told, sleep=self.pauses.append)
        connect = functools.partial(RegistryClient.connect, patience=patience)
        return build(self.settings, reporter=self.told, locked=True, push=True, test=False, connect_to=connect)

    @property
    def made(self) -> list[Path]:
        """Layers that were built."""
        return list((self.settings.cache_dir / "blobs" / "sha256").glob("*"))


@pytest.mark.parametrize(
    ("action", "tries"),
    [(status(401), False), (status(403), False), (status(429), True), (status(500), True), (drop, True)],
    ids=["401", "403", "429", "500", "cut"],
)
@pytest.mark.parametrize("place", ["/manifests/[0-9a-f]{32}", f"/manifests/{TAG}"], ids=["image", "index"])
def test_look_up_that_fails_ends_as_an_error_and_nothing_is_built(
    settings: Settings, proxy: FaultProxy, action: Action, tries: bool, place: str
) -> None:
    proxy.on("GET", place, action, times=None)
    attempt = Attempt(settings)
    with pytest.raises(RegistryError) as caught:
        attempt()
    assert caught.value.exit_code == 75
    assert attempt.made == []
    assert proxy.paths("PUT|POST|PATCH") == []
    assert bool(attempt.pauses) == tries
    assert bool(attempt.told.lines) == tries
    if TAG not in place:
        assert "Nothing was built" in caught.value.hint


def test_registry_that_never_answers_is_given_up(
    settings: Settings, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("himl_container.registry.pools.ANSWER_SECONDS", 0.2)
    done = threading.Event()

    def hang(exchange: Exchange) -> None:
        done.wait(30)
        exchange.cut()

    proxy.on("GET", "/manifests/[0-9a-f]{32}", hang, times=None)
    attempt = Attempt(settings)
    with pytest.raises(RegistryError, match=r"(?i)time|answer"):
        attempt()
    done.set()
    assert attempt.pauses
    assert attempt.made == []


def test_registry_that_asks_for_time_gets_it_and_the_build_goes_on(settings: Settings, proxy: FaultProxy) -> None:
    proxy.on("GET", "/manifests/[0-9a-f]{32}", status(429, headers={"Retry-After": "7"}))
    proxy.on("GET", f"/manifests/{TAG}", status(503))
    attempt = Attempt(settings)
    built = attempt()
    assert built.pushed is not None  # type: ignore[attr-defined]
    assert max(attempt.pauses) >= 7
    assert len(attempt.told.lines) >= 2


def test_index_that_cannot_be_written_is_told_and_the_image_is_there(settings: Settings, proxy: FaultProxy) -> None:
    proxy.on("PUT", f"/manifests/{TAG}", status(403), times=None)
    attempt = Attempt(settings)
    built = attempt()
    assert built.pushed is not None  # type: ignore[attr-defined]
    assert any("index could not be written" in line for line in attempt.told.lines)
    proxy.behave()
    again = Attempt(settings)()
    assert not again.built  # type: ignore[attr-defined]


def test_registry_that_does_not_answer_is_exit_code_75(
    run_cli: kit.Cli, project: kit.ProjectFolder, base: str, settings: Settings, proxy: FaultProxy
) -> None:
    proxy.on("GET", "/manifests/", status(401), times=None)
    environ = {"HIML_CONTAINER_REGISTRY": proxy.host, "HIML_CONTAINER_BASE_IMAGE": base}
    for arguments in (("build", "--locked", "--push"), ("build", "--locked")):
        done = run_cli(*arguments, environ=environ, expect=75)
        assert "Nothing was built" in done.stderr
        assert "Traceback" not in done.stderr
    assert Attempt(settings).made == []
