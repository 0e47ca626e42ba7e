"""hi-ml's package of its own name, and what imports PyTorch."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from kit import ROOT

HEAVY = ("torch", "lightning", "lightning_utilities", "pytorch_lightning")


def test_names() -> None:
    utils = importlib.import_module("health_ml.utils")
    assert sorted(utils.__all__) == [
        "AzureMLLogger",
        "AzureMLProgressBar",
        "BatchTimeCallback",
        "log_learning_rate",
        "log_on_epoch",
    ]
    logs, times = (importlib.import_module(f"health_ml.utils.{name}") for name in ("logging", "diagnostics"))
    assert {name: getattr(logs, name) for name in logs.__all__}.items() <= vars(utils).items()
    assert utils.BatchTimeCallback is times.BatchTimeCallback
    assert times.EpochTimers().max_load_time_warnings == 3


@pytest.mark.parametrize("name", ["data", "losses", "networks", "networks.layers", "networks.blocks", "networks.nets"])
def test_empty_places(name: str) -> None:
    assert importlib.import_module(f"health_ml.{name}").__doc__


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "log_on_epoch",
            "(module, name=None, value=None, metrics=None, reduce_fx='mean', sync_dist=None, sync_dist_op='mean'",
        ),
        ("log_learning_rate", "(module, name='learning_rate'"),
        ("AzureMLProgressBar", "(refresh_rate=50, print_timestamp=True, write_to_logging_info=False"),
        ("BatchTimeCallback", "(max_batch_load_time_seconds=0.5, max_load_time_warnings=3, max_load_time_epochs=5"),
    ],
)
def test_signatures(name: str, expected: str) -> None:
    found = inspect.signature(getattr(importlib.import_module("health_ml.utils"), name))
    plain = [item.replace(annotation=inspect.Parameter.empty) for item in found.parameters.values()]
    shown = str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    assert shown.startswith(expected), shown


def test_distributed_helpers_are_those_of_the_azureml_room() -> None:
    from himl_container import training
    from himl_container.azureml import distributed

    for name in (
        "is_global_rank_zero",
        "is_local_rank_zero",
        "set_environment_variables_for_multi_node",
        "torch_barrier",
    ):
        assert getattr(training, name) is getattr(distributed, name)
        assert name in training.__all__


def imported(path: Path) -> set[str]:
    """Return the packages that a module imports anywhere, in functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {item.name.partition(".")[0] for item in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


def test_only_the_training_room_imports_pytorch() -> None:
    users = {path for path in (ROOT / "himl_container").rglob("*.py") if imported(path) & set(HEAVY)}
    assert users, "the test sees none at all"
    assert {path.relative_to(ROOT / "himl_container").parts[0] for path in users} == {"training"}
