"""``make demo``, after its set-up: what the README promises to whoever clones the repository."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import kit
import pytest
from emulator_fixtures import require_servers
from example_folders import LEFT_BEHIND


@pytest.mark.docker
@pytest.mark.emulator
@pytest.mark.network
@pytest.mark.slow
def test_the_demo_locks_builds_runs_and_submits(
    base_image: str, channel: Path, warm_cache_dir: Path, image_name: str, tmp_path: Path
) -> None:
    require_servers()
    # A copy, so that the lock and the runs of someone who works in this folder stay as they are.
    for name in ("examples", "scripts"):
        shutil.copytree(
            kit.ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns(*LEFT_BEHIND),
        )
    for name in (".venv", ".kit", "himl_container", "LICENSE"):
        (tmp_path / name).symlink_to(kit.ROOT / name)
    done = subprocess.run(
        [tmp_path / "scripts" / "demo.sh"],
        env=kit.clean_environ(
            HIML_CONTAINER_CHANNEL_MIRRORS=f"conda-forge={channel.as_uri()}",
            HIML_CONTAINER_BASE_IMAGE=base_image,
            HIML_CONTAINER_CACHE_DIR=str(warm_cache_dir),
            HIML_CONTAINER_IMAGE_NAME=image_name,
            # Where no emulator runs; the demo then starts its own.
            HIML_CONTAINER_EMULATOR_DIR=str(tmp_path / "no-emulator"),
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
    local, _, submitted = done.stdout.partition("Example 2: submitted to an emulator")
    assert local.rstrip("= \n").splitlines()[-1].startswith("Nothing has changed")
    # Its log, as it was followed; the file that was downloaded; the image, the same wherever it is.
    followed = submitted.partition("logs --emulator --follow")[2].partition("\n$ ")[0]
    assert "89, 97, 101\n" in followed
    (log,) = (tmp_path / "examples/2/results").rglob("std_log.txt")
    assert "89, 97, 101\n" in log.read_text()
    assert "Run, registry, daemon and lock have the same image." in submitted.partition("verify --emulator")[2]
