"""Metrics of a training, logged the same way in each process and each step: once for each epoch."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from himl_container.azureml.failures import FailedAssertion, WrongValue

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

_STAGES = {"train": "train", "sanity_check": "val", "validate": "val", "test": "test"}
_OPERATIONS = {"sum": "sum", "mean": "mean", "avg": "mean"}


def log_on_epoch(  # noqa: PLR0917  # hi-ml's order
    module: LightningModule,
    name: Any = None,
    value: Any = None,
    metrics: Mapping[str, Any] | None = None,
    reduce_fx: Callable[..., Any] | str = "mean",
    sync_dist: bool | None = None,
    sync_dist_op: str | None = "mean",
    *,
    batch_size: int | None = None,
) -> None:
    """Log metrics of a Lightning module for the epoch, over all processes where there are several.

    :param name: of the one metric that ``value`` is. A tensor or a number in its place, without a value, is logged as
        ``train/loss``, ``val/loss`` or ``test/loss``: so ``log_on_epoch(self, loss)`` works.
    :param value: a number, a tensor with one element or a ``torchmetrics.Metric``.
    :param metrics: more of them, by name. It is not changed.
    :param reduce_fx: how the values of all steps become one: mean, sum, max or min, by name or PyTorch's function.
    :param sync_dist: whether all processes' values become one. Default: where there is more than one process. False for
        what only one process logs.
    :param sync_dist_op: how they become one, before the steps do: ``mean`` (``avg``) or ``sum``. Where it is not the
        same as ``reduce_fx``, the processes wait for each other in each step.
    :param batch_size: the weight of this step in a mean. Default: what Lightning finds in the batch.
    :raises FailedAssertion: the module has no Trainer.
    :raises WrongValue: a name without a value, a value without a name, or an unknown ``sync_dist_op``.
    """
    import torch

    trainer = _trainer_of(module)
    if value is None and isinstance(name, (numbers.Number, torch.Tensor)):
        name, value = f"{_stage_of(trainer)}/loss", name
    if (name is None) != (value is None):
        raise WrongValue(
            "Both or neither of 'name' and 'value' must be provided.",
            hint="for a dictionary of metrics: log_on_epoch(self, metrics={...})",
        )
    # "mean" is what None meant in Lightning 1.4.
    operation = _OPERATIONS.get("mean" if sync_dist_op is None else str(sync_dist_op).lower())
    if operation is None:
        raise WrongValue(f"sync_dist_op must be 'mean', 'avg' or 'sum', not {sync_dist_op!r}")
    values = {key: _tensor(item, module) for key, item in (metrics or {}).items()}
    if name is not None:
        values[name] = _tensor(value, module)
    together = trainer.world_size > 1 if sync_dist is None else sync_dist
    reduction = _name_of(reduce_fx)
    if together and trainer.world_size > 1 and operation != reduction:
        # Lightning 2 applies one function to both; what must be applied to processes first is so here.
        values = {key: _over_processes(item, trainer, operation) for key, item in values.items()}
        # All processes have the same now, and once more changes nothing, except for a sum.
        together = reduction != "sum"
    module.log_dict(
        values, on_epoch=True, on_step=False, sync_dist=together, reduce_fx=reduce_fx, batch_size=batch_size
    )


def log_learning_rate(module: LightningModule, name: str = "learning_rate") -> None:
    """Log the learning rates of a module's schedulers, for the epoch.

    One scheduler with one rate is logged as ``name``, anything else as ``name/<scheduler>/<index of the rate>``.

    :raises FailedAssertion: the module has no Trainer.
    :raises WrongValue: there are no schedulers: the module is not being trained, or configures none.
    """
    _trainer_of(module)
    schedulers = module.lr_schedulers()
    if schedulers is None:
        raise WrongValue(
            "Learning rate logging can only be used during training.",
            hint="configure_optimizers must return a learning rate scheduler",
        )
    if not isinstance(schedulers, list):
        rates = schedulers.get_last_lr()
        if len(rates) == 1:
            log_on_epoch(module, name, rates[0])
            return
        schedulers = [schedulers]
    found = {
        f"{name}/{place}/{index}": rate
        for place, scheduler in enumerate(schedulers)
        for index, rate in enumerate(scheduler.get_last_lr())
    }
    log_on_epoch(module, metrics=found)


def _trainer_of(module: LightningModule) -> Trainer:
    try:
        trainer = module.trainer
    except RuntimeError:  # what Lightning 2 raises instead of answering None
        trainer = None
    if trainer is None:
        raise FailedAssertion("No trainer is set for this module.")
    return trainer


def _stage_of(trainer: Trainer) -> str:
    return _STAGES.get(str(getattr(trainer.state.stage, "value", "")), "train")


def _tensor(value: Any, module: LightningModule) -> Any:
    """Return a number as a tensor, so that it can be summed over processes; anything else as it is."""
    import torch

    if isinstance(value, numbers.Real):
        return torch.tensor(float(value), dtype=torch.float, device=module.device)
    return value


def _over_processes(value: Any, trainer: Trainer, operation: str) -> Any:
    import torch

    # A torchmetrics.Metric does it by itself.
    if not isinstance(value, torch.Tensor):
        return value
    # The reduction is done in place, and the value may be the loss of which gradients are wanted.
    return trainer.strategy.reduce(value.detach().clone().float(), reduce_op=operation)


def _name_of(reduce_fx: Callable[..., Any] | str) -> str:
    name = reduce_fx if isinstance(reduce_fx, str) else getattr(reduce_fx, "__name__", "")
    return "mean" if name.lower() == "avg" else name.lower()
