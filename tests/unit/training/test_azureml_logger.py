"""The logger: with both of Lightning's packages, in AzureML and outside, in the first process and others."""

from __future__ import annotations

import argparse
import copy
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from himl_container.training import (
    AzureMLLogger,
    AzureMLProgressBar,
    BatchTimeCallback,
    RecoveryCheckpoint,
)
from himl_container.training.families import PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_a_trainer_of_each_package_takes_all_parts_for_its_own(
    models: ModuleType, fake_run: Any, tmp_path: Path, package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib

    lightning = importlib.import_module(package)
    logger, bar = AzureMLLogger(), AzureMLProgressBar(refresh_rate=2, print_timestamp=False)
    callbacks = [RecoveryCheckpoint(tmp_path / "recovery"), bar, BatchTimeCallback()]
    assert isinstance(logger, AzureMLLogger)
    assert isinstance(logger, lightning.loggers.Logger)
    assert all(isinstance(item, lightning.Callback) for item in callbacks)

    def training_step(self: Any, batch: Any, _index: int) -> Any:
        loss = self.loss_of(batch)
        self.log("loss", loss)
        return loss

    trainer = models.make_trainer(
        tmp_path,
        package,
        logger=logger,
        callbacks=callbacks,
        enable_progress_bar=True,
        enable_checkpointing=True,
        max_epochs=2,
    )
    assert trainer.progress_bar_callback is bar
    assert trainer.callbacks[-1] is callbacks[0], "checkpoints are written last"
    trainer.fit(models.make_module(package, training_step=training_step), models.data())
    assert [step for name, _, step in fake_run.metrics if name == "loss"] == list(range(8))
    assert len(fake_run.named("timing/train/epoch_time [sec]")) == 2
    assert "Training epoch 1 (step 8):    4/4 (100%) completed." in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "recovery").iterdir()) == [
        "recovery_epoch=0.ckpt",
        "recovery_epoch=1.ckpt",
    ]
    assert fake_run.flushed


