"""What an emulator's variables replace, and having it back while packages are fetched."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from himl_container.emulator.folder import client_variables
from himl_container.emulator.installation import Installation, open_installation
from himl_container.errors import InputError
from himl_container.launch.spec import redacted
from himl_container.outside import OUTSIDE, REPLACED, go_outside, outside, read_outside, undisturbed
from himl_container.publish.beside import beside, is_in
from himl_container.settings import Settings

PROXY = "user:pass@proxy.example:3128"
BEFORE = {"HTTPS_PROXY": PROXY, "no_proxy": "mirror.example", "SSL_CERT_FILE": "/ours.pem", "OTHER": "x"}


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return open_installation(tmp_path, workspace_name="w", resource_group="g")


@pytest.fixture
def inside(installation: Installation) -> dict[str, str]:
    """The variables of a process under 'emulator exec'."""
    return {**BEFORE, **client_variables(installation, 5010, BEFORE)}


def test_all_that_has_a_meaning_outside_is_noted(installation: Installation) -> None:
    everything = {name: f"/{name}" for name in REPLACED}
    values = client_variables(installation, 5010, everything)
    there = read_outside(values)
    assert there is not None
    assert there.variables == everything
    assert there.registry == installation.workspace.registry_host
    # Nothing else of the emulator's is a variable that somebody may have for the world outside.
    others = {name for name in values if not name.startswith(("AZURE", "MSI_", "HIML_"))}
    assert others == set(REPLACED)


def test_where_nothing_was_replaced_that_is_noted(installation: Installation) -> None:
    there = read_outside(client_variables(installation, 5010, {}))
    assert there is not None
    assert there.variables == {}
    assert read_outside({}) is None


def test_the_outermost_values_stay(installation: Installation, inside: dict[str, str], tmp_path: Path) -> None:
    other = open_installation(tmp_path / "other", workspace_name="v", resource_group="g")
    again = read_outside(client_variables(other, 5011, inside))
    assert again is not None
    assert again.variables == {name: value for name, value in BEFORE.items() if name != "OTHER"}
    assert again.registry == other.workspace.registry_host != installation.workspace.registry_host


def test_outside_there_is_what_was_before(inside: dict[str, str]) -> None:
    emulators = dict(inside)
    with outside(inside):
        seen = dict(inside)
        with outside(inside):
            assert inside == seen
        assert inside == seen
    assert inside == emulators
    assert {name: seen[name] for name in BEFORE} == BEFORE
    assert not seen.keys() & ({*REPLACED, OUTSIDE} - BEFORE.keys())
    assert seen["AZURE_CLIENT_ID"] == emulators["AZURE_CLIENT_ID"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_emulators_come_back_on_every_way_out(kind: type[BaseException], inside: dict[str, str]) -> None:
    emulators = dict(inside)
    with pytest.raises(kind), outside(inside):
        inside["HTTPS_PROXY"] = "changed meanwhile"
        del inside["no_proxy"]
        raise kind
    assert inside == emulators


def test_without_an_emulator_nothing_changes_and_nobody_waits() -> None:
    environ = dict(BEFORE)
    passed = threading.Event()

    def go() -> None:
        with outside(environ):
            passed.set()

    with outside(environ):
        thread = threading.Thread(target=go)
        thread.start()
        assert passed.wait(60)
        assert environ == BEFORE
    thread.join()


def test_threads_are_outside_one_after_the_other(inside: dict[str, str]) -> None:
    """One that leaves must not take the outside away from another, nor one that comes take it for the emulator's."""
    emulators = dict(inside)
    asking, seen = threading.Event(), []

    def go() -> None:
        asking.set()
        with undisturbed(inside) as there:
            seen.append((there is not None, inside["HTTPS_PROXY"]))
            with outside(inside):
                seen.append((OUTSIDE in inside, inside["HTTPS_PROXY"]))

    thread = threading.Thread(target=go)
    with outside(inside):
        thread.start()
        assert asking.wait(60)
        thread.join(0.05)
        assert seen == []
        assert inside["HTTPS_PROXY"] == PROXY
    thread.join(60)
    assert seen == [(True, emulators["HTTPS_PROXY"]), (False, PROXY)]
    assert inside == emulators


def test_a_thread_that_lives_on_has_the_emulators_again(inside: dict[str, str]) -> None:
    left, seen = threading.Event(), []

    def live_on() -> None:
        left.wait(60)
        seen.append(inside["HTTPS_PROXY"])

    with outside(inside):
        thread = threading.Thread(target=live_on)
        thread.start()
    left.set()
    thread.join(60)
    assert seen == ["http://127.0.0.1:5010"]


def test_going_for_good(inside: dict[str, str]) -> None:
    go_outside(inside)
    assert {name: inside[name] for name in BEFORE} == BEFORE
    assert OUTSIDE not in inside
    go_outside(inside)
    assert inside["HTTPS_PROXY"] == PROXY


@pytest.mark.parametrize(
    "text",
    [
        "pass-word",
        "[]",
        "3",
        "[" * 100_000,
        json.dumps({"variables": {"HTTPS_PROXY": "pass-word"}}),
        json.dumps({"registry": "r", "variables": ["pass-word"]}),
        json.dumps({"registry": "r", "variables": {"LD_PRELOAD": "pass-word"}}),
        json.dumps({"registry": "r", "variables": {"HTTPS_PROXY": 3}}),
        json.dumps({"registry": "r", "variables": {"HTTPS_PROXY": "a\0pass-word"}}),
        json.dumps({"registry": 1, "variables": {}}),
    ],
)
def test_a_damaged_note_is_refused_and_not_shown(text: str) -> None:
    environ = {OUTSIDE: text, "HTTPS_PROXY": "http://127.0.0.1:1"}
    before = dict(environ)
    with pytest.raises(InputError, match=OUTSIDE) as caught, outside(environ):
        pass
    assert environ == before
    assert "pass-word" not in f"{caught.value} {caught.value.what} {caught.value.hint}"


def test_a_proxys_password_is_hidden(inside: dict[str, str]) -> None:
    from himl_container.emulator.page import words

    assert PROXY in inside[OUTSIDE]
    assert dict(redacted(tuple(inside.items())))[OUTSIDE] == "***"
    assert words.without_secrets(OUTSIDE, inside[OUTSIDE]) == words.HIDDEN


def test_the_projects_registry_alone_is_reached_through_the_emulator(
    installation: Installation, inside: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = installation.workspace.registry_host
    settings = Settings(tmp_path, (), tmp_path / "lock", tmp_path, registry=host.upper(), image_name="x")
    there = read_outside(inside)
    assert there is not None
    assert is_in(host, settings)
    assert not is_in("other.azurecr.io", settings)
    for name, value in inside.items():
        monkeypatch.setenv(name, value)
    asked: dict[str, Any] = {}

    def connect_to(name: str, **more: Any) -> Any:
        asked[name] = more

    connect = beside(there, settings, connect_to)
    connect(f"{host}/x/y")
    connect("base.example/python")
    assert asked[f"{host}/x/y"] == {}
    assert asked["base.example/python"]["environ"]["HTTPS_PROXY"] == PROXY
    assert OUTSIDE not in asked["base.example/python"]["environ"]
