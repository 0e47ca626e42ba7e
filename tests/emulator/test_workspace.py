"""The workspace, as the SDK sees it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

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


def test_in_a_job(emulator: Emulator, workspace: Workspace) -> None:
    """Without Resource Manager, which a job's token does not open, the workspace describes itself."""
    import requests

    address = f"https://eastus.api.azureml.ms/rp/workspaces/{emulator.installation.workspace.path}"
    found = requests.get(address, headers=emulator.headers("https://ml.azure.com"), timeout=60).json()
    assert found["properties"]["discoveryUrl"] == workspace.discovery_url
    assert found["location"] == workspace.location


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


def test_storage_keys(emulator: Emulator, workspace: Workspace) -> None:
    """The account's key, as Azure's own library gets it, opens the blob storage behind the proxy."""
    from azure.identity import DefaultAzureCredential
    from azure.mgmt.storage import StorageManagementClient
    from azure.storage.blob import BlobServiceClient

    names = emulator.installation.workspace
    client = StorageManagementClient(DefaultAzureCredential(), names.subscription_id)
    keys = client.storage_accounts.list_keys(names.resource_group, names.storage_account).keys
    account = client.storage_accounts.get_properties(names.resource_group, names.storage_account)
    service = BlobServiceClient(account.primary_endpoints.blob, credential=keys[0].value)
    blob = service.create_container("of-the-keys").get_blob_client("a folder/ü.txt")
    blob.upload_blob(b"content")
    assert blob.download_blob().readall() == b"content"


def test_resource_manager(emulator: Emulator, workspace: Workspace) -> None:
    import requests

    names = emulator.installation.workspace
    arm = "https://management.azure.com"

    def get(path: str) -> Any:
        answer = requests.get(f"{arm}{path}", headers=emulator.headers(), timeout=60)
        return answer.json() if answer.ok else answer.json()["error"]["code"]

    group = f"/subscriptions/{names.subscription_id}/resourceGroups/{names.resource_group}"
    storage = f"{group}/providers/Microsoft.Storage/storageAccounts"
    assert get("/tenants")["value"][0]["tenantId"] == names.tenant_id
    assert get(f"/subscriptions/{names.subscription_id}")["displayName"] == "Emulator"
    every = f"/subscriptions/{names.subscription_id}/providers/Microsoft.MachineLearningServices/workspaces"
    assert [item["name"] for item in get(every)["value"]] == [names.name]
    assert get(f"{storage}/{names.storage_account}")["properties"]["primaryEndpoints"]["blob"].endswith(".net/")
    assert get(f"{storage}/another") == "ResourceNotFound"
    vault = get(f"{group}/providers/Microsoft.KeyVault/vaults/{names.key_vault}")
    assert vault["properties"]["vaultUri"] == f"https://{names.key_vault}.vault.azure.net/"
    insights = get(f"{group}/providers/microsoft.insights/components/{names.key_vault}")
    assert set(insights["properties"]) == {"InstrumentationKey"}
    assert get(group) == get(f"/subscriptions/{names.subscription_id}/resourceGroups")["value"][0]
    kinds = [item["type"] for item in get(f"{group}/resources")["value"]]
    assert len(kinds) == 5
    assert "Microsoft.ContainerRegistry/registries" in kinds
    assert get(f"{group}other") == "ResourceGroupNotFound"
    assert get("/subscriptions/11111111-2222-3333-4444-555555555555") == "SubscriptionNotFound"


def test_workspace_keys(emulator: Emulator, workspace: Workspace) -> None:
    from azureml._project import _commands

    names = (workspace.subscription_id, workspace.resource_group, workspace.name)
    keys = _commands.list_workspace_keys(workspace._auth, *names)
    assert keys.user_storage_key == emulator.installation.storage_key
    assert keys.container_registry_credentials.username == emulator.installation.workspace.registry
