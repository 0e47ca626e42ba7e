"""The Azure identity's way into a registry: only to registries of Azure, and told in words where it does not work."""

from __future__ import annotations

import base64
import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from unit.registry.token_answers import Answer, Sent, Server, answer, place

from himl_container.errors import RegistryError
from himl_container.registry.azure_admin import ArmWorkspace, WorkspaceName, workspace_name
from himl_container.registry.azure_registry import AzureExchange, IdentityTokens, cloud_of, workspace_sources
from himl_container.registry.credentials import Credentials, LoginChain
from himl_container.registry.login import LoginUnavailableError

HOST = "team.azurecr.io"
SECRET = "canary-secret-51ab"
PRINCIPAL = {
    "HIML_SERVICE_PRINCIPAL_ID": "the-client",
    "HIML_SERVICE_PRINCIPAL_PASSWORD": SECRET,
    "HIML_TENANT_ID": "the-tenant",
}
WORKSPACE = {
    "HIML_SUBSCRIPTION_ID": "0000-sub",
    "HIML_RESOURCE_GROUP": "a group",
    "HIML_WORKSPACE_NAME": "ws",
}
REGISTRY_ID = "/subscriptions/0000-sub/resourceGroups/a_group/providers/Microsoft.ContainerRegistry/registries/Team"


def jwt(**claims: str) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{middle}.{SECRET}"


@dataclass
class Tokens:
    """An identity without Azure."""

    value: str = field(default_factory=lambda: jwt(tid="tenant-of-the-token"))
    scopes: list[str] = field(default_factory=list)

    def token(self, scope: str) -> str:
        self.scopes.append(scope)
        return self.value


@pytest.mark.parametrize(
    ("host", "manager"),
    [
        ("team.azurecr.io", "https://management.azure.com"),
        ("Team.AzureCR.io", "https://management.azure.com"),
        ("team-abc123.azurecr.io", "https://management.azure.com"),
        ("team.azurecr.us", "https://management.usgovcloudapi.net"),
        ("team.azurecr.cn", "https://management.chinacloudapi.cn"),
        ("team.azurecr.io.evil.example", None),
        ("evil.example/team.azurecr.io", None),
        ("azurecr.io", None),
        ("evilazurecr.io", None),
        ("team.azurecr.io:8443", None),
        ("a.b.azurecr.io", None),
        ("mcr.microsoft.com", None),
    ],
)
def test_which_registries_are_of_azure(host: str, manager: str | None) -> None:
    cloud = cloud_of(host)
    assert (cloud.manager if cloud else None) == manager


def test_the_identitys_token_is_exchanged_at_the_registry() -> None:
    server, tokens = Server(lambda sent: answer(200, {"refresh_token": "refresh-1"})), Tokens()
    found = AzureExchange({}, tokens).login(place(HOST, request=server))
    assert found is not None
    assert (found.username, found.identity_token) == ("00000000-0000-0000-0000-000000000000", "refresh-1")
    assert tokens.scopes == ["https://containerregistry.azure.net/.default"]
    (sent,) = server.sent
    assert (sent.method, sent.url) == ("POST", f"https://{HOST}/oauth2/exchange")
    assert dict(sent.fields) == {
        "grant_type": "access_token",
        "service": HOST,
        "tenant": "tenant-of-the-token",
        "access_token": tokens.value,
    }


@pytest.mark.parametrize(
    ("environ", "value", "tenant"),
    [
        ({"HIML_TENANT_ID": "mine"}, jwt(tid="other"), "mine"),
        ({"AZURE_TENANT_ID": "mine"}, jwt(tid="other"), "mine"),
        ({}, "opaque", None),
        ({}, "a.%%%.c", None),
        ({}, "a.W10.c", None),
        ({}, jwt(), None),
    ],
)
def test_the_tenant(environ: dict[str, str], value: str, tenant: str | None) -> None:
    server = Server(lambda sent: answer(200, {"refresh_token": "r"}))
    AzureExchange(environ, Tokens(value)).login(place(HOST, request=server))
    assert dict(server.sent[0].fields).get("tenant") == tenant


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("registry.example", "https://registry.example"),
        ("mcr.microsoft.com", "https://mcr.microsoft.com"),
        (HOST, f"http://{HOST}"),
    ],
)
def test_no_identity_is_asked_for_another_registry(host: str, url: str) -> None:
    server, tokens = Server(), Tokens()
    sources = [AzureExchange({}, tokens), ArmWorkspace(WORKSPACE, tokens)]
    assert sources[0].login(place(host, url=url, request=server)) is None
    if not url.startswith("http://"):
        assert sources[1].login(place(host, url=url, request=server)) is None
    assert (tokens.scopes, server.sent) == ([], [])


