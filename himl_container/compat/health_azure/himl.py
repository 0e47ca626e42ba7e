"""hi-ml's module of submission, which is a program too: ``python -m health_azure.himl --help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from health_azure._lazy import exports

if TYPE_CHECKING:
    from himl_container.azureml.amlignore import append_to_amlignore
    from himl_container.azureml.conda_environment import create_python_environment, register_environment
    from himl_container.azureml.configuration import create_run_configuration
    from himl_container.azureml.constants import (
        AML_IGNORE_FILE,
        AZUREML_COMMANDLINE_FLAG,
        CONDA_ENVIRONMENT_FILE,
        LOGS_FOLDER,
        OUTPUT_FOLDER,
        RUN_RECOVERY_FILE,
        SDK_NAME,
        SDK_VERSION,
    )
    from himl_container.azureml.context import RUN_CONTEXT, is_running_in_azure_ml
    from himl_container.azureml.datasets import DatasetConfig, convert_himl_to_azureml_datasets, create_dataset_configs
    from himl_container.azureml.elevate import AzureRunInfo, submit_to_azure_if_needed
    from himl_container.azureml.names import (
        create_run_recovery_id,
        run_duration_string_to_seconds,
        to_azure_friendly_string,
    )
    from himl_container.azureml.runs import is_run_and_child_runs_completed
    from himl_container.azureml.script_run import create_script_run
    from himl_container.azureml.submission import submit_run
    from himl_container.azureml.workspace import get_workspace

_PLACES = {
    "himl_container.azureml.amlignore": ("append_to_amlignore",),
    "himl_container.azureml.conda_environment": ("create_python_environment", "register_environment"),
    "himl_container.azureml.configuration": ("create_run_configuration",),
    "himl_container.azureml.constants": (
        "AML_IGNORE_FILE",
        "AZUREML_COMMANDLINE_FLAG",
        "CONDA_ENVIRONMENT_FILE",
        "LOGS_FOLDER",
        "OUTPUT_FOLDER",
        "RUN_RECOVERY_FILE",
        "SDK_NAME",
        "SDK_VERSION",
    ),
    "himl_container.azureml.context": ("RUN_CONTEXT", "is_running_in_azure_ml"),
    "himl_container.azureml.datasets": ("DatasetConfig", "convert_himl_to_azureml_datasets", "create_dataset_configs"),
    "himl_container.azureml.elevate": ("AzureRunInfo", "submit_to_azure_if_needed"),
    "himl_container.azureml.names": (
        "create_run_recovery_id",
        "run_duration_string_to_seconds",
        "to_azure_friendly_string",
    ),
    "himl_container.azureml.runs": ("is_run_and_child_runs_completed",),
    "himl_container.azureml.script_run": ("create_script_run",),
    "himl_container.azureml.submission": ("submit_run",),
    "himl_container.azureml.workspace": ("get_workspace",),
}

__all__ = [
    "AML_IGNORE_FILE",
    "AZUREML_COMMANDLINE_FLAG",
    "CONDA_ENVIRONMENT_FILE",
    "LOGS_FOLDER",
    "OUTPUT_FOLDER",
    "RUN_CONTEXT",
    "RUN_RECOVERY_FILE",
    "SDK_NAME",
    "SDK_VERSION",
    "AzureRunInfo",
    "DatasetConfig",
    "append_to_amlignore",
    "convert_himl_to_azureml_datasets",
    "create_dataset_configs",
    "create_python_environment",
    "create_run_configuration",
    "create_run_recovery_id",
    "create_script_run",
    "get_workspace",
    "is_run_and_child_runs_completed",
    "is_running_in_azure_ml",
    "register_environment",
    "run_duration_string_to_seconds",
    "submit_run",
    "submit_to_azure_if_needed",
    "to_azure_friendly_string",
]

__getattr__, __dir__ = exports(__name__, _PLACES)


def main() -> None:
    """Submit a script that knows nothing of AzureML.

    ``python -m health_azure.himl -t train.py -c cluster --azureml -- --epochs 3`` submits ``train.py --epochs 3``.
    Without ``--azureml`` nothing is submitted, as with every script.

    :raises ValueError: a wrong argument; what :func:`submit_to_azure_if_needed` raises.
    """
    # By the name that others know it by: as a program this module is called __main__.
    from health_azure import himl  # noqa: PLW0406

    arguments = _parser().parse_args()
    himl.submit_to_azure_if_needed(
        workspace_config_file=arguments.workspace_config_file,
        compute_cluster_name=arguments.compute_cluster_name,
        snapshot_root_directory=arguments.snapshot_root_directory,
        entry_script=arguments.entry_script,
        conda_environment_file=arguments.conda_environment_file,
        script_params=arguments.script_params,
        submit_to_azureml=arguments.azureml,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m health_azure.himl", description="Submit a script to Azure Machine Learning."
    )
    parser.add_argument(
        "-p", "--workspace_config_file", type=Path, help="config.json of the workspace (default: searched upwards)"
    )
    parser.add_argument("-c", "--compute_cluster_name", required=True, help="cluster that runs the script")
    parser.add_argument("-y", "--snapshot_root_directory", type=Path, help="folder with all code (default: this one)")
    parser.add_argument("-t", "--entry_script", type=Path, required=True, help="the script, in the snapshot")
    parser.add_argument(
        "-d",
        "--conda_environment_file",
        type=Path,
        help="environment file (default: environment.yml, searched upwards)",
    )
    parser.add_argument("--azureml", action="store_true", help="submit; without it nothing is done")
    parser.add_argument("script_params", nargs="*", metavar="-- ARGUMENT", help="arguments of the script")
    return parser


if __name__ == "__main__":
    from himl_container.errors import HimlError

    try:
        main()
    except HimlError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
