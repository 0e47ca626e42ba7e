"""The example of low priority with plain Python; tests/azureml/test_low_priority.py runs it in containers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import kit
import pytest

pytestmark = pytest.mark.slow

SAMPLE = kit.ROOT / "examples" / "low_priority" / "sample.py"


def train(folder: Path, epochs: int) -> str:
    done = subprocess.run(
        [sys.executable, SAMPLE, "--epochs", str(epochs)],
        cwd=folder,
        env=kit.clean_environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    assert "Starting from the beginning" in train(tmp_path, 2)
    printed = train(tmp_path, 3)
    assert "Starting from outputs/checkpoints/recovery_epoch=1.ckpt" in printed
    assert "Trained 3 epochs" in printed
    weights = json.loads((tmp_path / "outputs" / "weights.json").read_text())
    assert {name: len(values) for name, values in weights.items()} == {
        "layers.0.weight": 32,
        "layers.0.bias": 32,
        "layers.3.weight": 32,
        "layers.3.bias": 1,
    }
