"""The workspace's container registry as a resource: where it is, and the passwords of its administrator."""

from __future__ import annotations

from typing import Any

from himl_container.emulator.access import Access
from himl_container.emulator.http import Answer, Refusal, Request, json_answer
from himl_container.emulator.installation import Installation
from himl_container.emulator.names import REGION
from himl_container.emulator.routes import Route
from himl_container.emulator.state.registry_account import PASSWORDS, RegistryAccount
from himl_container.emulator.state.run import iso

_KIND = "Microsoft.ContainerRegistry/registries"
_TEST = "tests/emulator/test_registry_credentials.py::"


class ContainerRegistry:
    """Answers what ``azure-mgmt-containerregistry`` and ``az acr credential`` ask of Resource Manager.

    :param created: when the emulator was first started, seconds since the epoch.
    """

    def __init__(self, installation: Installation, account: RegistryAccount, access: Access, created: float) -> None:
        self._workspace, self._account = installation.workspace, account
        self._access, self._created = access, created

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        subscription = f"/subscriptions/{{s}}/providers/{_KIND}"
        group = f"/subscriptions/{{s}}/resourceGroups/{{g}}/providers/{_KIND}"
        one = f"{group}/{{name}}"
        found, passwords = "test_the_resource", "test_passwords"
        return (
            _route("GET", subscription, self._list, "List", found),
            _route("GET", group, self._list, "ListByResourceGroup", found),
            _route("GET", one, self._get, "Get", found),
            _route("PATCH", one, self._update, "Update", "test_the_administrator_can_be_switched_off"),
            _route("POST", f"{one}/listCredentials", self._credentials, "ListCredentials", passwords),
            _route("POST", f"{one}/regenerateCredential", self._renew, "RegenerateCredential", passwords),
        )

    def _list(self, request: Request) -> Answer:
        return json_answer({"value": [self._document()]})

    def _get(self, request: Request) -> Answer:
        self._check(request)
        return json_answer(self._document())

    def _update(self, request: Request) -> Answer:
        self._check(request)
        self._access.only_user(request.identity)
        properties = request.document().get("properties")
        enabled = properties.get("adminUserEnabled") if isinstance(properties, dict) else None
        if not isinstance(enabled, bool):
            raise Refusal(400, "InvalidParameter", "adminUserEnabled is all that can be changed here.")
        self._account.enable(enabled)
        return json_answer(self._document())

    def _credentials(self, request: Request) -> Answer:
        self._check(request)
        self._access.only_user(request.identity)
        return json_answer(self._passwords())

    def _renew(self, request: Request) -> Answer:
        self._check(request)
        self._access.only_user(request.identity)
        self._account.renew(str(request.document().get("name", "")))
        return json_answer(self._passwords())

    def _passwords(self) -> dict[str, Any]:
        if not self._account.enabled:
            text = "The administrator of the registry is switched off."
            raise Refusal(400, "AdminUserDisabled", text)
        pairs = zip(PASSWORDS, self._account.passwords(), strict=True)
        passwords = [{"name": name, "value": password} for name, password in pairs]
        return {"username": self._account.username, "passwords": passwords}

    def _check(self, request: Request) -> None:
        name = request.params["name"]
        if name.lower() != self._workspace.registry:
            raise Refusal(404, "ResourceNotFound", f"The Resource '{_KIND}/{name}' was not found.")

    def _document(self) -> dict[str, Any]:
        workspace = self._workspace
        group = f"/subscriptions/{workspace.subscription_id}/resourceGroups/{workspace.resource_group}"
        return {
            "id": f"{group}/providers/{_KIND}/{workspace.registry}",
            "name": workspace.registry,
            "type": _KIND,
            "location": REGION,
            "tags": {},
            "sku": {"name": "Standard", "tier": "Standard"},
            "properties": {
                "loginServer": workspace.registry_host,
                "creationDate": iso(self._created),
                "provisioningState": "Succeeded",
                "adminUserEnabled": self._account.enabled,
                "anonymousPullEnabled": False,
                "publicNetworkAccess": "Enabled",
            },
        }


def _route(method: str, pattern: str, handler: Any, operation: str, test: str) -> Route:
    return Route(method, pattern, handler, f"ContainerRegistry.{operation}", _TEST + test, host="arm")
