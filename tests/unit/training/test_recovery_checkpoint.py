"""Checkpoints from which a killed training goes on, and ends as it would have without the kill."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from himl_container.errors import InputError
from himl_container.training import RecoveryCheckpoint, get_latest_recovery_checkpoint
from himl_container.training.families import PACKAGES

HERE = Path(__file__).parent
EPOCHS = 6


class KilledError(Exception):
    """The machine is taken away."""


def train(
    models: ModuleType,
    folder: Path,
    *,
    kill: tuple[int, int] | None = None,
    package: str = "pytorch_lightning",
    scheduler: str = "step",
    seed: int = 1,
    **words: Any,
) -> list[float]:
    """Train from the latest recovery checkpoint, and return the weights and the learning rate.

    Everything in it draws random numbers: the order of the rows, dropout, Python and numpy.

    :param kill: the epoch and batch in which the training dies.
    """
    import numpy
    import torch

    def training_step(self: Any, batch: Any, index: int) -> Any:
        if (self.current_epoch, index) == kill:
            raise KilledError
        inputs = torch.nn.functional.dropout(batch[0], 0.2)
        return self.loss_of((inputs, batch[1])) * (1 + 0.1 * (random.random() + numpy.random.random()))

    def validation_step(self: Any, batch: Any, index: int) -> None:
        self.log("val", self.loss_of(batch))

    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        if scheduler == "step":
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)]
        # Each validation is worse than a tenth of the best one, so that each step of the scheduler shows.
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=0, threshold=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val"}}

    module = models.make_module(
        package,
        training_step=training_step,
        validation_step=validation_step,
        configure_optimizers=configure_optimizers,
    )
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed)
    trainer = models.make_trainer(
        folder.parent,
        package,
        max_epochs=EPOCHS,
        callbacks=[RecoveryCheckpoint(folder, **words)],
        enable_checkpointing=True,
    )
    latest = get_latest_recovery_checkpoint(folder)
    trainer.fit(module, models.data(), models.data(shuffle=False), ckpt_path=latest, weights_only=True)
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    return [*module.layer.weight.flatten().tolist(), *module.layer.bias.tolist(), rate]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("package", "scheduler"), [*((name, "step") for name in PACKAGES), (PACKAGES[0], "plateau")])
def test_two_kills_change_nothing(models: ModuleType, tmp_path: Path, package: str, scheduler: str) -> None:
    words: dict[str, Any] = {"package": package, "scheduler": scheduler}
    whole = train(models, tmp_path / "whole", **words)
    folder = tmp_path / "outputs" / "checkpoints"
    for number, kill in enumerate([(2, 1), (4, 3)]):
        with pytest.raises(KilledError):
            train(models, folder, kill=kill, seed=1 + number, **words)
    # What has been drawn before it starts again does not matter either.
    assert train(models, folder, seed=9, **words) == whole
    assert names(folder) == ["recovery_epoch=4.ckpt", "recovery_epoch=5.ckpt"]
    # All is done: the script may be started again, and ends at once with the same.
    assert train(models, folder, seed=10, **words)[:-1] == whole[:-1]


def test_not_every_epoch_but_the_last_one(models: ModuleType, tmp_path: Path) -> None:
    train(models, tmp_path / "a", every_n_epochs=4, keep=9)
    assert names(tmp_path / "a") == ["recovery_epoch=3.ckpt", "recovery_epoch=5.ckpt"]


def test_the_last_epoch_is_where_the_steps_end(models: ModuleType, tmp_path: Path) -> None:
    callback = RecoveryCheckpoint(tmp_path / "a", every_n_epochs=100)
    trainer = models.make_trainer(tmp_path, max_epochs=-1, max_steps=6, callbacks=[callback], enable_checkpointing=True)
    trainer.fit(models.make_module(), models.data())
    assert names(tmp_path / "a") == ["recovery_epoch=1.ckpt"]


def test_the_checkpoint_of_an_earlier_training_does_not_displace_newer_ones(models: ModuleType, tmp_path: Path) -> None:
    train(models, tmp_path / "a")
    (tmp_path / "a" / "recovery_epoch=5.ckpt").rename(tmp_path / "recovery_epoch=99.ckpt")
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    old = tmp_path / "a" / "recovery_epoch=99.ckpt"
    old.write_bytes(b"damaged")
    train(models, tmp_path / "a", keep=1)
    assert names(tmp_path / "a") == ["recovery_epoch=5.ckpt"]


def test_other_checkpoints_hold_nothing_of_it(models: ModuleType, tmp_path: Path) -> None:
    import torch
    from pytorch_lightning.callbacks import ModelCheckpoint

    callbacks = [RecoveryCheckpoint(tmp_path / "recovery"), ModelCheckpoint(tmp_path / "best", "own")]
    trainer = models.make_trainer(tmp_path, callbacks=callbacks, enable_checkpointing=True)
    trainer.fit(models.make_module(), models.data())
    recovery = torch.load(tmp_path / "recovery" / "recovery_epoch=0.ckpt", weights_only=True)
    other = torch.load(tmp_path / "best" / "own.ckpt", weights_only=True)
    assert set(recovery["callbacks"]["RecoveryCheckpoint"]) == {"random", "metrics"}
    assert "RecoveryCheckpoint" not in other["callbacks"]


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import lightning_models as models
from himl_container.training import RecoveryCheckpoint
folder = Path(sys.argv[1])
trainer = models.make_trainer(folder, max_epochs=5, callbacks=[RecoveryCheckpoint(folder)], enable_checkpointing=True)
save = trainer.save_checkpoint
def half(path, **words):
    save(path, **words)
    if trainer.current_epoch == 2:
        data = Path(path).read_bytes()
        Path(path).write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
trainer.save_checkpoint = half
trainer.fit(models.make_module(), models.data())
"""


