"""A hyperparameter search, and what AzureML's HyperDrive makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azureml.core import ScriptRunConfig
    from azureml.train.hyperdrive import HyperDriveConfig

Scalar = str | int | float | bool

MAX_MINUTES = 10080
"""HyperDrive's own limit of a search: a week."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: ``choice`` among values, or the distribution that its values are drawn from."""

    name: str
    distribution: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class EarlyTermination:
    """Which runs are ended early: ``bandit``, ``median`` or ``truncation``, with its settings."""

    policy: str
    settings: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Search:
    """A hyperparameter search.

    :param goal: ``maximize`` or ``minimize``. :param max_concurrent_runs: None for all at once.
    :param max_minutes: after which the search and its runs are cancelled.
    """

    parameters: tuple[Parameter, ...]
    metric: str
    goal: str
    max_total_runs: int
    sampling: str = "random"
    max_concurrent_runs: int | None = None
    max_minutes: int = MAX_MINUTES
    early_termination: EarlyTermination | None = None

    def to_json(self) -> dict[str, object]:
        """Return the search as JSON values, in the words of the file."""
        early = self.early_termination
        return {
            "sampling": self.sampling,
            "parameters": {one.name: {one.distribution: list(one.values)} for one in self.parameters},
            "metric": self.metric,
            "goal": self.goal,
            "max_total_runs": self.max_total_runs,
            "max_concurrent_runs": self.max_concurrent_runs,
            "max_minutes": self.max_minutes,
            "early_termination": {early.policy: dict(early.settings)} if early else None,
        }


def hyperdrive_config(search: Search, script_run: ScriptRunConfig) -> HyperDriveConfig:
    """Return a search as HyperDrive takes it, of runs that differ in these parameters alone."""
    from azureml.train import hyperdrive

    space = {one.name: _expression(one) for one in search.parameters}
    sampling = {
        "random": hyperdrive.RandomParameterSampling,
        "grid": hyperdrive.GridParameterSampling,
        "bayesian": hyperdrive.BayesianParameterSampling,
    }[search.sampling]
    return hyperdrive.HyperDriveConfig(
        hyperparameter_sampling=sampling(space),
        primary_metric_name=search.metric,
        primary_metric_goal=hyperdrive.PrimaryMetricGoal.from_str(search.goal),
        max_total_runs=search.max_total_runs,
        max_concurrent_runs=search.max_concurrent_runs,
        max_duration_minutes=search.max_minutes,
        policy=_policy(search.early_termination),
        run_config=script_run,
    )


def _expression(parameter: Parameter) -> Any:
    from azureml.train.hyperdrive import parameter_expressions

    make: Callable[..., Any] = getattr(parameter_expressions, parameter.distribution)
    return make(*parameter.values)


def _policy(early: EarlyTermination | None) -> Any:
    from azureml.train import hyperdrive

    if early is None:
        return None
    settings: dict[str, Any] = dict(early.settings)
    if early.policy == "median":
        return hyperdrive.MedianStoppingPolicy(**settings)
    if early.policy == "truncation":
        settings["truncation_percentage"] = settings.pop("percentage")
        return hyperdrive.TruncationSelectionPolicy(**settings)
    return hyperdrive.BanditPolicy(**settings)
