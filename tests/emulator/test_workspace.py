"""The workspace, as the SDK sees it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from azureml.core import Workspace
    from conftest import Emulator

pytestmark = pytest.mark.emulator


def test_from_config(emulator: Emulator, workspace: Workspace) -> None:
    wanted = json.loads(emulator.config.read_text())
    found = {
        "subscription_id": workspace.subscription_id,
        "resource_group": workspace.resource_group,
        "workspace_name": workspace.name,
    }
    assert found == wanted
    assert workspace.location == "eastus"


def test_from_config_in_a_project(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from azureml.core import Workspace

    (tmp_path / ".azureml").mkdir()
    shutil.copy(emulator.config, tmp_path / ".azureml" / "config.json")
    monkeypatch.chdir(tmp_path)
    assert Workspace.from_config().name == "emulator"


def test_details(emulator: Emulator, workspace: Workspace) -> None:
    details = workspace.get_details()
    names = emulator.installation.workspace
    assert details["workspaceid"] == names.workspace_id
    assert details["storageAccount"].endswith(f"/storageAccounts/{names.storage_account}")
    assert details["containerRegistry"].endswith(f"/registries/{names.registry}")
    assert details["keyVault"].endswith(f"/vaults/{names.key_vault}")
    assert details["provisioningState"] == "Succeeded"


def test_list(workspace: Workspace) -> None:
    from azureml.core import Workspace as Class

    for group in (None, workspace.resource_group):
        found = Class.list(workspace.subscription_id, resource_group=group)
        assert [one.name for one in found[workspace.name]] == [workspace.name]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("name", "Workspace not found"), ("resource_group", "Workspace not found"), ("subscription_id", "11111111-2222")],
)
def test_wrong_names(workspace: Workspace, wrong: str, said: str) -> None:
    from azureml.core import Workspace as Class
    from azureml.exceptions import ProjectSystemException, UserErrorException, WorkspaceException

    names = {
        "name": workspace.name,
        "resource_group": workspace.resource_group,
        "subscription_id": workspace.subscription_id,
    }
    names[wrong] = "11111111-2222-3333-4444-555555555555" if wrong == "subscription_id" else "another"
    with pytest.raises((ProjectSystemException, UserErrorException, WorkspaceException)) as caught:
        Class.get(**names)
    assert said in str(caught.value)
