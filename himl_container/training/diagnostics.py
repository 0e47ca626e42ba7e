"""How long batches and epochs take, and whether the data loaders keep up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from himl_container.training.families import Callback

_log = logging.getLogger(__name__)


@dataclass
class EpochTimers:
    """Measures the batches of one stage (training or validation), epoch by epoch.

    The load time of a batch is what passes from the end of the previous batch (or the start of the epoch) to its own
    start. All times in seconds.

    :param max_batch_load_time_seconds: a batch that takes longer to load is slow.
    :param max_load_time_warnings: warnings about slow batches in one epoch, at most.
    :param max_load_time_epochs: epochs with such warnings, at most.
    :param clock: the time in seconds, from any beginning.
    """

    max_batch_load_time_seconds: float = 0.5
    max_load_time_warnings: int = 3
    max_load_time_epochs: int = 5
    clock: Callable[[], float] = time.monotonic
    num_batches: int = field(default=0, init=False)
    num_slow_batches: int = field(default=0, init=False)
    total_load_time: float = field(default=0.0, init=False)
    total_slow_load_time: float = field(default=0.0, init=False)
    total_epoch_time: float = field(default=0.0, init=False)
    _epoch_start: float = field(default=0.0, init=False)
    _last_end: float = field(default=0.0, init=False)
    _warnings: int = field(default=0, init=False)
    _epochs_with_warnings: set[int] = field(default_factory=set, init=False)

    def epoch_start(self) -> None:
        """Begin an epoch."""
        self.num_batches = self.num_slow_batches = self._warnings = 0
        self.total_load_time = self.total_slow_load_time = self.total_epoch_time = 0.0
        self._epoch_start = self._last_end = self.clock()

    def batch_start(self, batch_index: int, epoch: int, message_prefix: str = "") -> float:
        """Begin a batch, and return how long it took to load.

        The first batch of an epoch is only logged: it takes as long as the workers take to start.
        """
        load_time = self.clock() - self._last_end
        self.total_load_time += load_time
        if batch_index == 0:
            _log.info("%s: the first batch was loaded in %.2f s", message_prefix, load_time)
        elif load_time > self.max_batch_load_time_seconds:
            self.num_slow_batches += 1
            self.total_slow_load_time += load_time
            if self._may_warn(epoch):
                self._warnings += 1
                self._epochs_with_warnings.add(epoch)
                _log.warning(
                    "%s: loading batch %d took %.2f s (threshold %.2f s). More workers of the data loader, or quicker "
                    "loading, may help. At most %d such warnings in each of at most %d epochs.",
                    message_prefix,
                    batch_index,
                    load_time,
                    self.max_batch_load_time_seconds,
                    self.max_load_time_warnings,
                    self.max_load_time_epochs,
                )
        return load_time

    def batch_end(self) -> float:
        """End a batch, and return how long it took with its loading."""
        now = self.clock()
        passed, self._last_end = now - self._last_end, now
        self.num_batches += 1
        self.total_epoch_time = now - self._epoch_start
        return passed

    def pause_end(self) -> None:
        """Forget the time since the last batch: something else was done, such as a validation."""
        now = self.clock()
        self._epoch_start += now - self._last_end
        self._last_end = now

    def epoch_end(self) -> float:
        """End an epoch, and return how long it took, from its start to the end of its last batch."""
        return self.total_epoch_time

    def _may_warn(self, epoch: int) -> bool:
        known = epoch in self._epochs_with_warnings
        return self._warnings < self.max_load_time_warnings and (
            known or len(self._epochs_with_warnings) < self.max_load_time_epochs
        )


class BatchTimeCallback(Callback):
    """Logs how long batches and epochs take, and warns about batches that are slow to load; rank zero only.

    Metrics, for ``train`` and ``val``: ``timing/train/batch_time [sec] avg`` and ``max`` (a batch with its loading),
    ``timing/train/epoch_time [sec]`` (without the validations in between) and
    ``timing/train/batch_loading_over_threshold [sec]`` (the load times of all slow batches together). The parameters
    are those of :class:`EpochTimers`.
    """

    BATCH_TIME = "batch_time [sec]"
    EPOCH_TIME = "epoch_time [sec]"
    EXCESS_LOADING_TIME = "batch_loading_over_threshold [sec]"
    METRICS_PREFIX = "timing/"

    def __init__(
        self,
        max_batch_load_time_seconds: float = 0.5,
        max_load_time_warnings: int = 3,
        max_load_time_epochs: int = 5,
    ) -> None:
        super().__init__()
        limits = (max_batch_load_time_seconds, max_load_time_warnings, max_load_time_epochs)
        self.train_timers = EpochTimers(*limits)
        self.val_timers = EpochTimers(*limits)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin an epoch."""
        self.train_timers.epoch_start()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Take the load time."""
        if trainer.is_global_zero:
            self.train_timers.batch_start(batch_idx, trainer.current_epoch, f"Training epoch {trainer.current_epoch}")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Take the batch's time."""
        self._log_batch(trainer, pl_module, self.train_timers, "train")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the epoch."""
        self._log_epoch(trainer, pl_module, self.train_timers, "train")

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a validation."""
        self.val_timers.epoch_start()

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take the load time."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            prefix = f"Validation epoch {trainer.current_epoch}"
            self.val_timers.batch_start(batch_idx, trainer.current_epoch, prefix)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Take the batch's time."""
        if not trainer.sanity_checking:
            self._log_batch(trainer, pl_module, self.val_timers, "val")

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the validation."""
        if not trainer.sanity_checking:
            self._log_epoch(trainer, pl_module, self.val_timers, "val")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """See that a validation in the middle of an epoch does not count as the loading of its next batch."""
        self.train_timers.pause_end()

    def _log_batch(self, trainer: Any, pl_module: Any, timers: EpochTimers, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        passed = timers.batch_end()
        self._log(pl_module, f"{stage}/{self.BATCH_TIME} avg", passed, "mean")
        self._log(pl_module, f"{stage}/{self.BATCH_TIME} max", passed, "max")

    def _log_epoch(self, trainer: Any, pl_module: Any, timers: EpochTimers, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        self._log(pl_module, f"{stage}/{self.EPOCH_TIME}", timers.epoch_end(), "mean")
        self._log(pl_module, f"{stage}/{self.EXCESS_LOADING_TIME}", timers.total_slow_load_time, "mean")
        if timers.num_slow_batches:
            _log.warning(
                "%s epoch %d: %d of %d batches took longer than %.2f s to load, %.2f s together",
                "Training" if stage == "train" else "Validation",
                trainer.current_epoch,
                timers.num_slow_batches,
                timers.num_batches,
                timers.max_batch_load_time_seconds,
                timers.total_slow_load_time,
            )

    def _log(self, pl_module: Any, name: str, value: float, reduce_fx: str) -> None:
        # Only the first process logs these. With rank_zero_only nothing is synchronised, whatever sync_dist says, and
        # with sync_dist Lightning does not advise to synchronise.
        pl_module.log(
            f"{self.METRICS_PREFIX}{name}",
            value,
            on_step=False,
            on_epoch=True,
            reduce_fx=reduce_fx,
            sync_dist=True,
            rank_zero_only=True,
            batch_size=1,
            add_dataloader_idx=False,
        )
