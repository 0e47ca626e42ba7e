"""himl-container: from Conda files and private wheels to a tested image that runs the same here and in AzureML.

The public names, among them those of hi-ml's ``health_azure`` and ``health_ml.utils``, are imported when they are first
used (PEP 562), so that ``import himl_container`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from himl_container.azureml.configuration import create_run_configuration as create_run_configuration
    from himl_container.azureml.context import RUN_CONTEXT as RUN_CONTEXT
    from himl_container.azureml.context import is_running_in_azure_ml as is_running_in_azure_ml
    from himl_container.azureml.datasets import DatasetConfig as DatasetConfig
    from himl_container.azureml.distributed import (
        set_environment_variables_for_multi_node as set_environment_variables_for_multi_node,
    )
    from himl_container.azureml.distributed import torch_barrier as torch_barrier
    from himl_container.azureml.elevate import AzureRunInfo as AzureRunInfo
    from himl_container.azureml.elevate import submit_to_azure_if_needed as submit_to_azure_if_needed
    from himl_container.azureml.names import split_recovery_id as split_recovery_id
    from himl_container.azureml.runs import fetch_run as fetch_run
    from himl_container.azureml.runs import get_most_recent_run as get_most_recent_run
    from himl_container.azureml.script_run import create_script_run as create_script_run
    from himl_container.azureml.submission import submit_run as submit_run
    from himl_container.azureml.transfers import download_checkpoints_from_run_id as download_checkpoints_from_run_id
    from himl_container.azureml.transfers import download_files_from_run_id as download_files_from_run_id
    from himl_container.azureml.transfers import download_from_datastore as download_from_datastore
    from himl_container.azureml.transfers import upload_to_datastore as upload_to_datastore
    from himl_container.azureml.workspace import get_workspace as get_workspace
    from himl_container.environment.declare import load_environment as load_environment
    from himl_container.errors import HimlError as HimlError
    from himl_container.settings import Settings as Settings
    from himl_container.settings import load_settings as load_settings
    from himl_container.training.diagnostics import BatchTimeCallback as BatchTimeCallback
    from himl_container.training.logger import AzureMLLogger as AzureMLLogger
    from himl_container.training.metrics import log_learning_rate as log_learning_rate
    from himl_container.training.metrics import log_on_epoch as log_on_epoch
    from himl_container.training.progress_bar import AzureMLProgressBar as AzureMLProgressBar

__version__ = "0.1.0"

# Public name -> the module that has it.
_PUBLIC = {
    "AzureMLLogger": "himl_container.training.logger",
    "AzureMLProgressBar": "himl_container.training.progress_bar",
    "AzureRunInfo": "himl_container.azureml.elevate",
    "BatchTimeCallback": "himl_container.training.diagnostics",
    "DatasetConfig": "himl_container.azureml.datasets",
    "HimlError": "himl_container.errors",
    "RUN_CONTEXT": "himl_container.azureml.context",
    "Settings": "himl_container.settings",
    "create_run_configuration": "himl_container.azureml.configuration",
    "create_script_run": "himl_container.azureml.script_run",
    "download_checkpoints_from_run_id": "himl_container.azureml.transfers",
    "download_files_from_run_id": "himl_container.azureml.transfers",
    "download_from_datastore": "himl_container.azureml.transfers",
    "fetch_run": "himl_container.azureml.runs",
    "get_most_recent_run": "himl_container.azureml.runs",
    "get_workspace": "himl_container.azureml.workspace",
    "is_running_in_azure_ml": "himl_container.azureml.context",
    "load_environment": "himl_container.environment.declare",
    "load_settings": "himl_container.settings",
    "log_learning_rate": "himl_container.training.metrics",
    "log_on_epoch": "himl_container.training.metrics",
    "set_environment_variables_for_multi_node": "himl_container.azureml.distributed",
    "split_recovery_id": "himl_container.azureml.names",
    "submit_run": "himl_container.azureml.submission",
    "submit_to_azure_if_needed": "himl_container.azureml.elevate",
    "torch_barrier": "himl_container.azureml.distributed",
    "upload_to_datastore": "himl_container.azureml.transfers",
}

__all__ = [
    "RUN_CONTEXT",
    "AzureMLLogger",
    "AzureMLProgressBar",
    "AzureRunInfo",
    "BatchTimeCallback",
    "DatasetConfig",
    "HimlError",
    "Settings",
    "__version__",
    "create_run_configuration",
    "create_script_run",
    "download_checkpoints_from_run_id",
    "download_files_from_run_id",
    "download_from_datastore",
    "fetch_run",
    "get_most_recent_run",
    "get_workspace",
    "is_running_in_azure_ml",
    "load_environment",
    "load_settings",
    "log_learning_rate",
    "log_on_epoch",
    "set_environment_variables_for_multi_node",
    "split_recovery_id",
    "submit_run",
    "submit_to_azure_if_needed",
    "torch_barrier",
    "upload_to_datastore",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *_PUBLIC})
