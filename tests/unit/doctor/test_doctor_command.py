"""All checks together: none hangs, none hides another, and repairs are made only when asked for."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from himl_container.cli import main
from himl_container.doctor import examine as room
from himl_container.doctor.examine import examine, mend
from himl_container.doctor.model import Finding, Group
from himl_container.errors import EngineError, InputError


def fine() -> Iterator[Finding]:
    yield Finding("fine", "ok", "yes")


def test_a_check_that_hangs_is_given_up() -> None:
    never, said = threading.Event(), threading.Event()

    def hang() -> Iterator[Finding]:
        yield Finding("first", "ok", "said before")
        said.set()
        never.wait(60)

    def wait() -> Iterator[Finding]:
        """Be looked at before, so that what was said in time is there however late its thread was begun."""
        assert said.wait(40)
        yield Finding("before", "ok", "yes")

    began = time.monotonic()
    found = examine([Group("before", wait, 45.0), Group("slow", hang, 1.0), Group("fine", fine)])
    assert time.monotonic() - began < 50
    never.set()
    assert [(finding.check, finding.severity) for finding in found] == [
        ("before", "ok"),
        ("first", "ok"),
        ("slow", "error"),
        ("fine", "ok"),
    ]
    assert "no answer within 1 s" in found[2].found


def test_a_check_that_fails_hides_no_other() -> None:
    def refuse() -> Iterator[Finding]:
        raise InputError("is wrong: https://u:CANARY@host", where="file", hint="Mend https://u:CANARY@host.")
        yield

    def crash() -> Iterator[Finding]:
        raise ZeroDivisionError("https://u:CANARY@host")
        yield

    found = examine([Group("a", refuse), Group("b", crash), Group("c", fine)])
    assert [finding.severity for finding in found] == ["error", "error", "ok"]
    assert found[0].found == "file: is wrong: https://host"
    assert "ZeroDivisionError" in found[1].found
    assert "CANARY" not in str(found)


def test_only_what_is_wrong_is_repaired() -> None:
    done: list[str] = []

    def repair(name: str) -> str:
        if name == "bad":
            raise OSError(1, "Operation not permitted", "/x")
        done.append(name)
        return f"did {name}"

    found = mend(
        Finding(name, severity, "", repair=lambda name=name: repair(name))  # type: ignore[misc]
        for name, severity in (("a", "ok"), ("b", "warning"), ("bad", "error"), ("d", "skipped"))
    )
    assert done == ["b"]
    assert [(finding.check, finding.severity) for finding in found] == [("b", "ok"), ("bad", "error")]
    assert found[1].found == "cannot be repaired: /x: Operation not permitted"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """One check, of something that is broken until it is repaired."""
    state = {"broken": True}

    def repair() -> str:
        state["broken"] = False
        return "mended it"

    def check() -> Iterator[Finding]:
        if state["broken"]:
            yield Finding("thing", "error", "is broken", "Nothing works.", "Mend it.", repair)
        else:
            yield Finding("thing", "ok", "works")

    monkeypatch.setattr(room, "groups", lambda settings, environ: (Group("thing", check),))
    return state


def test_the_command_tells_and_changes_nothing(broken: dict[str, bool], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["doctor", "--quiet"]) == EngineError.exit_code == 69
    shown = capsys.readouterr().out
    for part in ("error", "is broken", "Nothing works.", "-> Mend it.", "doctor --fix repairs 1 of these"):
        assert part in shown
    assert broken["broken"]


def test_the_command_repairs_when_asked_to(broken: dict[str, bool], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["doctor", "--fix", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ok"]
    assert [one["found"] for one in result["repairs"]] == ["mended it"]
    assert [one["severity"] for one in result["findings"]] == ["ok"]
    assert not broken["broken"]


def test_everything_that_is_wrong_has_a_meaning_and_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(os.environ):
        if name.startswith("HIML_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("HIML_CONTAINER_REGISTRY", "127.0.0.1:1")
    monkeypatch.setenv("HIML_CONTAINER_CACHE_DIR", str(tmp_path / "not" / "there"))
    monkeypatch.chdir(tmp_path)
    assert main.run(["doctor", "--json"]) == 69
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = {finding["check"]: finding for finding in result["findings"]}
    assert found["docker engine"]["severity"] == found["registry"]["severity"] == "error"
    assert not result["ok"]
    assert not (tmp_path / "not").exists()
    assert all(one["fix"] and one["means"] for one in found.values() if one["severity"] in ("warning", "error"))


def test_the_page_of_the_doctor_has_every_check() -> None:
    from kit import ROOT

    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "himl_container/doctor").glob("*.py"))
    named = set(re.findall(r'(?:Finding\(|check = |space\()\s*"([a-z\' -]+)"', sources))
    assert len(named) >= 15
    assert [name for name in named if f"`{name}`" not in page and name != "himl-container"] == []
