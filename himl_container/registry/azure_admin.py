"""The administrator's login of a workspace's registry, from the Azure resource manager, where it is switched on.

The workspace says which registry is its own, and the registry is asked for the login (``listCredentials``): the same
two calls that the AzureML SDK and ``az acr credential show`` make. It is asked when the exchange of the identity's
token gives no access, as where the identity has rights in the resource manager but no role in the registry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from himl_container.errors import RegistryError
from himl_container.find import find_upwards
from himl_container.registry.azure_registry import AzureTokens, cloud_of, json_object
from himl_container.registry.login import Login, LoginUnavailableError, Place, server_reason

WORKSPACE_API = "2023-10-01"
REGISTRY_API = "2023-07-01"
_VARIABLES = {
    "subscription_id": "HIML_SUBSCRIPTION_ID",
    "resource_group": "HIML_RESOURCE_GROUP",
    "workspace_name": "HIML_WORKSPACE_NAME",
}
_REGISTRY_ID = re.compile(
    r"/subscriptions/[\w-]+/resourceGroups/[\w.()-]+/providers/Microsoft\.ContainerRegistry/registries/([a-z0-9]+)\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class WorkspaceName:
    """What names a workspace in Azure."""

    subscription_id: str
    resource_group: str
    workspace_name: str

    @property
    def path(self) -> str:
        """Its path in the resource manager."""
        group, name = quote(self.resource_group, safe=""), quote(self.workspace_name, safe="")
        return (
            f"/subscriptions/{quote(self.subscription_id, safe='')}/resourceGroups/{group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{name}"
        )


def workspace_name(environ: Mapping[str, str], cwd: Path) -> WorkspaceName | None:
    """Return the workspace of the three variables, else of AzureML's nearest ``config.json`` from a folder upwards."""
    values: Mapping[str, Any] = {key: environ.get(variable, "") for key, variable in _VARIABLES.items()}
    if not all(values.values()):
        path = find_upwards("config.json", start=cwd, environ=environ)
        try:
            values = json_object(path.read_bytes()) if path else {}
        except OSError:
            return None
    texts = {key: values.get(key) for key in _VARIABLES}
    if not all(isinstance(text, str) and text for text in texts.values()):
        return None
    return WorkspaceName(**{key: str(text) for key, text in texts.items()})


class ArmWorkspace:
    """The :class:`himl_container.registry.azure_registry.WorkspaceLogin` that asks the Azure resource manager.

    :param cwd: where the search for ``config.json`` starts; the current folder where not given.
    :param hosts: more registries that are asked for, with the address of a resource manager.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        tokens: AzureTokens,
        *,
        cwd: Path | None = None,
        hosts: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._environ = environ
        self._tokens = tokens
        self._cwd = cwd
        self._hosts = dict(hosts)

    def login(self, place: Place) -> Login | None:
        """Return the administrator's login; None when the registry is not the workspace's, or it is switched off.

        :raises LoginUnavailableError: no identity, or the resource manager refuses.
        """
        cloud = cloud_of(place.host)
        manager = cloud.manager if cloud else self._hosts.get(place.host, "")
        name = workspace_name(self._environ, self._cwd or Path.cwd()) if manager else None
        if name is None:
            return None
        token = self._tokens.token(f"{manager}/.default")
        url = f"{manager}{name.path}?api-version={WORKSPACE_API}"
        properties = self._ask(place, "GET", url, token).get("properties")
        identity = properties.get("containerRegistry") if isinstance(properties, dict) else None
        found = _REGISTRY_ID.match(identity) if isinstance(identity, str) else None
        if found is None:
            return None
        # A registry's address begins with its name, in some with "-" and a hash behind it.
        first = place.host.partition(".")[0]
        if cloud and first != found[1].lower() and not first.startswith(f"{found[1].lower()}-"):
            return None
        answer = self._ask(
            place, "POST", f"{manager}{found[0]}/listCredentials?api-version={REGISTRY_API}", token, body=b""
        )
        user, passwords = answer.get("username"), answer.get("passwords")
        first_password = passwords[0].get("value") if isinstance(passwords, list) and passwords else None
        if not isinstance(user, str) or not isinstance(first_password, str) or not user or not first_password:
            return None
        return Login(user, first_password, source=f"the administrator of the registry {found[1]}")

    def _ask(self, place: Place, method: str, url: str, token: str, body: bytes | None = None) -> Mapping[str, Any]:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        try:
            status, _, data = place.request(method, url, headers=headers, body=body)
        except RegistryError as error:
            raise LoginUnavailableError(f"the Azure resource manager does not answer: {error.what}") from None
        if status != 200:
            reason = server_reason(data, secrets=(token,))
            raise LoginUnavailableError(
                f"the administrator's login of the registry is not to be had "
                f"(status {status}{f', {reason}' if reason else ''})"
            )
        return json_object(data)