@pytest.mark.parametrize(("package", "other"), [PACKAGES, PACKAGES[::-1]])
def test_only_the_package_of_the_script_is_imported(package: str, other: str) -> None:
    script = f"""
import sys
from health_ml.utils import AzureMLLogger, AzureMLProgressBar, BatchTimeCallback
from himl_container.training import RecoveryCheckpoint
assert not [name for name in ("torch", "azureml.core", *{PACKAGES!r}) if name in sys.modules]
import {package} as lightning
trainer = lightning.Trainer(logger=[AzureMLLogger()], accelerator="cpu", devices=1,
    callbacks=[AzureMLProgressBar(), BatchTimeCallback(), RecoveryCheckpoint()])
assert isinstance(trainer.progress_bar_callback, AzureMLProgressBar)
assert {other!r} not in sys.modules, "the other package was imported"
assert "azureml.core" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_steps_are_kept_although_lightning_adds_the_epoch(fake_run: Any) -> None:
    logger = AzureMLLogger()
    logger.log_metrics({"loss": 0.5, "epoch": 3}, step=17)
    logger.log_metrics({"done": 1})
    assert fake_run.metrics == [("loss", 0.5, 17), ("epoch", 3, 17), ("done", 1, None)]


def test_tensors_and_nested_metrics_become_plain_numbers(models: ModuleType, fake_run: Any) -> None:
    import torch

    AzureMLLogger().log_metrics({"a": torch.tensor(2), "b": {"c": torch.tensor(0.5), "d": 1}}, step=0)
    assert fake_run.metrics == [("a", 2, 0), ("b/c", 0.5, 0), ("b/d", 1, 0)]
    assert type(fake_run.metrics[0][1]) is int


def test_name_and_version_are_values_that_may_be_called(models: ModuleType, fake_run: Any, tmp_path: Path) -> None:
    logger = AzureMLLogger()
    assert (logger.name, logger.name(), logger.version, logger.version()) == ("", "", 0, 0)
    assert type(logger.name()) is str
    assert type(logger.version()) is int
    trainer = models.make_trainer(tmp_path, logger=logger, enable_checkpointing=True)
    trainer.fit(models.make_module(), models.data())
    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.ckpt")]
    assert [path.parts[:2] for path in written] == [("version_0", "checkpoints")]


def test_the_experiment_is_the_run_and_may_be_called(fake_run: Any) -> None:
    from himl_container.azureml.context import RUN_CONTEXT

    experiment = AzureMLLogger().experiment
    experiment.log("direct", 1)
    assert fake_run.named("direct") == [1]
    assert experiment() is RUN_CONTEXT
    assert bool(experiment)


def test_outside_azureml_nothing_is_logged() -> None:
    logger = AzureMLLogger()
    assert not logger.is_running_in_azure_ml
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.log_hyperparams({"a": 1})
    logger.log_figure("f", object())
    logger.finalize("success")
    assert logger.experiment() is None
    assert logger.experiment.log_text("a", "b") is None
    assert not logger.experiment


def test_only_the_first_process_logs(fake_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_utilities.core.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    logger = AzureMLLogger()
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.log_hyperparams({"a": 1})
    logger.log_figure("figure", "image.png")
    logger.finalize("success")
    assert (fake_run.metrics, fake_run.tables, fake_run.images, fake_run.flushed) == ([], [], [], 0)


def test_hyperparameters_are_one_flat_table(fake_run: Any) -> None:
    logger = AzureMLLogger()
    nothings: tuple[Any, ...] = (None, {}, argparse.Namespace())
    for nothing in nothings:
        logger.log_hyperparams(nothing)
    assert fake_run.tables == []
    params = argparse.Namespace(
        lr=0.1, model={"layers": 2, "inner": argparse.Namespace(name="resnet")}, folder=Path("a"), none=None, flag=True
    )
    logger.log_hyperparams(params)
    expected = {
        "lr": 0.1,
        "model/layers": 2,
        "model/inner/name": "resnet",
        "folder": "a",
        "none": "None",
        "flag": True,
    }
    assert fake_run.tables == [("hyperparams", expected)]
    logger.log_hyperparams(params)  # Lightning does so at each fit and test
    assert len(fake_run.tables) == 1
    logger.log_hyperparams({"lr": 0.2})
    assert fake_run.tables[1] == ("hyperparams", {"lr": 0.2})


def test_hyperparameters_of_a_module_arrive_by_way_of_lightning(
    models: ModuleType, fake_run: Any, tmp_path: Path
) -> None:
    module = models.make_module()
    module.save_hyperparameters({"width": 4, "optimizer": {"name": "sgd"}})
    models.make_trainer(tmp_path, logger=AzureMLLogger()).fit(module, models.data())
    assert fake_run.tables == [("hyperparams", {"width": 4, "optimizer/name": "sgd"})]


def test_figures_and_images(fake_run: Any, tmp_path: Path) -> None:
    class Figure:
        def savefig(self, *_: Any, **__: Any) -> None:
            """Do as matplotlib's."""

    figure, logger = Figure(), AzureMLLogger()
    logger.log_figure("curve", figure, step=3)
    logger.log_figure("photo", tmp_path / "photo.png")
    assert fake_run.images == [
        {"name": "curve", "path": None, "plot": figure, "description": "step 3"},
        {"name": "photo", "path": str(tmp_path / "photo.png"), "plot": None, "description": ""},
    ]


def test_a_given_run_is_written_into_from_anywhere(models: ModuleType) -> None:
    run = models.FakeRun()
    logger = AzureMLLogger(run=run)
    logger.log_metrics({"loss": 1.0}, step=2)
    logger.finalize("success")
    assert run.metrics == [("loss", 1.0, 2)]
    assert run.flushed == 1
    logger.close()  # the run is somebody else's: it has nothing that ends it


def test_an_offline_run_of_the_sdk_is_no_place_to_log_to() -> None:
    class OfflineRun:
        """Without an experiment, as the SDK's."""

    logger = AzureMLLogger(run=OfflineRun())
    logger.log_metrics({"loss": 1.0}, step=2)
    logger.finalize("success")
    assert not logger.experiment


class OwnLogger(AzureMLLogger):
    """A class of a user's."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log under another name."""
        super().log_metrics({f"own/{name}": value for name, value in metrics.items()}, step)


def test_a_users_class_derives_from_it(models: ModuleType, fake_run: Any, tmp_path: Path) -> None:
    logger = OwnLogger()
    assert isinstance(logger, OwnLogger)
    models.make_trainer(tmp_path, logger=logger)
    logger.log_metrics({"loss": 1.0}, step=2)
    assert fake_run.metrics == [("own/loss", 1.0, 2)]
    assert type(logger) is type(OwnLogger())


def test_copies_and_pickles_are_of_the_same_class() -> None:
    callback = BatchTimeCallback(max_batch_load_time_seconds=2)
    for again in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert type(again) is type(callback)
        assert again.train_timers.max_batch_load_time_seconds == 2
        assert again.train_timers is not callback.train_timers
    assert callback.state_key == "BatchTimeCallback"


def test_without_lightning_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from himl_container.errors import InputError
    from himl_container.training.families import packages_in_use

    for name in PACKAGES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match="Lightning is not installed") as caught:
        packages_in_use()
    assert "himl-container[lightning]" in caught.value.hint
