"""Fixtures of the tests that need PyTorch and Lightning: scripts/setup.sh installs them by pip, apart from the rest."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import kit
import pytest


@pytest.fixture(autouse=True)
def _torch() -> None:
    for name in ("torch", "pytorch_lightning", "lightning"):
        if importlib.util.find_spec(name) is None:
            kit.lacking(f"{name} is not installed; scripts/setup.sh installs it")


@pytest.fixture
def models() -> ModuleType:
    """The module of small models; it imports PyTorch."""
    return importlib.import_module("lightning_models")


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A run in AzureML that this process is: it notes what is logged."""
    from lightning_models import FakeRun

    from himl_container.azureml import context

    run = FakeRun()
    monkeypatch.setenv("AZUREML_RUN_ID", "run_1")
    monkeypatch.setenv("AZUREML_ARM_SUBSCRIPTION", "00000000-0000-0000-0000-000000000000")
    monkeypatch.setattr(context, "_CURRENT", [run])
    yield run
