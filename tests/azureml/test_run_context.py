"""The run of a process inside AzureML, from the variables that a job finds.

The process runs on this machine, with a login that may use the workspace in the place of a job's token; that a job in a
container finds these variables is tested with the emulator.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from azureml.core import Run, Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator

_SCRIPT = """
import sys
from health_azure import RUN_CONTEXT, get_workspace, is_running_in_azure_ml
assert "azureml.core" not in sys.modules
assert is_running_in_azure_ml()
from azureml.core import Run
assert isinstance(RUN_CONTEXT, Run)
RUN_CONTEXT.log("loss", 0.5)
RUN_CONTEXT.flush()
# Neither the other workspace nor the file is looked at.
assert get_workspace("another", "absent.json").name == RUN_CONTEXT.experiment.workspace.name
print(RUN_CONTEXT.id)
"""


@pytest.fixture
def run(workspace: Workspace) -> Run:
    from azureml.core import Experiment

    return Experiment(workspace, "run-context").start_logging(snapshot_directory=None)


def test_run_context(emulator: Emulator, workspace: Workspace, run: Run, tmp_path: Path) -> None:
    made = emulator.installation.workspace
    variables = {
        "AZUREML_ARM_SUBSCRIPTION": made.subscription_id,
        "AZUREML_ARM_RESOURCEGROUP": made.resource_group,
        "AZUREML_ARM_WORKSPACE_NAME": made.name,
        "AZUREML_ARM_PROJECT_NAME": run.experiment.name,
        "AZUREML_EXPERIMENT_ID": run.experiment.id,
        "AZUREML_WORKSPACE_ID": made.workspace_id,
        "AZUREML_RUN_ID": run.id,
        "AZUREML_RUN_TOKEN": emulator.headers()["Authorization"].removeprefix("Bearer "),
        "AZUREML_RUN_TOKEN_EXPIRY": "2100-01-01T00:00:00Z",
        "AZUREML_SERVICE_ENDPOINT": "https://eastus.api.azureml.ms",
        "AZUREML_DISCOVERY_SERVICE_ENDPOINT": "https://eastus.api.azureml.ms/discovery",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == run.id
    assert run.get_metrics() == {"loss": 0.5}
    run.complete()
