"""How long it takes from the shell prompt to a run, when the image is pushed and the script is unchanged."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from submit_project import Cloud, cloud  # noqa: F401  # a fixture

pytestmark = [pytest.mark.emulator, pytest.mark.docker]


def test_an_unchanged_script_is_submitted(cloud: Cloud, tmp_path: Path) -> None:  # noqa: F811
    cli = cloud.project(tmp_path / "project", train="print('done')\n")
    took = []
    for _ in range(4):
        # On a machine that others use too, the limit grows with what they take of it.
        crowd = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        begin = time.perf_counter()
        cli("submit", "--json", "--azureml", "--emulator", "train.py")
        took.append((time.perf_counter() - begin) / crowd)
    # The first one pushes the image and sends the script; the quickest is the one that others disturbed least.
    assert min(took[1:]) < 1.5, took
