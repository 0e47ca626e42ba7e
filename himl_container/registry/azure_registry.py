"""Logins for Azure Container Registry, with the Azure identity that the workspace is used with.

The identity's token (Azure Active Directory) is exchanged at the registry itself for a refresh token,
``POST https://<registry>/oauth2/exchange``, and that at ``/oauth2/token`` for a token for each scope, which is the
registry's usual way (:mod:`himl_container.registry.tokens`). Facts: "Azure Container Registry integration with Azure
Active Directory" (azure.github.io/acr/AAD-OAuth.html). Tried against a server of our own that speaks the same way, in
front of a real registry; not yet against Azure.
"""

from __future__ import annotations

import base64
import importlib
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from himl_container.errors import RegistryError
from himl_container.registry.login import (
    Login,
    LoginUnavailableError,
    Place,
    Source,
    cleaned,
    is_loopback,
    server_reason,
)

NOBODY = "00000000-0000-0000-0000-000000000000"
"""The user's name that goes with a refresh token."""
SERVICE_PRINCIPAL = ("HIML_SERVICE_PRINCIPAL_ID", "HIML_SERVICE_PRINCIPAL_PASSWORD", "HIML_TENANT_ID")
_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
_REFRESH_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}\Z")
_REGISTRY = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\.azurecr\.(io|us|cn)\Z")


@dataclass(frozen=True)
class Cloud:
    """One of Azure's clouds.

    :param audience: what a token for a registry is asked for. The public cloud's registries may be set to accept no
        token of the resource manager's, so theirs is the registry's own.
    :param manager: the address of the Azure resource manager.
    """

    audience: str
    manager: str


_CLOUDS = {
    "io": Cloud("https://containerregistry.azure.net", "https://management.azure.com"),
    "us": Cloud("https://management.usgovcloudapi.net", "https://management.usgovcloudapi.net"),
    "cn": Cloud("https://management.chinacloudapi.cn", "https://management.chinacloudapi.cn"),
}


class AzureTokens(Protocol):
    """Gives tokens of Azure Active Directory."""

    def token(self, scope: str) -> str:
        """Return a token for ``https://.../.default``.

        :raises LoginUnavailableError: no identity, or the library for it is not installed.
        """


class WorkspaceLogin(Source, Protocol):
    """A workspace that knows a login for its registry (the administrator's, where it is switched on)."""


def cloud_of(host: str) -> Cloud | None:
    """Return the cloud of an Azure registry's address; None when it is none."""
    found = _REGISTRY.match(host.lower())
    return _CLOUDS[found[1]] if found else None


def workspace_sources(environ: Mapping[str, str]) -> list[Source]:
    """Return what the workspace's identity opens: the exchange of its token, then the administrator's login."""
    from himl_container.registry.azure_admin import ArmWorkspace

    tokens = IdentityTokens(environ)
    return [AzureExchange(environ, tokens), ArmWorkspace(environ, tokens)]


class AzureExchange:
    """The login that an Azure identity gets at a registry of Azure.

    :param hosts: more registries that are asked in this way, with their ports.
    """

    def __init__(self, environ: Mapping[str, str], tokens: AzureTokens, *, hosts: Sequence[str] = ()) -> None:
        self._tenant = environ.get("HIML_TENANT_ID") or environ.get("AZURE_TENANT_ID") or ""
        self._tokens = tokens
        self._hosts = frozenset(hosts)

    def login(self, place: Place) -> Login | None:
        """Exchange the identity's token for the registry's refresh token, anew each time.

        :raises LoginUnavailableError: no identity, or the registry does not accept it.
        """
        cloud = cloud_of(place.host) or (_CLOUDS["io"] if place.host in self._hosts else None)
        if cloud is None or (place.plain and not is_loopback(place.host)):
            return None
        identity = self._tokens.token(f"{cloud.audience}/.default")
        form = {"grant_type": "access_token", "service": place.host, "access_token": identity}
        tenant = self._tenant or _claim(identity, "tid")
        if tenant:
            form["tenant"] = tenant
        try:
            status, _, data = place.request(
                "POST", f"{place.url}/oauth2/exchange", headers=_FORM, body=urlencode(form).encode()
            )
        except RegistryError as error:
            raise LoginUnavailableError(
                f"the exchange of the Azure token failed: {error.what}", hint=error.hint
            ) from None
        refresh = json_object(data).get("refresh_token") if status == 200 else None
        if not isinstance(refresh, str) or not _REFRESH_TOKEN.match(refresh):
            reason = server_reason(data, secrets=(identity,))
            raise LoginUnavailableError(
                f"{place.host} does not accept the Azure identity (status {status}{f', {reason}' if reason else ''})",
                hint="It needs the role AcrPush, or AcrPull for pulling alone.",
            )
        # A registry of Azure takes the refresh token as a password too, should it ask for basic authentication.
        return Login(NOBODY, refresh, refresh, "the Azure identity")


class IdentityTokens:
    """Tokens through ``azure-identity``: hi-ml's service principal where its three variables are set, else whatever
    identity is found (``az login``, a managed identity, the variables ``AZURE_*``).
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._principal = tuple(environ.get(name, "") for name in SERVICE_PRINCIPAL)
        self._lock = threading.Lock()
        self._credential: Any = None

    def token(self, scope: str) -> str:
        """Return a token for a scope.

        :raises LoginUnavailableError: no identity, or ``azure-identity`` is not installed.
        """
        with self._lock:
            try:
                self._credential = self._credential or self._find()
                return str(self._credential.get_token(scope).token)
            except LoginUnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - the library has many kinds, and a broken one must not end a pull
                lines = str(error).strip().splitlines()
                reason = cleaned(lines[0] if lines else type(error).__name__, secrets=(self._principal[1],))
                raise LoginUnavailableError(f"no Azure identity: {reason}", hint=self._hint()) from None

    def _find(self) -> Any:
        try:
            identity = importlib.import_module("azure.identity")
        except ImportError:
            raise LoginUnavailableError(
                "no Azure identity: azure-identity is not installed", hint="pip install 'himl-container[azure]'"
            ) from None
        self._be_silent()
        user, password, tenant = self._principal
        if user and password and tenant:
            return identity.ClientSecretCredential(tenant_id=tenant, client_id=user, client_secret=password)
        return identity.DefaultAzureCredential()

    def _hint(self) -> str:
        if all(self._principal):
            return f"Check {', '.join(SERVICE_PRINCIPAL)}."
        return f"'az login', or set {', '.join(SERVICE_PRINCIPAL)}."

    @staticmethod
    def _be_silent() -> None:
        """Keep the library's warnings from standard error where nobody has set up logging: the error says it all."""
        import logging

        logging.getLogger("azure").addHandler(logging.NullHandler())


def json_object(data: bytes) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one where the bytes are anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _claim(token: str, name: str) -> str:
    """Return a text of a JWT's claims, unverified: it only says to the registry whose token it is."""
    parts = token.split(".")
    if len(parts) != 3:
        return ""
    try:
        claims = json_object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return ""
    value = claims.get(name)
    return value if isinstance(value, str) else ""
