"""A small model, its data, and a run that notes what is logged. Imports PyTorch."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

# Lightning's own handlers write to the standard error of the first test, which is closed afterwards.
for _name in ("lightning.pytorch", "pytorch_lightning"):
    importlib.import_module(_name)
    logging.getLogger(_name).handlers.clear()


class FakeRun:
    """What the logger uses of a run of AzureML."""

    experiment = "an experiment"

    def __init__(self) -> None:
        self.metrics: list[tuple[str, Any, int | None]] = []
        self.tables: list[tuple[str, Any]] = []
        self.images: list[dict[str, Any]] = []
        self.flushed = 0

    def log(self, name: str, value: Any, step: int | None = None) -> None:
        self.metrics.append((name, value, step))

    def log_table(self, name: str, value: Any) -> None:
        self.tables.append((name, value))

    def log_image(self, name: str, path: Any = None, plot: Any = None, description: str = "") -> None:
        self.images.append({"name": name, "path": path, "plot": plot, "description": description})

    def flush(self) -> None:
        self.flushed += 1

    def named(self, name: str) -> list[Any]:
        return [value for key, value, _ in self.metrics if key == name]


def data(rows: int = 32, batch: int = 8, shuffle: bool = True, **words: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(rows, 4, generator=generator)
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch, shuffle=shuffle, **words)


def make_module(package: str = "pytorch_lightning", **hooks: Any) -> Any:
    """Return a linear model of one of Lightning's packages; ``hooks`` are further methods."""
    lightning = importlib.import_module(package)

    def init(self: Any) -> None:
        lightning.LightningModule.__init__(self)
        self.layer = torch.nn.Linear(4, 1)

    def loss_of(self: Any, batch: Any) -> Any:
        return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def training_step(self: Any, batch: Any, _index: int) -> Any:
        return self.loss_of(batch)

    def configure_optimizers(self: Any) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    body = {
        "__init__": init,
        "loss_of": loss_of,
        "training_step": training_step,
        "configure_optimizers": configure_optimizers,
        **hooks,
    }
    lightning.seed_everything(1, verbose=False)
    return type("Line", (lightning.LightningModule,), body)()


def make_trainer(folder: Path, package: str = "pytorch_lightning", **words: Any) -> Any:
    """Return a Trainer on the processor that writes nothing which was not asked for."""
    lightning = importlib.import_module(package)
    words = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "default_root_dir": str(folder),
        **words,
    }
    return lightning.Trainer(**words)
