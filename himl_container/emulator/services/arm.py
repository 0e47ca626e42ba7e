"""Azure Resource Manager: one subscription, one resource group, one workspace and what belongs to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from himl_container.emulator.access import Access
from himl_container.emulator.http import Answer, Refusal, Request, json_answer
from himl_container.emulator.identity import Kind
from himl_container.emulator.installation import Installation
from himl_container.emulator.names import AAD_HOST, API_HOST, ARM_HOST, REGION
from himl_container.emulator.routes import Host, Route
from himl_container.emulator.state.runs import iso
from himl_container.emulator.tokens import ARM_AUDIENCES

_TEST = "tests/emulator/test_workspace.py::"
_GROUP = "/subscriptions/{s}/resourceGroups/{g}"
_FILTER = re.compile(r"(\w+) eq '([^']*)'")


class ResourceManager:
    """Describes the emulator's resources. What other services hold (computes, registries) they answer themselves.

    :param created: when the emulator was first started, seconds since the epoch.
    :param passwords: gives those of the registry's administrator.
    """

    def __init__(
        self,
        installation: Installation,
        access: Access,
        created: float,
        passwords: Callable[[], tuple[str, str]],
    ) -> None:
        self._installation, self._access, self._created = installation, access, created
        self._passwords = passwords
        self._workspace = installation.workspace

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        workspace = "/{ws}"
        group = f"{_GROUP}/providers/Microsoft.MachineLearningServices/workspaces"
        every = "/subscriptions/{s}/providers/Microsoft.MachineLearningServices/workspaces"
        keys = f"{_GROUP}/providers/Microsoft.Storage/storageAccounts/{{name}}"
        vault, insights = "Microsoft.KeyVault/vaults", "microsoft.insights/components"
        listed, details = f"{_TEST}test_list", f"{_TEST}test_details"
        asked = f"{_TEST}test_resource_manager"
        return (
            _arm("GET", "/subscriptions", self._subscriptions, "Arm.ListSubscriptions", f"{_TEST}test_from_config"),
            Route(
                method="GET",
                pattern="/metadata/endpoints",
                handler=self._clouds,
                operation="Arm.Clouds",
                test=f"{_TEST}test_from_config",
                host="arm",
                public=True,
            ),
            _arm("GET", "/tenants", self._tenants, "Arm.ListTenants", asked),
            _arm("GET", "/subscriptions/{s}", self._subscription, "Arm.GetSubscription", asked),
            _arm("GET", "/subscriptions/{s}/resourceGroups", self._groups, "Arm.ListGroups", asked),
            _arm("GET", _GROUP, self._group, "Arm.GetGroup", asked),
            _arm("GET", "/subscriptions/{s}/resources", self._resources, "Arm.ListResources", listed),
            _arm("GET", f"{_GROUP}/resources", self._resources, "Arm.ListGroupResources", asked),
            _arm("GET", every, self._workspaces, "Arm.ListWorkspaces", asked),
            _arm("GET", group, self._workspaces, "Arm.ListGroupWorkspaces", listed),
            _arm("GET", workspace, self._get_workspace, "Arm.GetWorkspace", details),
            # In a job the SDK asks the workspace's own services instead of Resource Manager.
            _arm(
                "GET",
                "/rp/workspaces/{ws}",
                self._get_workspace,
                "Arm.GetWorkspaceFromJob",
                f"{_TEST}test_in_a_job",
                host="api",
            ),
            _arm(
                "POST",
                f"{workspace}/listKeys",
                self._workspace_keys,
                "Arm.ListWorkspaceKeys",
                f"{_TEST}test_workspace_keys",
            ),
            _arm("GET", keys, self._storage, "Arm.GetStorageAccount", asked),
            _arm("POST", f"{keys}/listKeys", self._storage_keys, "Arm.ListStorageKeys", f"{_TEST}test_storage_keys"),
            _arm("GET", f"{_GROUP}/providers/{vault}/{{name}}", self._vault, "Arm.GetVault", asked),
            _arm("GET", f"{_GROUP}/providers/{insights}/{{name}}", self._insights, "Arm.GetInsights", asked),
        )

    def _clouds(self, request: Request) -> Answer:
        # One cloud; the SDK uses the addresses that it was shipped with as soon as AzureCloud is named
        # (``_vendor/azure_cli_core/azureml_cloud.py``).
        login = {"loginEndpoint": f"https://{AAD_HOST}/", "audiences": sorted(ARM_AUDIENCES), "tenant": "common"}
        endpoints = {
            "portal": "https://portal.azure.com",
            "authentication": {**login, "identityProvider": "AAD"},
            "graphAudience": "https://graph.windows.net/",
            "graph": "https://graph.windows.net/",
            "name": "AzureCloud",
            "suffixes": {
                "acrLoginServer": "azurecr.io",
                "keyVaultDns": "vault.azure.net",
                "storage": "core.windows.net",
                "sqlServerHostname": "database.windows.net",
            },
            "batch": "https://batch.core.windows.net/",
            "resourceManager": f"https://{ARM_HOST}/",
            "vmImageAliasDoc": "https://raw.githubusercontent.com/Azure/azure-rest-api-specs/master/aliases.json",
            "sqlManagement": "https://management.core.windows.net:8443/",
            "gallery": "https://gallery.azure.com/",
        }
        return json_answer([endpoints])

    # --- subscription and group ---

    def _subscriptions(self, request: Request) -> Answer:
        return json_answer({"value": [self._subscription_document()], "count": {"type": "Total", "value": 1}})

    def _tenants(self, request: Request) -> Answer:
        tenant = self._workspace.tenant_id
        return json_answer({"value": [{"id": f"/tenants/{tenant}", "tenantId": tenant, "displayName": "Emulator"}]})

    def _subscription(self, request: Request) -> Answer:
        return json_answer(self._subscription_document())

    def _subscription_document(self) -> dict[str, Any]:
        subscription = self._workspace.subscription_id
        return {
            "id": f"/subscriptions/{subscription}",
            "subscriptionId": subscription,
            "tenantId": self._workspace.tenant_id,
            "displayName": "Emulator",
            "state": "Enabled",
            "subscriptionPolicies": {"locationPlacementId": "Public_2014-09-01", "spendingLimit": "Off"},
            "authorizationSource": "RoleBased",
        }

    def _groups(self, request: Request) -> Answer:
        return json_answer({"value": [self._group_document()]})

    def _group(self, request: Request) -> Answer:
        return json_answer(self._group_document())

    def _group_document(self) -> dict[str, Any]:
        return {
            "id": self._group_id,
            "name": self._workspace.resource_group,
            "type": "Microsoft.Resources/resourceGroups",
            "location": REGION,
            "tags": {},
            "properties": {"provisioningState": "Succeeded"},
        }

    # --- resources ---

    def _resources(self, request: Request) -> Answer:
        # An OData filter of equations that all hold is what the SDK writes (``_workspace/custom.py``).
        wanted = {name.lower(): value.lower() for name, value in _FILTER.findall(request.first("$filter"))}
        found = [item for item in self._all_resources() if _fits(item, wanted, self._workspace.resource_group)]
        return json_answer({"value": found})

    def _all_resources(self) -> list[dict[str, Any]]:
        names = {
            "Microsoft.MachineLearningServices/workspaces": self._workspace.name,
            "Microsoft.Storage/storageAccounts": self._workspace.storage_account,
            "Microsoft.ContainerRegistry/registries": self._workspace.registry,
            "Microsoft.KeyVault/vaults": self._workspace.key_vault,
            "microsoft.insights/components": self._workspace.key_vault,
        }
        return [self._resource(kind, name) for kind, name in names.items()]

    def _resource(self, kind: str, name: str, **properties: Any) -> dict[str, Any]:
        document = {"id": self._id(kind, name), "name": name, "type": kind, "location": REGION, "tags": {}}
        return {**document, **({"properties": properties} if properties else {})}

    def _storage(self, request: Request) -> Answer:
        name = self._named(request, self._workspace.storage_account, "Microsoft.Storage/storageAccounts")
        endpoints = {"blob": f"https://{self._workspace.blob_host}/"}
        document = self._resource("Microsoft.Storage/storageAccounts", name, primaryEndpoints=endpoints)
        return json_answer({**document, "kind": "StorageV2", "sku": {"name": "Standard_LRS", "tier": "Standard"}})

    def _storage_keys(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        self._named(request, self._workspace.storage_account, "Microsoft.Storage/storageAccounts")
        key = {"value": self._installation.storage_key, "permissions": "FULL"}
        return json_answer({"keys": [{"keyName": name, **key} for name in ("key1", "key2")]})

    def _vault(self, request: Request) -> Answer:
        name = self._named(request, self._workspace.key_vault, "Microsoft.KeyVault/vaults")
        address = f"https://{name}.vault.azure.net/"
        return json_answer(self._resource("Microsoft.KeyVault/vaults", name, vaultUri=address))

    def _insights(self, request: Request) -> Answer:
        name = self._named(request, self._workspace.key_vault, "microsoft.insights/components")
        return json_answer(self._resource("microsoft.insights/components", name, InstrumentationKey=_NO_KEY))

    # --- workspace ---

    def _workspaces(self, request: Request) -> Answer:
        return json_answer({"value": [self._workspace_document(request)]})

    def _get_workspace(self, request: Request) -> Answer:
        return json_answer(self._workspace_document(request))

    def _workspace_keys(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        first, second = self._passwords()
        passwords = [{"name": "password", "value": first}, {"name": "password2", "value": second}]
        registry = {"location": REGION, "username": self._workspace.registry, "passwords": passwords}
        return json_answer(
            {
                "userStorageKey": self._installation.storage_key,
                "userStorageResourceId": self._id("Microsoft.Storage/storageAccounts", self._workspace.storage_account),
                "appInsightsInstrumentationKey": _NO_KEY,
                "containerRegistryCredentials": registry,
                "notebookAccessKeys": None,
            }
        )

    def _workspace_document(self, request: Request) -> dict[str, Any]:
        workspace = self._workspace
        # A job may not see the page, which shows the files of all runs.
        ticket = f"/workspaces/{self._installation.discovery_ticket}" if request.identity.kind is Kind.USER else ""
        kind = "Microsoft.MachineLearningServices/workspaces"
        properties = {
            "friendlyName": workspace.name,
            "description": "An emulator on this machine",
            "creationTime": iso(self._created),
            "workspaceId": workspace.workspace_id,
            "discoveryUrl": f"https://{API_HOST}/discovery{ticket}",
            "storageAccount": self._id("Microsoft.Storage/storageAccounts", workspace.storage_account),
            "containerRegistry": self._id("Microsoft.ContainerRegistry/registries", workspace.registry),
            "keyVault": self._id("Microsoft.KeyVault/vaults", workspace.key_vault),
            "applicationInsights": self._id("microsoft.insights/components", workspace.key_vault),
            "sdkTelemetryAppInsightsKey": None,
            "hbiWorkspace": False,
            "imageBuildCompute": None,
            "provisioningState": "Succeeded",
            "v1LegacyMode": False,
            "systemDatastoresAuthMode": "accessKey",
        }
        identity = {"type": "SystemAssigned", "principalId": self._installation.object_id}
        return {
            **self._resource(kind, workspace.name, **properties),
            "sku": {"name": "Basic", "tier": "Basic"},
            "identity": {**identity, "tenantId": workspace.tenant_id},
        }

    @property
    def _group_id(self) -> str:
        return f"/subscriptions/{self._workspace.subscription_id}/resourceGroups/{self._workspace.resource_group}"

    def _id(self, kind: str, name: str) -> str:
        return f"{self._group_id}/providers/{kind}/{name}"

    @staticmethod
    def _named(request: Request, wanted: str, kind: str) -> str:
        if request.params["name"].lower() != wanted.lower():
            text = f"The Resource '{kind}/{request.params['name']}' was not found."
            raise Refusal(404, "ResourceNotFound", text)
        return wanted


_NO_KEY = "00000000-0000-0000-0000-000000000000"
"""Instrumentation key of an Application Insights that does not exist."""


def check_names(installation: Installation, params: Mapping[str, str | None]) -> None:
    """Refuse a path that names another subscription (``s``), resource group (``g``) or workspace (``w``) than ours.

    :raises Refusal: 404, in Resource Manager's words.
    """
    workspace = installation.workspace
    subscription, group, name = params.get("s"), params.get("g"), params.get("w")
    if subscription is not None and subscription.lower() != workspace.subscription_id:
        raise Refusal(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
    if group is not None and group.lower() != workspace.resource_group.lower():
        raise Refusal(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
    if name is not None and name.lower() != workspace.name.lower():
        what = f"Microsoft.MachineLearningServices/workspaces/{name}"
        text = f"The Resource '{what}' under resource group '{group}' was not found."
        raise Refusal(404, "ResourceNotFound", text)


def _fits(item: Mapping[str, Any], wanted: Mapping[str, str], group: str) -> bool:
    facts = {"name": item["name"], "location": item["location"], "resourcetype": item["type"], "resourcegroup": group}
    return all(str(facts.get(name, "")).lower() == value for name, value in wanted.items())


def _arm(method: str, pattern: str, handler: Any, operation: str, test: str, *, host: Host = "arm") -> Route:
    return Route(method, pattern, handler, operation, test, host=host)
