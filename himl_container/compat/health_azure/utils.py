"""hi-ml's module of everything else: workspaces, runs, files, environments, several nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from health_azure._lazy import exports

if TYPE_CHECKING:
    from himl_container.azureml.conda_environment import (
        create_python_environment,
        merge_conda_files,
        register_environment,
    )
    from himl_container.azureml.constants import (
        DEFAULT_UPLOAD_TIMEOUT_SECONDS,
        ENV_AZ_BATCHAI_MPI_MASTER_NODE,
        ENV_GLOBAL_RANK,
        ENV_LOCAL_RANK,
        ENV_MASTER_ADDR,
        ENV_MASTER_IP,
        ENV_MASTER_PORT,
        ENV_NODE_RANK,
        ENV_OMPI_COMM_WORLD_RANK,
        ENV_RESOURCE_GROUP,
        ENV_SERVICE_PRINCIPAL_ID,
        ENV_SERVICE_PRINCIPAL_PASSWORD,
        ENV_SUBSCRIPTION_ID,
        ENV_TENANT_ID,
        ENV_WORKSPACE_NAME,
        ENVIRONMENT_VERSION,
        EXPERIMENT_RUN_SEPARATOR,
        WORKSPACE_CONFIG_JSON,
    )
    from himl_container.azureml.context import RUN_CONTEXT, is_running_in_azure_ml
    from himl_container.azureml.distributed import (
        is_global_rank_zero,
        is_local_rank_zero,
        set_environment_variables_for_multi_node,
        torch_barrier,
    )
    from himl_container.azureml.login import get_authentication, get_secret_from_environment
    from himl_container.azureml.names import (
        create_run_recovery_id,
        run_duration_string_to_seconds,
        split_recovery_id,
        to_azure_friendly_string,
    )
    from himl_container.azureml.runs import (
        fetch_run,
        fetch_run_for_experiment,
        get_most_recent_run,
        get_most_recent_run_id,
        is_run_and_child_runs_completed,
    )
    from himl_container.azureml.selection import (
        AzureRunIdSource,
        determine_run_id_source,
        get_aml_run_from_latest_run_file,
        get_aml_run_from_recovery_id,
        get_aml_run_from_run_id,
        get_aml_run_from_run_id_args,
        get_aml_runs,
        get_aml_runs_from_recovery_ids,
        get_aml_runs_from_run_ids,
        get_latest_aml_runs_from_experiment,
    )
    from himl_container.azureml.transfers import (
        download_checkpoints_from_run_id,
        download_files_from_run_id,
        download_from_datastore,
        get_run_file_names,
        upload_to_datastore,
    )
    from himl_container.azureml.workspace import get_workspace

_PLACES = {
    "himl_container.azureml.conda_environment": (
        "create_python_environment",
        "merge_conda_files",
        "register_environment",
    ),
    "himl_container.azureml.constants": (
        "DEFAULT_UPLOAD_TIMEOUT_SECONDS",
        "ENVIRONMENT_VERSION",
        "ENV_AZ_BATCHAI_MPI_MASTER_NODE",
        "ENV_GLOBAL_RANK",
        "ENV_LOCAL_RANK",
        "ENV_MASTER_ADDR",
        "ENV_MASTER_IP",
        "ENV_MASTER_PORT",
        "ENV_NODE_RANK",
        "ENV_OMPI_COMM_WORLD_RANK",
        "ENV_RESOURCE_GROUP",
        "ENV_SERVICE_PRINCIPAL_ID",
        "ENV_SERVICE_PRINCIPAL_PASSWORD",
        "ENV_SUBSCRIPTION_ID",
        "ENV_TENANT_ID",
        "ENV_WORKSPACE_NAME",
        "EXPERIMENT_RUN_SEPARATOR",
        "WORKSPACE_CONFIG_JSON",
    ),
    "himl_container.azureml.context": ("RUN_CONTEXT", "is_running_in_azure_ml"),
    "himl_container.azureml.distributed": (
        "is_global_rank_zero",
        "is_local_rank_zero",
        "set_environment_variables_for_multi_node",
        "torch_barrier",
    ),
    "himl_container.azureml.login": ("get_authentication", "get_secret_from_environment"),
    "himl_container.azureml.names": (
        "create_run_recovery_id",
        "run_duration_string_to_seconds",
        "split_recovery_id",
        "to_azure_friendly_string",
    ),
    "himl_container.azureml.runs": (
        "fetch_run",
        "fetch_run_for_experiment",
        "get_most_recent_run",
        "get_most_recent_run_id",
        "is_run_and_child_runs_completed",
    ),
    "himl_container.azureml.selection": (
        "AzureRunIdSource",
        "determine_run_id_source",
        "get_aml_run_from_latest_run_file",
        "get_aml_run_from_recovery_id",
        "get_aml_run_from_run_id",
        "get_aml_run_from_run_id_args",
        "get_aml_runs",
        "get_aml_runs_from_recovery_ids",
        "get_aml_runs_from_run_ids",
        "get_latest_aml_runs_from_experiment",
    ),
    "himl_container.azureml.transfers": (
        "download_checkpoints_from_run_id",
        "download_files_from_run_id",
        "download_from_datastore",
        "get_run_file_names",
        "upload_to_datastore",
    ),
    "himl_container.azureml.workspace": ("get_workspace",),
}

__all__ = [
    "DEFAULT_UPLOAD_TIMEOUT_SECONDS",
    "ENVIRONMENT_VERSION",
    "ENV_AZ_BATCHAI_MPI_MASTER_NODE",
    "ENV_GLOBAL_RANK",
    "ENV_LOCAL_RANK",
    "ENV_MASTER_ADDR",
    "ENV_MASTER_IP",
    "ENV_MASTER_PORT",
    "ENV_NODE_RANK",
    "ENV_OMPI_COMM_WORLD_RANK",
    "ENV_RESOURCE_GROUP",
    "ENV_SERVICE_PRINCIPAL_ID",
    "ENV_SERVICE_PRINCIPAL_PASSWORD",
    "ENV_SUBSCRIPTION_ID",
    "ENV_TENANT_ID",
    "ENV_WORKSPACE_NAME",
    "EXPERIMENT_RUN_SEPARATOR",
    "RUN_CONTEXT",
    "WORKSPACE_CONFIG_JSON",
    "AzureRunIdSource",
    "create_python_environment",
    "create_run_recovery_id",
    "determine_run_id_source",
    "download_checkpoints_from_run_id",
    "download_files_from_run_id",
    "download_from_datastore",
    "fetch_run",
    "fetch_run_for_experiment",
    "get_aml_run_from_latest_run_file",
    "get_aml_run_from_recovery_id",
    "get_aml_run_from_run_id",
    "get_aml_run_from_run_id_args",
    "get_aml_runs",
    "get_aml_runs_from_recovery_ids",
    "get_aml_runs_from_run_ids",
    "get_authentication",
    "get_latest_aml_runs_from_experiment",
    "get_most_recent_run",
    "get_most_recent_run_id",
    "get_run_file_names",
    "get_secret_from_environment",
    "get_workspace",
    "is_global_rank_zero",
    "is_local_rank_zero",
    "is_run_and_child_runs_completed",
    "is_running_in_azure_ml",
    "merge_conda_files",
    "register_environment",
    "run_duration_string_to_seconds",
    "set_environment_variables_for_multi_node",
    "split_recovery_id",
    "to_azure_friendly_string",
    "torch_barrier",
    "upload_to_datastore",
]

__getattr__, __dir__ = exports(__name__, _PLACES)