@pytest.mark.parametrize(
    "reply",
    [
        answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": f"no {jwt(tid='tenant-of-the-token')}"}]}),
        answer(403, {}),
        answer(200, {}),
        answer(200, {"refresh_token": "a b"}),
        answer(200, {"refresh_token": 1}),
        (200, {}, b"\xff"),
    ],
)
def test_a_refused_identity_is_told(reply: Answer) -> None:
    with pytest.raises(LoginUnavailableError, match="does not accept the Azure identity") as caught:
        AzureExchange({}, Tokens()).login(place(HOST, request=Server(lambda sent: reply)))
    assert SECRET not in str(caught.value)
    assert "AcrPush" in caught.value.hint


def test_a_registry_that_does_not_answer() -> None:
    def reply(sent: Sent) -> Answer:
        raise RegistryError("no answer")

    with pytest.raises(LoginUnavailableError, match="no answer"):
        AzureExchange({}, Tokens()).login(place(HOST, request=Server(reply)))
    with pytest.raises(LoginUnavailableError, match="no answer"):
        ArmWorkspace(WORKSPACE, Tokens()).login(place(HOST, request=Server(reply)))


# The identity


@dataclass
class Library:
    """A stand-in for ``azure.identity``, which says what it was asked for."""

    made: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    fail: Callable[[], Exception] | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library = self

        class Credential:
            def __init__(self, **given: str) -> None:
                library.made.append((type(self).__name__, given))

            def get_token(self, scope: str) -> object:
                if library.fail:
                    raise library.fail()
                return types.SimpleNamespace(token=f"token for {scope}")

        module = types.ModuleType("azure.identity")
        for name in ("ClientSecretCredential", "DefaultAzureCredential"):
            setattr(module, name, type(name, (Credential,), {}))
        monkeypatch.setitem(sys.modules, "azure", types.ModuleType("azure"))
        monkeypatch.setitem(sys.modules, "azure.identity", module)


