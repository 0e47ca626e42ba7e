"""The first files of a project make an image, and a run in it."""

from __future__ import annotations

import json
from pathlib import Path

import kit
import pytest

pytestmark = pytest.mark.docker


@pytest.fixture
def cache_dir(warm_cache_dir: Path) -> Path:
    return warm_cache_dir


def test_init_then_run_local(run_cli: kit.Cli, project: kit.ProjectFolder) -> None:
    run_cli("init")
    done = run_cli("run", "--local", "sample.py", "--darts", "2000", "--seed", "7")
    kept = project.path / "runs" / "latest"
    result = json.loads((kept / "outputs" / "result.json").read_text(encoding="utf-8"))
    assert (result["darts"], result["seed"]) == (2000, 7)
    assert f"pi is about {result['pi']:.4f}, after 2000 darts" in done.stdout
    assert (project.path / "pylock.himl.toml").is_file()
    assert {path.name for path in (kept / "snapshot").iterdir()} >= {"environment.yml", "sample.py"}
