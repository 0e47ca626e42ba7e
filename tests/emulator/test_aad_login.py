"""Logging in, as the SDK and Azure's other libraries do it, and what is refused."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest

if TYPE_CHECKING:
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator

_ARM = "https://management.azure.com"


def _workspace(emulator: Emulator, auth: Any) -> Any:
    from azureml.core import Workspace

    return Workspace.from_config(str(emulator.config), auth=auth)


def _principal(emulator: Emulator, **changes: str) -> Any:
    from azureml.core.authentication import ServicePrincipalAuthentication

    made = emulator.installation
    values = {
        "tenant_id": made.workspace.tenant_id,
        "service_principal_id": made.client_id,
        "service_principal_password": made.client_secret,
    }
    return ServicePrincipalAuthentication(**{**values, **changes}, _enable_caching=False)


def test_service_principal(emulator: Emulator) -> None:
    assert _workspace(emulator, _principal(emulator)).name == "emulator"


@pytest.mark.parametrize("force", [False, True])
def test_interactive_login_takes_what_is_around(emulator: Emulator, force: bool) -> None:
    """It never gets as far as a browser or a device code, for which there is nothing here."""
    from azureml.core.authentication import InteractiveLoginAuthentication

    tenant = emulator.installation.workspace.tenant_id
    auth = InteractiveLoginAuthentication(force=force, tenant_id=tenant if force else None)
    assert _workspace(emulator, auth).name == "emulator"


def test_managed_identity(emulator: Emulator) -> None:
    from azureml.core.authentication import MsiAuthentication

    assert _workspace(emulator, MsiAuthentication()).name == "emulator"


def test_managed_identity_has_a_secret_address(emulator: Emulator) -> None:
    import requests

    address = f"{emulator.address}/metadata/identity/guess/oauth2/token"
    answer = requests.post(address, data={"resource": "https://management.azure.com/"}, timeout=60)
    assert answer.status_code == 404


def test_token_authentication(emulator: Emulator) -> None:
    from azureml.core.authentication import TokenAuthentication

    def token(audience: Any) -> str:
        return emulator.headers()["Authorization"].removeprefix("Bearer ")

    assert _workspace(emulator, TokenAuthentication(token)).name == "emulator"


def test_azure_identity(emulator: Emulator) -> None:
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    made = emulator.installation
    secret = ClientSecretCredential(made.workspace.tenant_id, made.client_id, made.client_secret)
    for credential in (secret, DefaultAzureCredential()):
        found = jwt.decode(
            credential.get_token("https://management.azure.com/.default").token, options={"verify_signature": False}
        )
        assert found["appid"] == made.client_id


def test_certificate(emulator: Emulator) -> None:
    import requests
    from azure.identity import CertificateCredential

    made = emulator.installation
    path = str(emulator.folder / "client.pem")
    credential = CertificateCredential(made.workspace.tenant_id, made.client_id, path)
    token = credential.get_token(f"{_ARM}/.default").token
    answer = requests.get(f"{_ARM}/subscriptions", headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert answer.status_code == 200


def test_certificate_of_somebody_else(emulator: Emulator, tmp_path: Any) -> None:
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import CertificateCredential

    from himl_container.emulator.services.client_assertion import client_certificate

    made = emulator.installation
    other = CertificateCredential(made.workspace.tenant_id, made.client_id, str(client_certificate(tmp_path)))
    with pytest.raises(ClientAuthenticationError, match="AADSTS700027"):
        other.get_token(f"{_ARM}/.default")


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"service_principal_password": "wrong"}, "AADSTS7000215"),
        ({"service_principal_id": "11111111-2222-3333-4444-555555555555"}, "AADSTS700016"),
    ],
)
def test_wrong_credentials(emulator: Emulator, changes: dict[str, str], number: str) -> None:
    from azureml._common.exceptions import AzureMLException

    with pytest.raises(AzureMLException, match=number):
        _workspace(emulator, _principal(emulator, **changes))


def test_unknown_tenant(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match=r"AADSTS90002|Unable to get authority configuration"):
        _workspace(emulator, _principal(emulator, tenant_id="11111111-2222-3333-4444-555555555555"))


def test_first_version(emulator: Emulator) -> None:
    import requests

    made = emulator.installation
    form = {"grant_type": "client_credentials", "client_id": made.client_id, "client_secret": made.client_secret}
    address = f"https://login.microsoftonline.com/{made.workspace.tenant_id}/oauth2/token"
    found = requests.post(address, data={**form, "resource": f"{_ARM}/"}, timeout=60).json()
    assert found["resource"] == f"{_ARM}/"
    assert int(found["expires_on"]) > time.time() + 3000
    claims = jwt.decode(found["access_token"], options={"verify_signature": False})
    assert claims["aud"] == f"{_ARM}/"


def test_signing_keys(emulator: Emulator) -> None:
    """The published keys check the tokens, as a service of one's own would do it."""
    import requests

    tenant = emulator.installation.workspace.tenant_id
    base = f"https://login.microsoftonline.com/{tenant}/v2.0/.well-known/openid-configuration"
    keys = requests.get(requests.get(base, timeout=60).json()["jwks_uri"], timeout=60).json()["keys"]
    token = emulator.headers()["Authorization"].removeprefix("Bearer ")
    (key,) = [key for key in keys if key["kid"] == jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, jwt.PyJWK(key), ["RS256"], options={"verify_aud": False})["tid"] == tenant


def _ask(emulator: Emulator, authorization: str | None) -> Any:
    import requests

    headers = {} if authorization is None else {"Authorization": authorization}
    return requests.get(f"{_ARM}/{emulator.installation.workspace.path}", headers=headers, timeout=60)


def _token(emulator: Emulator, **changes: Any) -> str:
    """A token as the emulator itself signs it, but for some claims."""
    claims = jwt.decode(
        emulator.headers()["Authorization"].removeprefix("Bearer "), options={"verify_signature": False}
    )
    return jwt.encode({**claims, **changes}, (emulator.folder / "token.key").read_bytes(), "RS256")


def test_a_token_signed_here_is_taken(emulator: Emulator) -> None:
    assert _ask(emulator, f"Bearer {_token(emulator)}").status_code == 200


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": int(time.time()) - 1}, "ExpiredAuthenticationToken"),
        ({"aud": "https://graph.windows.net/"}, "InvalidAuthenticationTokenAudience"),
        ({"tid": "11111111-2222-3333-4444-555555555555"}, "InvalidAuthenticationTokenTenant"),
        ({"kind": "nobody"}, "InvalidAuthenticationToken"),
    ],
)
def test_refused_tokens(emulator: Emulator, changes: dict[str, Any], code: str) -> None:
    answer = _ask(emulator, f"Bearer {_token(emulator, **changes)}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert emulator.installation.workspace.tenant_id in answer.headers["WWW-Authenticate"]


def test_token_of_another_emulator(emulator: Emulator) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    claims = jwt.decode(_token(emulator), options={"verify_signature": False})
    other = jwt.encode(claims, rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256")
    unsigned = jwt.encode(claims, "", "none")
    for token in (other, unsigned):
        answer = _ask(emulator, f"Bearer {token}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "InvalidAuthenticationToken")


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic dTpw", "Bearer not.a.token"])
def test_no_token(emulator: Emulator, authorization: str | None) -> None:
    assert _ask(emulator, authorization).status_code == 401
