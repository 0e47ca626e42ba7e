from __future__ import annotations

from pathlib import Path

import pytest
from launch_fakes import Told


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source folder with one script."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "train.py").write_text("print('hello')\n")
    return folder
