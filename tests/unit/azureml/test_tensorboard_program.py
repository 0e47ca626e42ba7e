"""How TensorBoard is started: nothing that was copied from a run is imported."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from himl_container.azureml.run_watcher import RunWatcher
from himl_container.azureml.tensorboard import WrappedTensorboard

# Stands for TensorBoard: says that it is ready, and with which arguments, and waits until it is ended.
PROGRAM = """
import json, signal, sys
def run_main():
    print("TensorBoard 0 at http://localhost:6006/" + "+".join(sys.argv[1:]), file=sys.stderr, flush=True)
    signal.pause()
"""
HOSTILE = 'import sys; print("TensorBoard 0 at http://hostile/", file=sys.stderr, flush=True)\n'


@pytest.mark.parametrize("runs", [("tensorboard",), ("tensorboard", "json", "signal")])
def test_runs_that_are_called_like_modules(
    runs: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, root = tmp_path / "site", tmp_path / "logs"
    for folder, text in ((site / "tensorboard", PROGRAM), *((root / run, HOSTILE) for run in runs)):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("" if text is PROGRAM else text)
        (folder / "main.py").write_text(text)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setattr(RunWatcher, "_look", lambda self: True)
    listed: list[Any] = [SimpleNamespace(id=run) for run in runs]
    board = WrappedTensorboard("logs", runs=listed, local_root=root, port=0)
    address = board.start()
    try:
        assert address is not None
        assert address.startswith("http://localhost:6006/--logdir")
        assert board.is_running
    finally:
        board.stop()