def test_a_kill_while_one_is_written_leaves_the_one_before(models: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    words = [sys.executable, "-c", KILLED_WHILE_WRITING, str(folder), str(HERE)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    partial = ".recovery_epoch=2.ckpt.partial"
    assert names(folder) == [partial, "recovery_epoch=0.ckpt", "recovery_epoch=1.ckpt"]
    assert get_latest_recovery_checkpoint(folder) == folder / "recovery_epoch=1.ckpt"
    trainer = models.make_trainer(
        tmp_path, max_epochs=2, callbacks=[RecoveryCheckpoint(folder)], enable_checkpointing=True
    )
    trainer.fit(models.make_module(), models.data(), ckpt_path=get_latest_recovery_checkpoint(folder))
    assert partial not in names(folder)


def test_a_checkpoint_that_cannot_be_written_ends_the_training_and_leaves_the_one_before(
    models: ModuleType, tmp_path: Path
) -> None:
    trainer = models.make_trainer(
        tmp_path, max_epochs=3, callbacks=[RecoveryCheckpoint(tmp_path / "a")], enable_checkpointing=True
    )
    save = trainer.save_checkpoint

    def full(path: Path, **words: Any) -> None:
        save(path, **words)
        if trainer.current_epoch == 1:
            raise OSError(28, "No space left on device")

    trainer.save_checkpoint = full
    with pytest.raises(OSError, match="No space left"):
        trainer.fit(models.make_module(), models.data())
    assert names(tmp_path / "a") == ["recovery_epoch=0.ckpt"]


def archive(path: Path, text: str = "data" * 1000) -> Path:
    """Write what PyTorch writes: an archive without compression."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", text)
    return path


def test_the_highest_epoch_is_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert get_latest_recovery_checkpoint() is None
    folder = tmp_path / "outputs" / "checkpoints"
    for name in ("recovery_epoch=9", "recovery_epoch=100", "recovery_20", "best_epoch=300", "recovery_last"):
        archive(folder / f"{name}.ckpt")
    latest = get_latest_recovery_checkpoint()
    assert latest == Path("outputs/checkpoints/recovery_epoch=100.ckpt")
    assert get_latest_recovery_checkpoint(str(folder), prefix="best_") == folder / "best_epoch=300.ckpt"
    # Two of one epoch, as ModelCheckpoint writes them: the newer one.
    newer = archive(folder / "recovery_epoch=100-v1.ckpt")
    os.utime(newer, ns=(2**62, 2**62))
    assert get_latest_recovery_checkpoint(folder) == newer


def test_a_file_that_is_damaged_in_any_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Flipped bits may look like encryption, another compression, a later version: none of it ends the script."""
    path = tmp_path / "recovery_epoch=1.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 50)
    whole = path.read_bytes()
    assert get_latest_recovery_checkpoint(tmp_path) == path
    for place in range(len(whole)):
        for bits in (0x01, 0x08, 0xFF):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :])
            # Some bytes mean nothing (times, attributes): the content is what counts.
            found = get_latest_recovery_checkpoint(tmp_path)
            content = place in range(30 + len("archive/data.pkl"), 30 + len("archive/data.pkl") + 50)
            assert found is None or (found == path and not content)
    assert "is passed over" in caplog.text


def test_damaged_files_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = archive(tmp_path / "recovery_epoch=1.ckpt")
    data = good.read_bytes()
    (tmp_path / "recovery_epoch=2.ckpt").write_bytes(data[: len(data) // 2])
    (tmp_path / "recovery_epoch=3.ckpt").write_bytes(b"")
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    (tmp_path / "recovery_epoch=4.ckpt").write_bytes(flipped)
    (tmp_path / "recovery_epoch=5.ckpt").mkdir()
    (tmp_path / "recovery_epoch=6.ckpt.partial").write_bytes(data)
    (tmp_path / "recovery_epoch=7.ckpt.tmp").write_bytes(data)
    assert get_latest_recovery_checkpoint(tmp_path) == good
    assert [message.split(":")[0].rsplit("=")[-1] for message in caplog.messages] == [
        f"{number}.ckpt is passed over" for number in (5, 4, 3, 2)
    ]
    # Strategies that write one file for each process make a folder of them.
    (tmp_path / "recovery_epoch=5.ckpt" / "rank_0.pt").write_bytes(b"1")
    assert get_latest_recovery_checkpoint(tmp_path) == tmp_path / "recovery_epoch=5.ckpt"


def test_checksums_count_only_where_pytorch_writes_them(models: ModuleType, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "recovery_1.ckpt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.zeros(100)}, path)
        assert get_latest_recovery_checkpoint(tmp_path) == path
    finally:
        torch.serialization.set_crc32_options(True)
    torch.save({"a": torch.zeros(100)}, path)
    assert get_latest_recovery_checkpoint(tmp_path) == path


@pytest.mark.parametrize("words", [{"every_n_epochs": 0}, {"keep": 0}, {"prefix": ""}, {"prefix": "../a"}])
def test_arguments_that_make_no_sense(words: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        RecoveryCheckpoint(**words)
