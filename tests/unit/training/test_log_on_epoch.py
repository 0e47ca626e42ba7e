"""Metrics of an epoch, in one process; tests/unit/training/test_ddp.py has two."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from himl_container.training import log_learning_rate, log_on_epoch


def fit(
    models: ModuleType, folder: Path, step: Any, package: str = "pytorch_lightning", **hooks: Any
) -> dict[str, Any]:
    """Train one epoch of four steps, in which ``step(module, loss, index)`` logs; return what was logged."""

    def training_step(self: Any, batch: Any, index: int) -> Any:
        loss = self.loss_of(batch)
        step(self, loss, index)
        return loss

    trainer = models.make_trainer(folder, package)
    module = models.make_module(package, training_step=training_step, **hooks)
    trainer.fit(module, models.data(), models.data() if "validation_step" in hooks else None)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_one_metric_and_a_dictionary(models: ModuleType, tmp_path: Path, package: str) -> None:
    metrics: dict[str, Any] = {}

    def step(module: Any, loss: Any, index: int) -> None:
        metrics.update({"index": index, "flag": index % 2 == 0})
        log_on_epoch(module, "own", 2 * index, metrics)
        assert set(metrics) == {"index", "flag"}, "the caller's dictionary stays as it was"

    assert fit(models, tmp_path, step, package) == {"own": 3.0, "index": 1.5, "flag": 0.5}


@pytest.mark.parametrize(
    ("reduce_fx", "expected"), [("mean", 1.5), ("max", 3), ("sum", 6), ("torch.max", 3), (max, 3), ("torch.mean", 1.5)]
)
def test_how_steps_become_one_value(models: ModuleType, tmp_path: Path, reduce_fx: Any, expected: float) -> None:
    import torch

    if isinstance(reduce_fx, str) and reduce_fx.startswith("torch."):
        reduce_fx = getattr(torch, reduce_fx.removeprefix("torch."))
    found = fit(models, tmp_path, lambda module, _, index: log_on_epoch(module, "m", index, reduce_fx=reduce_fx))
    assert found == {"m": expected}


def test_the_sample_of_the_documentation(models: ModuleType, tmp_path: Path) -> None:
    losses = []

    def step(module: Any, loss: Any, index: int) -> None:
        log_on_epoch(module, loss)
        losses.append(loss.item())

    def validation_step(self: Any, batch: Any, index: int) -> None:
        log_on_epoch(self, self.loss_of(batch))

    found = fit(models, tmp_path, step, validation_step=validation_step)
    assert set(found) == {"train/loss", "val/loss"}
    assert found["train/loss"] == pytest.approx(sum(losses) / len(losses))


def test_numbers_become_tensors_and_everything_else_is_left_alone(models: ModuleType) -> None:
    import numpy
    import torch

    trainer = SimpleNamespace(world_size=1)

    class Module:
        device = torch.device("cpu")

        def log_dict(self, values: Any, **words: Any) -> None:
            self.values, self.words = values, words

    module, tensor, other = Module(), torch.tensor(1), object()
    module.trainer = trainer
    log_on_epoch(
        module,
        metrics={"int": 1, "bool": True, "numpy": numpy.float32(2), "tensor": tensor, "other": other},
        batch_size=5,
    )
    assert [module.values[name].dtype for name in ("int", "bool", "numpy")] == [torch.float32] * 3
    assert module.values["tensor"] is tensor
    assert module.values["other"] is other
    assert module.words == {
        "on_epoch": True,
        "on_step": False,
        "sync_dist": False,
        "reduce_fx": "mean",
        "batch_size": 5,
    }
    log_on_epoch(module, "a", 1, sync_dist=True)
    assert module.words["sync_dist"] is True
    trainer.world_size = 2
    log_on_epoch(module, "a", 1)
    assert module.words["sync_dist"] is True
    log_on_epoch(module, "a", 1, sync_dist=False)
    assert module.words["sync_dist"] is False


def test_a_module_without_a_trainer(models: ModuleType) -> None:
    module = models.make_module()
    with pytest.raises(AssertionError, match="No trainer is set"):
        log_on_epoch(module, "a", 1)
    with pytest.raises(AssertionError, match="No trainer is set"):
        log_learning_rate(module)


@pytest.mark.parametrize("arguments", [{"name": "a"}, {"value": 1}, {"name": {"a": 1}}, {"name": "a", "metrics": {}}])
def test_a_name_without_a_value_and_the_reverse(models: ModuleType, tmp_path: Path, arguments: Any) -> None:
    module = models.make_module()
    module.trainer = models.make_trainer(tmp_path)
    with pytest.raises(ValueError, match="Both or neither of 'name' and 'value' must"):
        log_on_epoch(module, **arguments)


def test_an_unknown_operation_over_processes(models: ModuleType, tmp_path: Path) -> None:
    module = models.make_module()
    module.trainer = models.make_trainer(tmp_path)
    with pytest.raises(ValueError, match="sync_dist_op must be"):
        log_on_epoch(module, "a", 1, sync_dist_op="median")


def optimizers(kind: str) -> Any:
    """Return a ``configure_optimizers`` with schedulers of one kind."""

    def configure_optimizers(self: Any) -> Any:
        import torch

        groups = [{"params": [self.layer.weight], "lr": 0.1}, {"params": [self.layer.bias], "lr": 0.2}]
        one = torch.optim.SGD(self.parameters(), lr=0.1)
        if kind == "two groups":
            one = torch.optim.SGD(groups)
        if kind == "plateau":
            scheduler: Any = torch.optim.lr_scheduler.ReduceLROnPlateau(one)
            return {"optimizer": one, "lr_scheduler": {"scheduler": scheduler, "monitor": "learning_rate"}}
        schedulers = [torch.optim.lr_scheduler.StepLR(one, 1, 0.5)]
        if kind == "two schedulers":
            schedulers.append(torch.optim.lr_scheduler.ConstantLR(one, 0.5))
        return [one], schedulers

    return configure_optimizers


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("one", {"lr": 0.1}),
        ("plateau", {"learning_rate": 0.1}),
        ("two groups", {"lr/0/0": 0.1, "lr/0/1": 0.2}),
        ("two schedulers", {"lr/0/0": 0.1, "lr/1/0": 0.05}),
    ],
)
def test_learning_rates(models: ModuleType, tmp_path: Path, kind: str, expected: dict[str, float]) -> None:
    name = "learning_rate" if kind == "plateau" else "lr"
    found = fit(
        models,
        tmp_path,
        lambda module, _loss, _index: log_learning_rate(module, name),
        configure_optimizers=optimizers(kind),
    )
    assert found == pytest.approx(expected)


def test_without_a_scheduler_there_is_no_learning_rate_to_log(models: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Learning rate logging can only be used during"):
        fit(models, tmp_path, lambda module, _loss, _index: log_learning_rate(module))
