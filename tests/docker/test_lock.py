"""``himl-container lock`` on a real daemon, channel and solver."""

from __future__ import annotations

import json
from pathlib import Path

import kit
import pytest

pytestmark = pytest.mark.docker


@pytest.fixture
def cache_dir(warm_cache_dir: Path) -> Path:
    return warm_cache_dir


def result(done: object) -> dict[str, object]:
    events = [json.loads(line) for line in done.stdout.splitlines()]  # type: ignore[attr-defined]
    return next(event for event in events if event["event"] == "result")


def test_from_no_lock_to_one_that_stays(run_cli: kit.Cli, project: kit.ProjectFolder) -> None:
    project.environment("python =3.11", "tinytool")
    lock = project.path / "pylock.himl.toml"
    dry = run_cli("lock", "--dry-run")
    assert "+ conda tinytool: " in dry.stdout
    assert not lock.exists()
    first = result(run_cli("lock", "--json"))
    assert first["written"]
    assert {"base", "conda", "assumed"} <= {item["kind"] for item in first["differences"]}  # type: ignore[union-attr, index]
    before = lock.read_bytes()
    assert b"file://" not in before
    assert not result(run_cli("lock", "--json"))["written"]
    run_cli("lock", "--check")
    project.environment("python =3.11", "tinytool", "meta")
    assert "Conda package added: meta" in run_cli("lock", "--check", expect=67).stdout
    changed = run_cli("lock", "--diff").stdout
    assert "+ conda meta: " in changed
    assert "tinytool" not in changed
    project.environment("python =3.11", "tinytool")
    run_cli("lock")
    assert lock.read_bytes() == before
