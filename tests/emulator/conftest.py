"""What the tests of this folder share beside the emulator (``tests/emulator_fixtures.py``)."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The SDK writes logs below the working directory."""
    monkeypatch.chdir(tmp_path)
