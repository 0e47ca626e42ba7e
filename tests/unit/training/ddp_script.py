"""What each of two processes of ``test_ddp.py`` does. Called with a folder; Lightning starts the second process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning_models as models
import torch

from himl_container.training import (
    AzureMLLogger,
    AzureMLProgressBar,
    BatchTimeCallback,
    RecoveryCheckpoint,
    get_latest_recovery_checkpoint,
    is_global_rank_zero,
    is_local_rank_zero,
    log_learning_rate,
    log_on_epoch,
    torch_barrier,
)

OPERATIONS = [
    (reduce_fx, operation) for reduce_fx in ("mean", "sum", "max", "min") for operation in ("mean", "sum", "avg", None)
]


def training_step(self: Any, batch: Any, index: int) -> Any:
    """Log numbers that tell the process and the step."""
    rank, loss = self.trainer.global_rank, self.loss_of(batch)
    value = 10 * rank + index
    log_on_epoch(self, loss)
    log_learning_rate(self)
    log_on_epoch(self, metrics={"number": value, "tensor": torch.tensor(float(value)), "int": torch.tensor(value)})
    log_on_epoch(self, "mine", value, sync_dist=False)
    for reduce_fx, operation in OPERATIONS:
        log_on_epoch(self, f"{reduce_fx} {operation}", value, reduce_fx=reduce_fx, sync_dist_op=operation)
    self.losses.append(loss.item())
    self.draws.append(torch.rand(1).item())
    return loss


def configure_optimizers(self: Any) -> Any:
    """Return an optimizer with a scheduler."""
    optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
    return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def on_train_start(self: Any) -> None:
    """Let the processes draw different numbers."""
    torch.manual_seed(100 + self.trainer.global_rank)


def main(folder: Path) -> None:
    """Train two epochs, or go on where an earlier call ended, and write what this process saw."""
    resumed = get_latest_recovery_checkpoint(folder / "recovery")
    run = models.FakeRun()
    hooks = {} if resumed else {"on_train_start": on_train_start}
    module = models.make_module(training_step=training_step, configure_optimizers=configure_optimizers, **hooks)
    module.losses, module.draws = [], []
    trainer = models.make_trainer(
        folder,
        max_epochs=2 if resumed is None else 3,
        devices=2,
        strategy="ddp",
        logger=AzureMLLogger(run=run),
        callbacks=[
            RecoveryCheckpoint(folder / "recovery"),
            BatchTimeCallback(),
            AzureMLProgressBar(refresh_rate=1, print_timestamp=False),
        ],
        enable_checkpointing=True,
        enable_progress_bar=True,
    )
    trainer.fit(module, models.data(rows=32, batch=8), ckpt_path=resumed)
    torch_barrier()
    found = {
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "logged": run.metrics,
        "losses": module.losses,
        "draws": module.draws,
        "ranks": [is_local_rank_zero(), is_global_rank_zero()],
    }
    (folder / f"rank_{trainer.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
