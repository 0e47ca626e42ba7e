"""The progress in lines, and the times of batches and epochs."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from himl_container.training import AzureMLProgressBar, BatchTimeCallback, EpochTimers

WITH_VALIDATION = {"validation_step": lambda self, batch, index, dataloader_idx=0: self.log("val", self.loss_of(batch))}


class Clock:
    """A clock that is set by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines_of(text: str) -> list[str]:
    """Return the lines of the progress bar, without their times."""
    stages = ("Training", "Validation", "Testing", "Prediction")
    lines = [line for line in text.splitlines() if line.startswith(stages)]
    return [re.sub(r"\d\d:\d\d", "MM:SS", line) for line in lines]


def test_each_stage_says_how_far_it_is(models: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = AzureMLProgressBar(refresh_rate=3, print_timestamp=False)
    trainer = models.make_trainer(tmp_path, callbacks=[bar], enable_progress_bar=True, max_epochs=2)
    hooks = {
        **WITH_VALIDATION,
        "test_step": lambda self, batch, index: None,
        "predict_step": lambda self, batch, index: None,
    }
    module = models.make_module(**hooks)
    trainer.fit(module, models.data(), [models.data(8), models.data(16)])
    trainer.test(module, models.data(), verbose=False)
    trainer.predict(module, models.data(8))
    end = "MM:SS since epoch start, estimated total epoch time ~ MM:SS"
    expected = []
    for epoch in (0, 1):
        expected += [
            f"Training epoch {epoch} (step {4 * epoch + 3}):    3/4 ( 75%) completed. {end}",
            f"Training epoch {epoch} (step {4 * epoch + 4}):    4/4 (100%) completed. {end}",
            f"Validation epoch {epoch}:    3/3 (100%) completed. {end}",
        ]
    expected += [
        f"Testing:    3/4 ( 75%) completed. {end}",
        f"Testing:    4/4 (100%) completed. {end}",
        f"Prediction:    1/1 (100%) completed. {end}",
    ]
    assert lines_of(capsys.readouterr().out) == expected


def stub(batches: Any) -> Any:
    """What the bar asks a Trainer."""
    return SimpleNamespace(
        current_epoch=2, global_step=40, num_training_batches=batches, max_epochs=5, max_steps=-1, is_global_zero=True
    )


def started(bar: AzureMLProgressBar, batches: Any) -> Any:
    trainer, bar.clock = stub(batches), Clock()
    bar.setup(trainer, None, "fit")
    bar.on_train_epoch_start(trainer, None)
    return trainer


def advance(bar: Any, trainer: Any, batches: int, seconds: float) -> None:
    for _ in range(batches):
        bar.clock.now += seconds
        bar.on_train_batch_end(trainer, None, None, None, 0)


def test_estimates(capsys: pytest.CaptureFixture[str]) -> None:
    bar = AzureMLProgressBar(print_timestamp=False)
    advance(bar, started(bar, 200), 50, seconds=2.5)
    assert capsys.readouterr().out == (
        "Training epoch 2 (step 40):   50/200 ( 25%) completed. "
        "02:05 since epoch start, estimated total epoch time ~ 08:20\n"
    )


def test_batches_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    bar = AzureMLProgressBar(refresh_rate=10, print_timestamp=False)
    advance(bar, started(bar, math.inf), 10, seconds=7)
    assert capsys.readouterr().out == ("Training epoch 2 (step 40):   10 batches completed, 01:10 since epoch start\n")


def test_lines_begin_with_the_time_or_go_to_the_log(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    bar = AzureMLProgressBar(refresh_rate=1)
    advance(bar, started(bar, 1), 1, seconds=1)
    assert re.match(r"\d{4}-\d\d-\d\dT\d{6}Z Training epoch 2", capsys.readouterr().out)
    bar = AzureMLProgressBar(refresh_rate=1, print_timestamp=False, write_to_logging_info=True)
    with caplog.at_level(logging.INFO):
        advance(bar, started(bar, 1), 1, seconds=1)
    assert caplog.messages[-1].startswith("Training epoch 2 (step 40):    1/1 (100%) completed.")
    assert capsys.readouterr().out == ""


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    off = AzureMLProgressBar(refresh_rate=0)
    assert not off.is_enabled
    advance(off, started(off, 2), 2, seconds=1)
    bar = AzureMLProgressBar(refresh_rate=1, print_timestamp=False)
    trainer = started(bar, 3)
    bar.disable()
    advance(bar, trainer, 1, seconds=1)
    assert capsys.readouterr().out == ""
    bar.enable()
    advance(bar, trainer, 1, seconds=1)
    assert capsys.readouterr().out.startswith("Training epoch 2 (step 40):    2/3")
    other = AzureMLProgressBar(refresh_rate=1)
    other.setup(SimpleNamespace(is_global_zero=False), None, "fit")
    assert not other.is_enabled


def epoch(timers: EpochTimers, clock: Any, number: int, load_times: list[float]) -> None:
    timers.epoch_start()
    for index, seconds in enumerate(load_times):
        clock.now += seconds
        assert timers.batch_start(index, number, "Training") == pytest.approx(seconds)
        clock.now += 1
        assert timers.batch_end() == pytest.approx(seconds + 1)


def test_slow_batches_are_told_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    timers = EpochTimers(0.5, max_load_time_warnings=2, max_load_time_epochs=2, clock=clock)
    warnings = []
    with caplog.at_level(logging.INFO):
        for number in range(4):
            caplog.clear()
            epoch(timers, clock, number, [30.0, 0.7, 0.4, 0.8, 0.9] if number else [0.1, 0.5])
            warnings.append([item for item in caplog.messages if "took" in item])
            if number:
                assert (timers.num_batches, timers.num_slow_batches) == (5, 3)
                assert timers.total_slow_load_time == pytest.approx(2.4)
                assert timers.total_load_time == pytest.approx(32.8)
                assert timers.epoch_end() == pytest.approx(37.8)
    # The first batch is never slow, the third warning of an epoch and the third epoch are silent.
    assert [len(item) for item in warnings] == [0, 2, 2, 0]
    assert "loading batch 1 took 0.70 s" in warnings[1][0]


def test_the_first_batch_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO):
        epoch(EpochTimers(clock=clock), clock, 0, [30.0])
    assert [(item.levelname, item.message) for item in caplog.records] == [
        ("INFO", "Training: the first batch was loaded in 30.00 s")
    ]


NAMES = [
    f"timing/{{}}/{name}"
    for name in (
        "batch_time [sec] avg",
        "batch_time [sec] max",
        "epoch_time [sec]",
        "batch_loading_over_threshold [sec]",
    )
]


@pytest.mark.parametrize("validation", [False, True])
def test_times_of_training_and_validation(
    models: ModuleType, tmp_path: Path, validation: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A validation in the middle of an epoch does not count as the loading of the next batch."""
    clock = Clock()
    callback = BatchTimeCallback(max_batch_load_time_seconds=3)
    callback.train_timers.clock = callback.val_timers.clock = clock

    def loads(seconds: list[float]) -> Iterator[float]:
        yield from seconds

    times = {"train": loads([9, 1, 5, 1]), "val": loads([2, 4] * 2)}

    class Loading:
        """A data set of which each batch takes its time."""

        def __init__(self, stage: str, length: int) -> None:
            self.stage, self.length = stage, length

        def __len__(self) -> int:
            return self.length

        def __getitem__(self, index: int) -> Any:
            clock.now += next(times[self.stage])
            return models.data(8).dataset[index]

    def training_step(self: Any, batch: Any, index: int) -> Any:
        clock.now += 10
        return self.loss_of(batch)

    def validation_step(self: Any, batch: Any, index: int) -> None:
        clock.now += 20

    from torch.utils.data import DataLoader

    hooks = {"training_step": training_step, **({"validation_step": validation_step} if validation else {})}
    trainer = models.make_trainer(
        tmp_path, callbacks=[callback], num_sanity_val_steps=0, val_check_interval=2 if validation else None
    )
    loaders = [DataLoader(Loading("train", 4), 1)] + ([DataLoader(Loading("val", 2), 1)] if validation else [])
    trainer.fit(models.make_module(**hooks), *loaders)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    train = {
        "avg": (19 + 11 + 15 + 11) / 4,
        "max": 19,
        "epoch": 56,
        "slow": 5,
    }
    expected = dict(zip([name.format("train") for name in NAMES], train.values(), strict=True))
    if validation:
        expected |= dict(zip([name.format("val") for name in NAMES], (23, 24, 46, 4), strict=True))
    assert found == pytest.approx(expected)
    assert "Training epoch 0: 1 of 4 batches took longer than 3.00 s to load, 5.00 s together" in caplog.messages


def test_only_the_first_process_measures() -> None:
    class Module:
        def log(self, *_: Any, **__: Any) -> None:
            raise AssertionError("logged")

    callback, trainer = BatchTimeCallback(), SimpleNamespace(is_global_zero=False, sanity_checking=False)
    callback.on_train_epoch_start(trainer, Module())
    callback.on_train_batch_start(trainer, Module(), None, 0)
    callback.on_train_batch_end(trainer, Module(), None, None, 0)
    callback.on_train_epoch_end(trainer, Module())
    callback.on_validation_epoch_end(trainer, Module())
    assert callback.train_timers.num_batches == 0
