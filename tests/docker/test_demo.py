"""``make demo``, after its set-up: what the README promises to whoever clones the repository."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import kit
import pytest


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.slow
def test_the_demo_locks_builds_and_runs_both_examples(
    base_image: str, channel: Path, warm_cache_dir: Path, image_name: str, tmp_path: Path
) -> None:
    # A copy, so that the lock and the runs of someone who works in this folder stay as they are.
    for name in ("examples", "scripts"):
        shutil.copytree(
            kit.ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns("runs", "wheels", "data", "outputs", "pylock.himl.toml", "__pycache__"),
        )
    (tmp_path / ".venv").symlink_to(kit.ROOT / ".venv")
    done = subprocess.run(
        [tmp_path / "scripts" / "demo.sh"],
        env=kit.clean_environ(
            HIML_CONTAINER_CHANNEL_MIRRORS=f"conda-forge={channel.as_uri()}",
            HIML_CONTAINER_BASE_IMAGE=base_image,
            HIML_CONTAINER_CACHE_DIR=str(warm_cache_dir),
            HIML_CONTAINER_IMAGE_NAME=image_name,
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "89, 97, 101\n" in done.stdout
    measures = json.loads((tmp_path / "examples/5/runs/latest/outputs/measures.json").read_text())
    assert measures["accuracy"] > 0.9
    assert done.stdout.rstrip().splitlines()[-1].startswith("Nothing has changed")
