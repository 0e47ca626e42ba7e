"""hi-ml's ``health_azure`` under its own name, so that scripts that were written for it run unchanged.

Every name is himl-container's; ``docs/moving-from-hi-ml.md`` says what is better than it was. Nothing is imported
before it is used: a script that runs without AzureML loads neither its SDK nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from health_azure._lazy import exports

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

_PLACES = {
    "himl_container.azureml.configuration": ("create_run_configuration",),
    "himl_container.azureml.context": ("RUN_CONTEXT", "is_running_in_azure_ml"),
    "himl_container.azureml.datasets": ("DatasetConfig",),
    "himl_container.azureml.distributed": ("set_environment_variables_for_multi_node", "torch_barrier"),
    "himl_container.azureml.elevate": ("AzureRunInfo", "submit_to_azure_if_needed"),
    "himl_container.azureml.names": ("split_recovery_id",),
    "himl_container.azureml.runs": ("fetch_run", "get_most_recent_run"),
    "himl_container.azureml.script_run": ("create_script_run",),
    "himl_container.azureml.submission": ("submit_run",),
    "himl_container.azureml.transfers": (
        "download_checkpoints_from_run_id",
        "download_files_from_run_id",
        "download_from_datastore",
        "upload_to_datastore",
    ),
    "himl_container.azureml.workspace": ("get_workspace",),
}

__all__ = [
    "RUN_CONTEXT",
    "AzureRunInfo",
    "DatasetConfig",
    "create_run_configuration",
    "create_script_run",
    "download_checkpoints_from_run_id",
    "download_files_from_run_id",
    "download_from_datastore",
    "fetch_run",
    "get_most_recent_run",
    "get_workspace",
    "is_running_in_azure_ml",
    "set_environment_variables_for_multi_node",
    "split_recovery_id",
    "submit_run",
    "submit_to_azure_if_needed",
    "torch_barrier",
    "upload_to_datastore",
]

__getattr__, __dir__ = exports(__name__, _PLACES)
