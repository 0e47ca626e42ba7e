"""Names that hi-ml's users know: files, folders, environment variables, separators.

Source: hi-ml 0.1.9; ``health_azure.himl`` and ``health_azure.utils`` have them under the same names.
"""

from __future__ import annotations

AML_IGNORE_FILE = ".amlignore"
"""Patterns of what the snapshot leaves out."""
AZUREML_COMMANDLINE_FLAG = "--azureml"
"""The argument of a script that asks for a submission."""
CONDA_ENVIRONMENT_FILE = "environment.yml"
LOGS_FOLDER = "logs"
"""Below the working directory; AzureML uploads it while the run goes on."""
OUTPUT_FOLDER = "outputs"
"""Below the working directory; AzureML uploads it at the end of the run."""
RUN_RECOVERY_FILE = "most_recent_run.txt"
"""Holds the recovery id of the run that was submitted last from this folder."""
SDK_NAME = "innereye"
SDK_VERSION = "2.0"

EXPERIMENT_RUN_SEPARATOR = ":"
"""Between experiment name and run id in a recovery id."""
WORKSPACE_CONFIG_JSON = "config.json"
"""The workspace's file, as the Azure portal offers it for download."""
ENVIRONMENT_VERSION = "1"
"""Version of an AzureML environment that is registered and has none."""
DEFAULT_UPLOAD_TIMEOUT_SECONDS = 36_000

ENV_SERVICE_PRINCIPAL_ID = "HIML_SERVICE_PRINCIPAL_ID"
ENV_SERVICE_PRINCIPAL_PASSWORD = "HIML_SERVICE_PRINCIPAL_PASSWORD"  # noqa: S105  # the variable's name
ENV_TENANT_ID = "HIML_TENANT_ID"
ENV_RESOURCE_GROUP = "HIML_RESOURCE_GROUP"
ENV_SUBSCRIPTION_ID = "HIML_SUBSCRIPTION_ID"
ENV_WORKSPACE_NAME = "HIML_WORKSPACE_NAME"
ENV_EMULATOR_CONFIG = "HIML_EMULATOR_CONFIG"
"""The ``config.json`` of the emulator to which this process's variables lead (``emulator exec``, ``emulator env``)."""

ENV_AZ_BATCHAI_MPI_MASTER_NODE = "AZ_BATCHAI_MPI_MASTER_NODE"
ENV_MASTER_ADDR = "MASTER_ADDR"
ENV_MASTER_IP = "MASTER_IP"
ENV_MASTER_PORT = "MASTER_PORT"
ENV_OMPI_COMM_WORLD_RANK = "OMPI_COMM_WORLD_RANK"
ENV_NODE_RANK = "NODE_RANK"
ENV_GLOBAL_RANK = "GLOBAL_RANK"
ENV_LOCAL_RANK = "LOCAL_RANK"

DEFAULT_MASTER_PORT = 6105
"""TCP port at which the nodes of a distributed job meet."""

DEFAULT_ENVIRONMENT_VARIABLES = {
    "AZUREML_OUTPUT_UPLOAD_TIMEOUT_SEC": "3600",
    "AZUREML_RUN_KILL_SIGNAL_TIMEOUT_SEC": "900",
    "MKL_SERVICE_FORCE_INTEL": "1",
    "RSLEX_DIRECT_VOLUME_MOUNT": "true",
    "RSLEX_DIRECT_VOLUME_MOUNT_MAX_CACHE_SIZE": "1",
}
"""Variables of each run in the cloud, in hi-ml's order (it goes into its hash); a value of the user's wins."""
