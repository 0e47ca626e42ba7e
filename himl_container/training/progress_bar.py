"""Progress as lines: a log of AzureML is a file, in which a bar that is drawn over itself becomes one endless line."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from himl_container.training.families import ProgressBar

_log = logging.getLogger(__name__)


class AzureMLProgressBar(ProgressBar):
    """Writes a line each ``refresh_rate`` batches and at the end of each epoch; rank zero only.

    :param refresh_rate: batches from line to line; 0 writes none.
    :param print_timestamp: begin each line with the time, in UTC.
    :param write_to_logging_info: log the lines (level INFO) instead of writing them to standard output.
    """

    TRAINING = "Training"
    VALIDATION = "Validation"
    TESTING = "Testing"
    PREDICTION = "Prediction"

    def __init__(
        self, refresh_rate: int = 50, print_timestamp: bool = True, write_to_logging_info: bool = False
    ) -> None:
        super().__init__()
        self.refresh_rate = refresh_rate
        self.print_timestamp = print_timestamp
        self.write_to_logging_info = write_to_logging_info
        self.clock: Callable[[], float] = time.monotonic
        self._enabled = True
        self._train = _Progress(self.TRAINING)
        self._other = _Progress("")

    @property
    def is_enabled(self) -> bool:
        """Whether lines are written."""
        return self._enabled and self.refresh_rate > 0

    def enable(self) -> None:
        """Write lines."""
        self._enabled = True

    def disable(self) -> None:
        """Write no more lines; Lightning calls it in all processes but the first."""
        self._enabled = False

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count the batches of the epoch."""
        self._train.begin(self.clock(), self.total_train_batches)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Count a batch."""
        self._advance(self._train, f" epoch {trainer.current_epoch} (step {trainer.global_step})")

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count the batches of all data loaders together."""
        self._begin(self.VALIDATION, trainer.num_val_batches)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Count a batch, except of the check before the training."""
        if not trainer.sanity_checking:
            self._advance(self._other, f" epoch {trainer.current_epoch}")

    def on_test_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count the batches of all data loaders together."""
        self._begin(self.TESTING, trainer.num_test_batches)

    def on_test_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Count a batch."""
        self._advance(self._other)

    def on_predict_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count the batches of all data loaders together."""
        self._begin(self.PREDICTION, trainer.num_predict_batches)

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Count a batch."""
        self._advance(self._other)

    def _begin(self, stage: str, batches: Any) -> None:
        self._other.stage = stage
        self._other.begin(self.clock(), sum(batches) if isinstance(batches, list) else batches)

    def _advance(self, progress: _Progress, place: str = "") -> None:
        progress.done += 1
        due = progress.done == progress.total or (self.refresh_rate > 0 and progress.done % self.refresh_rate == 0)
        if self.is_enabled and due:
            self._write(f"{progress.stage}{place}: {progress.text(self.clock())}")

    def _write(self, line: str) -> None:
        if self.print_timestamp:
            line = f"{datetime.now(timezone.utc):%Y-%m-%dT%H%M%SZ} {line}"
        if self.write_to_logging_info:
            _log.info(line)
        else:
            # Text and line end at once: unbuffered, print() writes twice, and the standard error may come in between.
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


class _Progress:
    """How far one stage is: batches done, of how many, since when."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.done = 0
        self.total: float = math.inf
        self.begun = 0.0

    def begin(self, now: float, total: float) -> None:
        self.done, self.total, self.begun = 0, total, now

    def text(self, now: float) -> str:
        passed = now - self.begun
        if math.isinf(self.total):
            return f"{self.done:4} batches completed, {_minutes(passed)} since epoch start"
        part = self.done / self.total
        return (
            f"{self.done:4}/{self.total} ({int(100 * part):3}%) completed. {_minutes(passed)} since epoch start, "
            f"estimated total epoch time ~ {_minutes(passed / part)}"
        )


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60:02}:{whole % 60:02}"
