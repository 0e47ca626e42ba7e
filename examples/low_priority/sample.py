"""A training that may lose its machine at any time, and ends with the weights that it would have had anyway.

After each epoch a recovery checkpoint is written to ``outputs/checkpoints``, which AzureML keeps. A script that is
started again finds the latest one there and goes on from it; the first time there is none.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from health_azure import set_environment_variables_for_multi_node, submit_to_azure_if_needed
from health_ml.utils import AzureMLLogger, log_learning_rate, log_on_epoch
from himl_container.training import RecoveryCheckpoint, get_latest_recovery_checkpoint

CLUSTER = "low-priority"
"""A cluster of your workspace, with machines of low priority."""

WEIGHTS = Path("outputs") / "weights.json"


class Model(lightning.LightningModule):
    """Two layers that learn the sine function."""

    def __init__(self, pause: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.pause = pause
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 1)
        )

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        time.sleep(self.pause)
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layers(x), y)
        log_on_epoch(self, "loss", loss)
        log_learning_rate(self)
        return loss

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.StepLR]]:
        """Return an optimizer that has a state of its own, and a learning rate that falls with each epoch."""
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.9)]


def data() -> DataLoader[tuple[torch.Tensor, ...]]:
    """Return the sine function, in random order."""
    x = torch.linspace(-3, 3, 256).reshape(-1, 1)
    return DataLoader(TensorDataset(x, torch.sin(x)), batch_size=32, shuffle=True)


def main() -> None:
    """Train from the latest recovery checkpoint, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--azureml", action="store_true", help="train in AzureML")
    parser.add_argument("--epochs", type=int, default=10, help="how many there are (default: 10)")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that each batch takes longer (default: 0)")
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: 1)")
    args = parser.parse_args()
    submit_to_azure_if_needed(
        compute_cluster_name=CLUSTER,
        experiment_name="low_priority",
        num_nodes=args.nodes,
        submit_to_azureml=args.azureml,
        wait_for_completion=True,
    )

    set_environment_variables_for_multi_node()
    # One thread: sums are made in the same order on every machine.
    torch.set_num_threads(1)
    lightning.seed_everything(1)
    latest = get_latest_recovery_checkpoint()
    print(f"Starting from {latest or 'the beginning'}", flush=True)
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        devices=1,
        num_nodes=args.nodes,
        callbacks=[RecoveryCheckpoint()],
        logger=[AzureMLLogger()],
        default_root_dir="outputs",
        enable_progress_bar=False,
        log_every_n_steps=1,
    )
    model = Model(args.pause)
    trainer.fit(model, data(), ckpt_path=latest, weights_only=True)
    if trainer.is_global_zero:
        WEIGHTS.parent.mkdir(exist_ok=True)
        weights = {name: value.flatten().tolist() for name, value in model.state_dict().items()}
        WEIGHTS.write_text(json.dumps(weights), encoding="utf-8")
        print(f"Trained {trainer.current_epoch} epochs, last loss {trainer.callback_metrics['loss']:.4f}")


if __name__ == "__main__":
    main()
