"""The first files of a project, submitted: the sample runs on a cluster as it runs here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import kit
import pytest

if TYPE_CHECKING:
    from emulator_fixtures import Emulator

pytestmark = [pytest.mark.emulator, pytest.mark.docker]


def test_init_then_submit(emulator: Emulator, package_sources: Mapping[str, str], tmp_path: Path) -> None:
    environ = {**kit.clean_environ(), **emulator.variables, **package_sources}
    run_cli = kit.Cli(tmp_path, environ)
    run_cli("init")
    run_cli("submit", "--azureml", "--cluster", "cpu-cluster", "--wait", "sample.py", "--darts", "2000", "--seed", "7")
    run_cli("download", "--prefix", "outputs/", "--output", "fetched")
    (found,) = (tmp_path / "fetched").rglob("result.json")
    assert json.loads(found.read_text(encoding="utf-8")).items() >= {"darts": 2000, "seed": 7}.items()
