"""The run of this process."""

from __future__ import annotations

import copy
import os
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from himl_container.azureml import context
from himl_container.azureml.context import RUN_CONTEXT, current_run, is_running_in_azure_ml


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of AzureML, whatever ran before."""
    for name in [name for name in os.environ if name.startswith("AZUREML_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(context, "_CURRENT", [])


def test_outside_of_azureml(capsys: pytest.CaptureFixture[str]) -> None:
    from azureml.core.run import _OfflineRun

    assert isinstance(current_run(), _OfflineRun)
    assert current_run() is current_run()
    assert RUN_CONTEXT.id.startswith("OfflineRun_")
    RUN_CONTEXT.log("accuracy", 0.5)
    assert "accuracy" in capsys.readouterr().out
    assert not is_running_in_azure_ml()
    assert not is_running_in_azure_ml(RUN_CONTEXT)
    assert not is_running_in_azure_ml(current_run())


def test_stands_for_the_run() -> None:
    from azureml.core.run import Run, _OfflineRun

    assert isinstance(RUN_CONTEXT, _OfflineRun)
    assert not isinstance(RUN_CONTEXT, Run)
    assert current_run() == RUN_CONTEXT
    assert RUN_CONTEXT.__eq__(current_run())
    assert RUN_CONTEXT != 1
    assert hash(RUN_CONTEXT) == hash(current_run())
    assert str(RUN_CONTEXT) == str(current_run())
    assert repr(RUN_CONTEXT) == repr(current_run())
    assert "log" in dir(RUN_CONTEXT)
    RUN_CONTEXT.note = "mine"
    assert current_run().note == "mine"
    del RUN_CONTEXT.note
    assert not hasattr(RUN_CONTEXT, "note")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
def test_copies_are_the_same_object(again: Any) -> None:
    assert again(RUN_CONTEXT) is RUN_CONTEXT


def test_inside_of_azureml(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK says so by a run that has an experiment; the emulator's tests have the whole of it."""
    run: Any = SimpleNamespace(experiment=SimpleNamespace(name="exp"))
    monkeypatch.setattr(context, "_CURRENT", [run])
    monkeypatch.setenv("AZUREML_RUN_ID", "run-1")
    monkeypatch.setenv("AZUREML_ARM_SUBSCRIPTION", "s")
    assert is_running_in_azure_ml()
    assert RUN_CONTEXT.experiment.name == "exp"
    assert is_running_in_azure_ml(run)


def test_variables_of_half_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the SDK does not find all that it needs, it is an offline run to it and to us."""
    monkeypatch.setenv("AZUREML_RUN_ID", "run-1")
    monkeypatch.setenv("AZUREML_ARM_SUBSCRIPTION", "s")
    assert not is_running_in_azure_ml()


def test_any_run_is_judged_by_its_experiment() -> None:
    with_one: Any = SimpleNamespace(experiment=None)
    without: Any = SimpleNamespace()
    assert is_running_in_azure_ml(with_one)
    assert not is_running_in_azure_ml(without)
