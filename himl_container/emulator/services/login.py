"""Microsoft Entra ID, as far as somebody without a browser needs it: metadata, and tokens for a service principal.

Error numbers are those of learn.microsoft.com/entra/identity-platform/reference-error-codes, in the form that ``msal``
reads.
"""

from __future__ import annotations

import hmac
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from himl_container.emulator.http import Answer, Request, json_answer, not_found
from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.installation import Installation
from himl_container.emulator.names import AAD_HOST
from himl_container.emulator.routes import Route
from himl_container.emulator.services.client_assertion import CLIENT_ASSERTION, is_from
from himl_container.emulator.tokens import Tokens

_AUTHORITY = f"https://{AAD_HOST}"
_TEST = "tests/emulator/test_aad_login.py::"
_MANY_TENANTS = ("common", "organizations")


class Login:
    """Gives tokens to the emulator's service principal.

    :param certificate: of the service principal, PEM, for a login by certificate.
    """

    def __init__(
        self, installation: Installation, tokens: Tokens, certificate: bytes, clock: Callable[[], float]
    ) -> None:
        self._installation, self._tokens, self._certificate = installation, tokens, certificate
        self._clock = clock

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        metadata, keys = self._metadata, self._keys
        secret, certificate = f"{_TEST}test_service_principal", f"{_TEST}test_certificate"
        return (
            _public("GET", "/common/discovery/instance", self._instances, "Login.Instances", secret),
            _public("GET", "/{tenant}/v2.0/.well-known/openid-configuration", metadata, "Login.Metadata", secret),
            _public("GET", "/{tenant}/.well-known/openid-configuration", metadata, "Login.MetadataV1", secret),
            _public("GET", "/{tenant}/discovery/v2.0/keys", keys, "Login.Keys", f"{_TEST}test_signing_keys"),
            _public("GET", "/{tenant}/discovery/keys", keys, "Login.KeysV1", f"{_TEST}test_signing_keys"),
            _public("POST", "/{tenant}/oauth2/v2.0/token", self._token, "Login.Token", certificate),
            _public("POST", "/{tenant}/oauth2/token", self._token, "Login.TokenV1", f"{_TEST}test_first_version"),
            Route(
                method="POST",
                pattern="/metadata/identity/{secret}/oauth2/token",
                handler=self._managed_identity,
                operation="ManagedIdentity.Token",
                test=f"{_TEST}test_managed_identity",
                host="studio",
                how="approximated",
                note="at the address in MSI_ENDPOINT; its tokens are the service principal's",
                public=True,
            ),
        )

    # --- metadata ---

    def _instances(self, request: Request) -> Answer:
        aliases = [AAD_HOST, "login.windows.net", "login.microsoft.com", "sts.windows.net"]
        names = {"preferred_network": AAD_HOST, "preferred_cache": "login.windows.net", "aliases": aliases}
        endpoint = f"{_AUTHORITY}/{self._tenant}/v2.0/.well-known/openid-configuration"
        return json_answer({"tenant_discovery_endpoint": endpoint, "api-version": "1.1", "metadata": [names]})

    def _metadata(self, request: Request) -> Answer:
        wrong = self._wrong_tenant(request)
        if wrong is not None:
            return wrong
        tenant = request.params["tenant"]
        version = "/v2.0" if request.path.endswith("/v2.0/.well-known/openid-configuration") else ""
        base = f"{_AUTHORITY}/{tenant}"
        issuer = f"{base}/v2.0" if version else f"https://sts.windows.net/{self._tenant}/"
        return json_answer(
            {
                "token_endpoint": f"{base}/oauth2{version}/token",
                "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
                "jwks_uri": f"{base}/discovery{version}/keys",
                "response_modes_supported": ["query", "fragment", "form_post"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "response_types_supported": ["code"],
                "scopes_supported": ["openid", "profile", "email", "offline_access"],
                "issuer": issuer,
                "authorization_endpoint": f"{base}/oauth2{version}/authorize",
                "device_authorization_endpoint": f"{base}/oauth2{version}/devicecode",
                "tenant_region_scope": "NA",
                "cloud_instance_name": "microsoftonline.com",
            }
        )

    def _keys(self, request: Request) -> Answer:
        return self._wrong_tenant(request) or json_answer({"keys": [self._tokens.public_key()]})

    # --- tokens ---

    def _token(self, request: Request) -> Answer:
        form = {name: values[0] for name, values in _form(request.body).items()}
        wrong = self._wrong_tenant(request) or self._wrong_client(form)
        if wrong is not None:
            return wrong
        first_version = not request.path.lower().endswith("/v2.0/token")
        audience = form.get("resource", "") if first_version else form.get("scope", "").removesuffix("/.default")
        if not audience.startswith("https://"):
            return self._refuse(400, "invalid_scope", 1002012, "The provided value for scope is not valid.")
        token, expires = self._tokens.issue(self._bearer, audience)
        lifetime = max(0, expires - int(self._clock()))
        answer: dict[str, Any] = {"token_type": "Bearer", "access_token": token}
        if first_version:
            # The first version of the endpoint gives numbers as text.
            times = {"expires_in": str(lifetime), "expires_on": str(expires), "not_before": str(int(self._clock()))}
            return json_answer({**answer, **times, "ext_expires_in": str(lifetime), "resource": audience})
        return json_answer({**answer, "expires_in": lifetime, "ext_expires_in": lifetime})

    def _managed_identity(self, request: Request) -> Answer:
        # Nobody else on this machine may ask, so the address, which only the emulator's variables have, is a secret.
        if not _same(request.params["secret"], self._installation.managed_identity_secret):
            raise not_found("The managed identity")
        audience = _form(request.body).get("resource", [""])[0]
        if not audience.startswith("https://"):
            text = "The parameter 'resource' is missing or is no address."
            return json_answer({"error": "invalid_request", "error_description": text}, 400)
        token, expires = self._tokens.issue(self._bearer, audience)
        now = int(self._clock())
        times = {"expires_in": str(expires - now), "expires_on": str(expires), "not_before": str(now)}
        names = {"resource": audience, "token_type": "Bearer", "client_id": self._installation.client_id}
        return json_answer({"access_token": token, **times, **names})

    def _wrong_client(self, form: Mapping[str, str]) -> Answer | None:
        if form.get("grant_type") != "client_credentials":
            text = "The emulator logs service principals in (grant_type=client_credentials), nobody else."
            return self._refuse(400, "unsupported_grant_type", 70003, text)
        if form.get("client_id", "").lower() != self._installation.client_id:
            text = f"Application with identifier '{form.get('client_id', '')}' was not found in the directory."
            return self._refuse(400, "unauthorized_client", 700016, text)
        wrong = self._wrong_proof(form)
        return None if wrong is None else self._refuse(401, "invalid_client", *wrong)

    def _wrong_proof(self, form: Mapping[str, str]) -> tuple[int, str] | None:
        client = self._installation.client_id
        if form.get("client_assertion_type") == CLIENT_ASSERTION:
            if is_from(form.get("client_assertion", ""), client, self._certificate, self._tenant, self._clock()):
                return None
            return 700027, "Client assertion failed signature validation or has expired."
        if not form.get("client_secret"):
            return 7000218, "The request body must contain: 'client_assertion' or 'client_secret'."
        if not _same(form["client_secret"], self._installation.client_secret):
            return 7000215, f"Invalid client secret provided for app '{client}'."
        return None

    def _wrong_tenant(self, request: Request) -> Answer | None:
        tenant = request.params["tenant"]
        if tenant.lower() == self._tenant or tenant.lower() in _MANY_TENANTS:
            return None
        text = f"Tenant '{tenant}' not found. Check that this is the tenant of this emulator."
        return self._refuse(400, "invalid_tenant" if request.method == "GET" else "invalid_request", 90002, text)

    def _refuse(self, status: int, error: str, number: int, text: str) -> Answer:
        now = datetime.fromtimestamp(self._clock(), timezone.utc)
        trace, correlation, stamp = str(uuid.uuid4()), str(uuid.uuid4()), now.strftime("%Y-%m-%d %H:%M:%SZ")
        description = f"AADSTS{number}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {stamp}"
        document = {"error": error, "error_description": description, "error_codes": [number], "timestamp": stamp}
        more = {"trace_id": trace, "correlation_id": correlation, "error_uri": f"{_AUTHORITY}/error?code={number}"}
        return json_answer({**document, **more}, status)

    @property
    def _tenant(self) -> str:
        return self._installation.workspace.tenant_id

    @property
    def _bearer(self) -> Identity:
        return Identity(Kind.USER, self._installation.client_id)


def _form(body: bytes) -> Mapping[str, list[str]]:
    try:
        return urllib.parse.parse_qs(body.decode(), max_num_fields=100)
    except (UnicodeDecodeError, ValueError):
        return {}


def _public(method: str, pattern: str, handler: Callable[[Request], Answer], operation: str, test: str) -> Route:
    return Route(method, pattern, handler, operation, test, host="aad", public=True)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
