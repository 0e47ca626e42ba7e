"""The logger and the downloads of a training, on a real workspace."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
import pytest

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator


@pytest.fixture(autouse=True)
def _torch() -> None:
    for name in ("torch", "pytorch_lightning"):
        if importlib.util.find_spec(name) is None:
            kit.lacking(f"{name} is not installed; scripts/setup.sh --torch installs it")


def png() -> bytes:
    """Return an image of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


class Figure:
    """What matplotlib's figures have."""

    def savefig(self, target: Any, **_: Any) -> None:
        """Write an image."""
        target.write(png())


def latest(workspace: Workspace, experiment: str) -> Any:
    from azureml.core import Experiment

    return next(Experiment(workspace, experiment).get_runs())


def test_a_run_that_the_logger_makes_from_outside(workspace: Workspace) -> None:
    from himl_container.training import AzureMLLogger

    with AzureMLLogger(
        enable_logging_outside_azure_ml=True,
        experiment_name="outside trials",
        run_name="first",
        workspace=workspace,
    ) as logger:
        assert not logger.is_running_in_azure_ml
        for step in range(3):
            logger.log_metrics({"loss": 1 / (1 + step), "epoch": step // 2}, step=10 * step)
        logger.log_hyperparams({"lr": 0.1, "model": {"layers": 2, "name": "net"}, "deep": True})
        logger.log_figure("curve", Figure(), step=20)
        logger.finalize("success")
        run_id = logger.experiment.id
    run = latest(workspace, "outside_trials")
    assert (run.id, run.get_status(), run.display_name) == (run_id, "Completed", "first")
    metrics = run.get_metrics()
    assert metrics["loss"] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert metrics["hyperparams"] == {"lr": 0.1, "model/layers": 2, "model/name": "net", "deep": True}
    assert any("curve" in name for name in run.get_file_names())


def test_a_training_that_fails_fails_its_run(workspace: Workspace) -> None:
    from himl_container.training import AzureMLLogger

    with (
        pytest.raises(ZeroDivisionError),
        AzureMLLogger(True, "outside_failing", workspace=workspace) as logger,
    ):
        logger.log_metrics({"loss": 1}, step=0)
        raise ZeroDivisionError
    assert latest(workspace, "outside_failing").get_status() == "Failed"


def test_nothing_to_write_makes_no_run(workspace: Workspace) -> None:
    from azureml.core import Experiment

    from himl_container.training import AzureMLLogger

    with AzureMLLogger(True, "outside_nothing", workspace=workspace) as logger:
        logger.log_hyperparams(None)
        logger.finalize("success")
    assert "outside_nothing" not in [one.name for one in Experiment.list(workspace)]


DOWNLOADS = """
import json, logging, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[4])
import lightning_models as models
from azureml.core import Workspace
from himl_container import download_files_from_run_id
run_id, folder, config = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
logging.getLogger("himl_container.azureml.transfers").setLevel(logging.INFO)
records = []
logging.getLogger("himl_container.azureml.transfers").addHandler(type("Notes", (logging.Handler,), {
    "emit": lambda self, record: records.append(record.getMessage())})())

def on_fit_start(self):
    download_files_from_run_id(run_id, folder / "files", workspace_config_path=Path(config))
    found = sorted(path.name for path in (folder / "files" / "data").iterdir())
    (folder / f"rank_{self.trainer.global_rank}.json").write_text(json.dumps([found, records]))

trainer = models.make_trainer(folder, devices=2, strategy="ddp")
trainer.fit(models.make_module(on_fit_start=on_fit_start), models.data())
"""


def test_files_are_downloaded_by_one_of_two_processes(emulator: Emulator, workspace: Workspace, tmp_path: Path) -> None:
    from azureml.core import Experiment

    run = Experiment(workspace, "downloads").start_logging(outputs=False, snapshot_directory=None)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name * 1000)
        run.upload_file(f"data/{name}.txt", str(tmp_path / name))
    run.complete()
    script = tmp_path / "script.py"
    script.write_text(DOWNLOADS)
    models = kit.ROOT / "tests" / "unit" / "training"
    words = [sys.executable, script, run.id, tmp_path, emulator.config, models]
    done = subprocess.run(words, env=os.environ, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in range(2))
    assert first[0] == second[0] == ["a.txt", "b.txt"]
    assert [len(records) for _, records in (first, second)] == [1, 0]
    assert "Downloaded 2 files" in first[1][0]