def test_hi_mls_service_principal(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    library.install(monkeypatch)
    tokens = IdentityTokens(PRINCIPAL)
    assert tokens.token("https://x/.default") == "token for https://x/.default"
    tokens.token("https://y/.default")
    given = {"tenant_id": "the-tenant", "client_id": "the-client", "client_secret": SECRET}
    assert library.made == [("ClientSecretCredential", given)]


@pytest.mark.parametrize("missing", PRINCIPAL)
def test_without_all_three_variables_whatever_identity_is_found(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    library = Library()
    library.install(monkeypatch)
    IdentityTokens({**PRINCIPAL, missing: ""}).token("https://x/.default")
    assert library.made == [("DefaultAzureCredential", {})]


def test_no_identity_is_told_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(fail=lambda: ValueError(f"AADSTS7000215: Invalid client secret {SECRET}\nTrace ID: 1"))
    library.install(monkeypatch)
    with pytest.raises(LoginUnavailableError, match="no Azure identity: AADSTS7000215") as caught:
        IdentityTokens(PRINCIPAL).token("https://x/.default")
    assert SECRET not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)
    assert "HIML_SERVICE_PRINCIPAL_ID" in caught.value.hint


def test_without_the_library_the_next_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(LoginUnavailableError, match="azure-identity is not installed") as caught:
        IdentityTokens({}).token("https://x/.default")
    assert "himl-container[azure]" in caught.value.hint


def test_without_the_library_a_registry_of_azure_can_still_be_read_by_everybody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    monkeypatch.chdir(tmp_path)
    chain = LoginChain(Credentials(workspace_sources(WORKSPACE)), place(HOST))
    assert chain.best() is None
    assert {problem.what for problem in chain.problems} == {"no Azure identity: azure-identity is not installed"}


# The administrator's login


def manager(sent: Sent) -> Answer:
    assert sent.login == f"Bearer {jwt(tid='tenant-of-the-token')}"
    if sent.method == "GET":
        return answer(200, {"properties": {"containerRegistry": REGISTRY_ID}})
    passwords = [{"name": "password", "value": SECRET}, {"name": "password2", "value": "other"}]
    return answer(200, {"username": "Team", "passwords": passwords})


def test_the_administrators_login_of_the_workspaces_registry() -> None:
    server, tokens = Server(manager), Tokens()
    found = ArmWorkspace(WORKSPACE, tokens).login(place(HOST, request=server))
    assert found is not None
    assert (found.username, found.password, found.identity_token) == ("Team", SECRET, "")
    assert SECRET not in repr(found)
    assert tokens.scopes == ["https://management.azure.com/.default"]
    workspace = (
        "/subscriptions/0000-sub/resourceGroups/a%20group/providers/Microsoft.MachineLearningServices/workspaces/ws"
    )
    assert [(sent.method, sent.url.partition("?")[0]) for sent in server.sent] == [
        ("GET", f"https://management.azure.com{workspace}"),
        ("POST", f"https://management.azure.com{REGISTRY_ID}/listCredentials"),
    ]


@pytest.mark.parametrize("host", ["team-abc123.azurecr.io", "team.azurecr.io"])
def test_both_forms_of_an_address(host: str) -> None:
    assert ArmWorkspace(WORKSPACE, Tokens()).login(place(host, request=Server(manager))) is not None


@pytest.mark.parametrize("host", ["other.azurecr.io", "teamb.azurecr.io"])
def test_another_registry_does_not_get_it(host: str) -> None:
    server = Server(manager)
    assert ArmWorkspace(WORKSPACE, Tokens()).login(place(host, request=server)) is None
    assert [sent.method for sent in server.sent] == ["GET"]


@pytest.mark.parametrize(
    "workspace",
    [
        {},
        {"properties": None},
        {"properties": {"containerRegistry": None}},
        {"properties": {"containerRegistry": "/subscriptions/x/../../evil"}},
        {"properties": {"containerRegistry": REGISTRY_ID + "/../x"}},
    ],
)
def test_a_workspace_without_a_registry(workspace: object) -> None:
    server = Server(lambda sent: answer(200, workspace))
    assert ArmWorkspace(WORKSPACE, Tokens()).login(place(HOST, request=server)) is None
    assert len(server.sent) == 1


@pytest.mark.parametrize("credentials", [{}, {"username": "Team"}, {"username": "Team", "passwords": []}])
def test_an_administrator_that_is_switched_off(credentials: object) -> None:
    server = Server(lambda sent: manager(sent) if sent.method == "GET" else answer(200, credentials))
    assert ArmWorkspace(WORKSPACE, Tokens()).login(place(HOST, request=server)) is None


def test_a_refusal_of_the_resource_manager_is_told() -> None:
    body = {"error": {"code": "AuthorizationFailed", "message": "The client has no right"}}
    server = Server(lambda sent: answer(403, body))
    with pytest.raises(LoginUnavailableError, match="status 403, AuthorizationFailed: The client has no right"):
        ArmWorkspace(WORKSPACE, Tokens()).login(place(HOST, request=server))


def test_the_workspace_of_the_nearest_config(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    values = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
    assert workspace_name({"PYTHONPATH": str(tmp_path)}, below) is None
    (tmp_path / "config.json").write_text(json.dumps({**values, "more": 1}))
    assert workspace_name({}, below) == WorkspaceName("s", "g", "w")
    assert workspace_name(WORKSPACE, below) == WorkspaceName("0000-sub", "a group", "ws")
    (below / "config.json").write_text("[]")
    assert workspace_name({}, below) is None
