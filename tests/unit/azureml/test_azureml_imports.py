"""What is imported when: a script that runs locally loads neither the AzureML SDK nor torch."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import kit
import pytest

import himl_container

_HEAVY = (
    "azureml.core",
    "azureml",
    "azure",
    "torch",
    "lightning",
    "pytorch_lightning",
    "docker",
    "rattler",
    "requests",
)


def _loaded(code: str, cwd: Path, **variables: str) -> list[str]:
    """Return which of the heavy packages a Python process has loaded in the end."""
    ask = f"\nimport json, sys; print(json.dumps([n for n in {_HEAVY!r} if n in sys.modules]))"
    command = [sys.executable, "-c", code + ask]
    environ = kit.clean_environ(**variables)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=environ)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


_LOCALLY = """
import sys; sys.argv = ["train.py"]
from {package} import RUN_CONTEXT, DatasetConfig, is_running_in_azure_ml, submit_to_azure_if_needed
assert not is_running_in_azure_ml()
info = submit_to_azure_if_needed(
    compute_cluster_name="cpu", input_datasets=["data", DatasetConfig("more", local_folder=".")]
)
assert not info.is_running_in_azure_ml and info.run is None
"""


@pytest.mark.parametrize("code", ["import himl_container", "import health_azure"])
def test_import_of_the_package(code: str, tmp_path: Path) -> None:
    assert _loaded(code, tmp_path) == []


@pytest.mark.parametrize("package", ["himl_container", "health_azure"])
def test_a_script_that_runs_locally(package: str, tmp_path: Path) -> None:
    assert _loaded(_LOCALLY.format(package=package), tmp_path) == []


def test_every_exported_name_is_there_without_heavy_imports(tmp_path: Path) -> None:
    names = [name for name in himl_container.__all__ if name != "__version__"]
    assert _loaded(f"from himl_container import {', '.join(names)}", tmp_path) == []


def test_names_of_health_azure_are_the_same_objects() -> None:
    other = importlib.import_module("health_azure")
    names = set(other.__all__)
    assert names <= set(himl_container.__all__)
    assert [name for name in names if getattr(himl_container, name) is not getattr(other, name)] == []


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'submit'"):
        himl_container.submit  # noqa: B018
    assert set(himl_container.__all__) <= set(dir(himl_container))
