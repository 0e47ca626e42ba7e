"""Logins of azure-identity and of the SDK's own memory, as the AzureML SDK wants them.

Imported only where a login is made, because it needs the SDK.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from azureml.core.authentication import (
    AbstractAuthentication,
    ArmTokenAuthentication,
    InteractiveLoginAuthentication,
)

from himl_container.azureml.failures import LoginFailed
from himl_container.azureml.retry import one_line, retried

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

_EARLY = 300
"""Seconds before its end at which a token is no longer used: the SDK keeps one for a whole upload."""


class CredentialAuthentication(AbstractAuthentication):  # type: ignore[misc]  # the SDK has no types
    """A credential of azure-identity in the place of a login of the SDK's.

    Tokens are kept until shortly before they end: the SDK asks for one with each request, and the Azure CLI takes
    half a second for its answer.

    :param name: what the credential is, for messages: "Azure CLI".
    :param next_step: what a user does when it is refused or has expired.
    """

    def __init__(self, credential: TokenCredential, name: str, next_step: str) -> None:
        super().__init__()
        self._credential, self._name, self._next_step = credential, name, next_step
        self._tokens: dict[str, AccessToken] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What the credential is, for messages."""
        return self._name

    def __deepcopy__(self, _memo: dict[int, Any]) -> CredentialAuthentication:
        # The SDK copies workspaces with their login; connections and locks in a credential cannot be copied.
        return self

    def _token(self, resource: str) -> str:
        from azure.core.exceptions import ClientAuthenticationError

        with self._lock:
            token = self._tokens.get(resource)
            if token is None or token.expires_on - time.time() < _EARLY:
                scope = f"{resource}/.default"
                try:
                    token = retried(f"login by {self._name}", lambda: self._credential.get_token(scope))
                except ClientAuthenticationError as error:
                    raise LoginFailed(f"{self._name}: {one_line(error)}", hint=self._next_step) from error
                self._tokens[resource] = token
            return str(token.token)

    def _get_arm_token(self) -> str:
        return self._token(self._cloud_type.endpoints.active_directory_resource_id)

    def _get_graph_token(self) -> str:
        return self._token(self._cloud_type.endpoints.active_directory_graph_resource_id)

    def _get_azureml_client_token(self) -> str:
        return self._token(self._get_aml_resource_id())

    def _get_all_subscription_ids(self) -> Any:
        return ArmTokenAuthentication(self._get_arm_token(), self._cloud_type.name)._get_all_subscription_ids()

    def _get_workspace(self, subscription_id: str, resource_group: str, name: str) -> None:
        """None: the workspace is asked of Azure's Resource Manager."""


class RememberedLogin(InteractiveLoginAuthentication):  # type: ignore[misc]
    """An earlier login through the SDK, which it remembers on disk; never asks anybody.

    The SDK's own class opens a browser when what it remembers has expired; it does so for its own type alone.

    :raises Exception: nothing is remembered, or it has expired.
    """

    def __init__(self, tenant_id: str | None) -> None:
        AbstractAuthentication.__init__(self)
        self._tenant_id = tenant_id
        self._ambient_auth = None
        self._get_arm_token_using_interactive_auth()
