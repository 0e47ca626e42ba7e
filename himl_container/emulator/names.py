"""The emulator's own workspace: its names in Azure's terms, and the host names that it answers for."""

from __future__ import annotations

from dataclasses import dataclass

AAD_HOST = "login.microsoftonline.com"
ARM_HOST = "management.azure.com"
API_HOST = "eastus.api.azureml.ms"
STUDIO_HOST = "ml.azure.com"
REGION = "eastus"

WORKSPACE_PATH = "subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.MachineLearningServices/workspaces/{w}"


@dataclass(frozen=True)
class Workspace:
    """The workspace of one emulator; its ids are random and made at its first start.

    :param storage_account: of Azurite; :param registry: name before ``.azurecr.io``.
    """

    tenant_id: str
    subscription_id: str
    resource_group: str
    name: str
    workspace_id: str
    storage_account: str
    registry: str
    key_vault: str

    @property
    def path(self) -> str:
        """The workspace's resource path, without a slash before it."""
        return WORKSPACE_PATH.format(s=self.subscription_id, g=self.resource_group, w=self.name)

    @property
    def blob_host(self) -> str:
        """The host name of the workspace's blob storage."""
        return f"{self.storage_account}.blob.core.windows.net"

    @property
    def registry_host(self) -> str:
        """The host name of the workspace's container registry."""
        return f"{self.registry}.azurecr.io"
