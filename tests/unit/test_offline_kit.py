"""``scripts/offline_kit.py``: what it prints is for a shell to evaluate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kit import ROOT, clean_environ


def evaluated(*arguments: str, **variables: str) -> str:
    """Evaluate what the script prints, as the documentation says, and return the two variables."""
    show = "; ".join(f'echo "${name}"' for name in ("HIML_CONTAINER_CHANNEL_MIRRORS", "HIML_CONTAINER_BASE_IMAGE"))
    script = f'set -e; eval "$("{sys.executable}" scripts/offline_kit.py "$@")"; {show}'
    command = ["bash", "-c", script, "bash", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environ(**variables), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_the_user_has_set_is_left_alone() -> None:
    mirrors, base = "conda-forge=https://mirror.example/conda-forge", "registry.example/base:1"
    printed = evaluated(HIML_CONTAINER_CHANNEL_MIRRORS=mirrors, HIML_CONTAINER_BASE_IMAGE=base)
    assert printed.splitlines() == [mirrors, base]


def test_offline_conda_forge_is_the_made_channel(channel: Path) -> None:
    printed = evaluated("--offline", HIML_CONTAINER_BASE_IMAGE="registry.example/base:1")
    assert printed.splitlines()[0] == f"conda-forge={channel.as_uri()}"
