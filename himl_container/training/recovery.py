"""Checkpoints from which a training goes on after its machine was taken away."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from himl_container.errors import InputError
from himl_container.training.families import Checkpoint

# AzureML keeps what is below ``outputs`` when a machine is taken away, and puts it back when the job starts again.
RECOVERY_CHECKPOINT_FOLDER = Path("outputs") / "checkpoints"
RECOVERY_CHECKPOINT_PREFIX = "recovery_"
_PARTIAL = ".partial"

_log = logging.getLogger(__name__)


class _Found(NamedTuple):
    epoch: int
    written: int
    path: Path


def get_latest_recovery_checkpoint(
    folder: Path | str | None = None, prefix: str = RECOVERY_CHECKPOINT_PREFIX
) -> Path | None:
    """Return the recovery checkpoint of the highest epoch, for ``trainer.fit(..., ckpt_path=...)``.

    Files that are damaged or half-written are passed over, with a warning. What counts is the first number in the name,
    so those of ``ModelCheckpoint(filename="recovery_{epoch}")`` are found too.

    :param folder: default: ``outputs/checkpoints`` in the current folder.
    :returns: None where there is none: the training starts from the beginning.
    """
    place = RECOVERY_CHECKPOINT_FOLDER if folder is None else Path(folder)
    for found in sorted(_checkpoints(place, prefix), reverse=True):
        problem = _damage(found.path)
        if not problem:
            return found.path
        _log.warning("The recovery checkpoint %s is passed over: %s", found.path, problem)
    return None


def _checkpoints(folder: Path, prefix: str) -> Iterator[_Found]:
    """Yield what is a checkpoint by its name."""
    name = re.compile(re.escape(prefix) + r"\D*(\d+)")
    try:
        paths = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in paths:
        match = name.match(path.name)
        if match is not None and not path.name.endswith((_PARTIAL, ".tmp")):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile, by the process that writes them
                yield _Found(int(match.group(1)), path.stat().st_mtime_ns, path)


def _damage(path: Path) -> str:
    """Say what is wrong with a checkpoint; empty where nothing is."""
    if path.is_dir():  # of a strategy that writes one file for each process; it is renamed when all are complete
        return "" if any(path.iterdir()) else "the folder is empty"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip() if _has_checksums() else None
    except Exception as error:  # noqa: BLE001  # zipfile raises zlib.error, RuntimeError and others for damage
        return str(error) or type(error).__name__
    return "" if damaged is None else f"{damaged} in it is not what was written"


def _has_checksums() -> bool:
    """Whether PyTorch writes checksums: it may be told not to."""
    serialization = sys.modules.get("torch.serialization")
    options = getattr(serialization, "get_crc32_options", None)
    return True if options is None else bool(options())


class RecoveryCheckpoint(Checkpoint):
    """Writes a checkpoint every ``every_n_epochs`` epochs and after the last one; a kill at any time is harmless.

    Each is written under another name and renamed when it is complete; the ones before it are removed afterwards. With
    the model, optimizers and schedulers that Lightning keeps, it holds the state of the random generators of each
    process, so that a training that is continued draws the same numbers as one that was not interrupted.

    :param folder: default: ``outputs/checkpoints`` in the current folder.
    :param every_n_epochs: what is lost at most, in epochs.
    :param keep: how many are kept.
    :param prefix: the beginning of their names: ``recovery_epoch=7.ckpt``.
    :raises InputError: a number below 1, or a prefix that is part of a path.
    """

    # Lightning asks the first of the callbacks that write checkpoints for it; it is never the best one here.
    best_model_path = ""

    def __init__(
        self,
        folder: Path | str | None = None,
        every_n_epochs: int = 1,
        keep: int = 2,
        prefix: str = RECOVERY_CHECKPOINT_PREFIX,
    ) -> None:
        super().__init__()
        if every_n_epochs < 1 or keep < 1:
            raise InputError("every_n_epochs and keep of a RecoveryCheckpoint must be 1 or more")
        if not prefix or Path(prefix).name != prefix:
            raise InputError(f"{prefix!r} is no beginning of a file name", where="RecoveryCheckpoint")
        self.folder = RECOVERY_CHECKPOINT_FOLDER if folder is None else Path(folder)
        self.every_n_epochs = every_n_epochs
        self.keep = keep
        self.prefix = prefix
        self._to_save: dict[str, Any] = {}
        self._loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what belongs to the checkpoint that is being written; nothing for checkpoints of others."""
        return self._to_save

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` gave."""
        self._loaded = dict(state_dict)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Remove what a killed training left half-written, and continue the random numbers."""
        from himl_container.training import random_state

        if trainer.is_global_zero and self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.name.startswith(f".{self.prefix}") and path.name.endswith(_PARTIAL):
                    _remove(path)
        states = self._loaded.pop("random", [])
        if len(states) == trainer.world_size:
            random_state.restore(states[trainer.global_rank])
        elif states:
            _log.warning(
                "The checkpoint is of %d processes, and these are %d: they draw other random numbers",
                len(states),
                trainer.world_size,
            )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Step the schedulers that wait for a metric: Lightning does so after the checkpoint is written."""
        for index, metric in self._loaded.pop("metrics", {}).items():
            pl_module.lr_scheduler_step(trainer.lr_scheduler_configs[index].scheduler, metric)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the checkpoint of this epoch, if it is its turn."""
        epoch = trainer.current_epoch
        last = trainer.should_stop or epoch + 1 == trainer.max_epochs or 0 < trainer.max_steps <= trainer.global_step
        if trainer.fast_dev_run or not (last or (epoch + 1) % self.every_n_epochs == 0):
            return
        self._to_save = {"random": _of_all_processes(trainer), "metrics": _metrics_of_schedulers(trainer, pl_module)}
        try:
            self._write(trainer, f"{self.prefix}epoch={epoch}.ckpt")
        finally:
            self._to_save = {}

    def _write(self, trainer: Any, name: str) -> None:
        partial = self.folder / f".{name}{_PARTIAL}"
        final = self.folder / name
        try:
            trainer.save_checkpoint(partial, weights_only=False)  # in all processes; each is waited for
            if trainer.is_global_zero:
                _flush(partial)
                if final.is_dir():
                    shutil.rmtree(final)
                partial.replace(final)
                self._remove_old()
        finally:
            if trainer.is_global_zero:
                _remove(partial)
        trainer.strategy.barrier("RecoveryCheckpoint")

    def _remove_old(self) -> None:
        # By time, not by epoch: what an earlier training left in the folder must not displace what is written now.
        found = sorted(_checkpoints(self.folder, f"{self.prefix}epoch="), key=lambda item: (item.written, item.epoch))
        for item in found[: -self.keep]:
            _remove(item.path)


def _of_all_processes(trainer: Any) -> list[dict[str, Any]]:
    """Return the state of the random generators of each process."""
    from himl_container.training import random_state

    mine = random_state.take()
    if trainer.world_size == 1:
        return [mine]
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return []
    states: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(states, mine)
    return states


def _metrics_of_schedulers(trainer: Any, pl_module: Any) -> dict[int, float]:
    """Return the metrics that schedulers are about to be stepped with, by the scheduler's number."""
    if not pl_module.automatic_optimization:
        return {}
    return {
        index: float(trainer.callback_metrics[config.monitor])
        for index, config in enumerate(trainer.lr_scheduler_configs)
        if config.reduce_on_plateau
        and config.interval == "epoch"
        and (trainer.current_epoch + 1) % config.frequency == 0
        and config.monitor in trainer.callback_metrics
    }


def _flush(path: Path) -> None:
    """Wait until a file is on the disk: its name must not be there before its content."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
