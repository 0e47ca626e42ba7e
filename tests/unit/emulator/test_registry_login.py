"""The registry's login: exchange, tokens, passwords, and the gate before the registry."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.history_rig import Clock

from himl_container.emulator.access import Access
from himl_container.emulator.http import Answer, Refusal, Request
from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.installation import open_installation
from himl_container.emulator.routes import Router
from himl_container.emulator.services.container_registry import ContainerRegistry
from himl_container.emulator.services.registry_login import NOBODY, RegistryLogin, needs_of
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.registry_account import RegistryAccount
from himl_container.emulator.state.runs import Runs
from himl_container.emulator.tokens import Tokens, token_key

ACR = "https://containerregistry.azure.net"
DIGEST = "sha256:" + "a" * 64


class Rig:
    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.made = made = open_installation(folder, workspace_name="ws", resource_group="group")
        self.host = made.workspace.registry_host
        self.tokens = Tokens(token_key(folder), made, self.clock, 3600)
        database = Database(":memory:")
        self.account = RegistryAccount(database, made)
        self.login = RegistryLogin(made, self.tokens, self.account, self.clock)
        access = Access(Runs(database, self.clock), self.tokens)
        resource = ContainerRegistry(made, self.account, access, self.clock())
        self.router = Router([*self.login.routes(), *resource.routes()])

    def ask(self, method: str, path: str, form: dict[str, Any] | None = None, **headers: str) -> tuple[int, Any]:
        address = urlsplit(path)
        query = {name: tuple(values) for name, values in parse_qs(address.query).items()}
        body = urlencode(form or {}, doseq=True).encode()
        request = Request(method, self.host, address.path, query, headers, body)
        found = self.router.find("registry", request)
        return _read(found.route.handler(found.request))

    def manage(self, method: str, path: str = "", body: object = None, name: str = "", kind: Kind = Kind.USER) -> Any:
        workspace = self.made.workspace
        group = f"/subscriptions/{workspace.subscription_id}/resourceGroups/{workspace.resource_group}"
        address = f"{group}/providers/Microsoft.ContainerRegistry/registries/{name or workspace.registry}{path}"
        request = Request(method, "management.azure.com", address, body=json.dumps(body).encode())
        found = self.router.find("arm", request)
        identity = Identity(kind, "x", "run" if kind is Kind.JOB else "")
        return _read(found.route.handler(replace(found.request, identity=identity)))[1]

    def gate(self, method: str, path: str, authorization: str = "") -> tuple[int, str]:
        """Ask for an image; returns 200 where the request passes."""
        address = urlsplit(path)
        query = {name: tuple(values) for name, values in parse_qs(address.query).items()}
        headers = {"authorization": authorization} if authorization else {}
        answer = self.login.gate(Request(method, self.host, address.path, query, headers))
        return (200, "") if answer is None else (answer.status, answer.headers.get("www-authenticate", ""))

    def entra_token(self, audience: str = ACR, kind: Kind = Kind.USER) -> str:
        return self.tokens.issue(Identity(kind, "client", "run" if kind is Kind.JOB else ""), audience)[0]

    def refresh_token(self) -> str:
        form = {"grant_type": "access_token", "service": self.host, "access_token": self.entra_token()}
        return str(self.ask("POST", "/oauth2/exchange", form)[1]["refresh_token"])

    def bearer(self, *scopes: str) -> str:
        form = {"grant_type": "refresh_token", "service": self.host, "refresh_token": self.refresh_token()}
        return "Bearer " + self.ask("POST", "/oauth2/token", {**form, "scope": scopes})[1]["access_token"]


def _read(answer: Answer) -> tuple[int, Any]:
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("data"))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "data")


def test_a_request_without_a_login_is_told_where_to_get_one(shared: Rig) -> None:
    realm = f'Bearer realm="https://{shared.host}/oauth2/token",service="{shared.host}"'
    assert shared.gate("GET", "/v2/") == (401, realm)
    assert shared.gate("GET", "/v2/a/b/manifests/1") == (401, f'{realm},scope="repository:a/b:pull"')
    assert shared.gate("PUT", "/v2/a/manifests/1") == (401, f'{realm},scope="repository:a:pull,push"')
    mounted = f"/v2/a/blobs/uploads/?mount={DIGEST}&from=c/d"
    assert shared.gate("POST", mounted) == (401, f'{realm},scope="repository:a:pull,push repository:c/d:pull"')
    invalid = shared.gate("GET", "/v2/a/manifests/1", "Bearer nonsense")
    assert invalid == (401, f'{realm},scope="repository:a:pull",error="invalid_token"')


def test_a_token_opens_what_it_was_asked_for(shared: Rig) -> None:
    pull = shared.bearer("repository:a:pull")
    assert shared.gate("GET", "/v2/", pull)[0] == 200
    assert shared.gate("HEAD", f"/v2/a/blobs/{DIGEST}", pull)[0] == 200
    for method, path in (
        ("PUT", "/v2/a/manifests/1"),
        ("POST", "/v2/a/blobs/uploads/"),
        ("PATCH", "/v2/a/blobs/uploads/uuid"),
        ("DELETE", f"/v2/a/manifests/{DIGEST}"),
        ("GET", "/v2/b/tags/list"),
        ("GET", "/v2/_catalog"),
    ):
        status, challenge = shared.gate(method, path, pull)
        assert (status, 'error="insufficient_scope"' in challenge) == (401, True), path
    push = shared.bearer("repository:a:pull,push repository:b:pull")
    assert shared.gate("PUT", "/v2/a/blobs/uploads/uuid", push)[0] == 200
    assert shared.gate("POST", f"/v2/a/blobs/uploads/?mount={DIGEST}&from=b", push)[0] == 200
    assert shared.gate("POST", f"/v2/a/blobs/uploads/?mount={DIGEST}&from=c", push)[0] == 401
    assert shared.gate("DELETE", "/v2/a/blobs/uploads/uuid", push)[0] == 200
    everything = shared.bearer("repository:a:*", "registry:catalog:*")
    assert shared.gate("DELETE", f"/v2/a/manifests/{DIGEST}", everything)[0] == 200
    assert shared.gate("GET", "/v2/_catalog", everything)[0] == 200


def test_a_token_of_another_kind_opens_nothing(shared: Rig) -> None:
    for token in (shared.refresh_token(), shared.entra_token(), shared.entra_token("https://management.azure.com/")):
        assert shared.gate("GET", "/v2/", f"Bearer {token}")[0] == 401
    access = shared.bearer("repository:a:pull").partition(" ")[2]
    form = {"grant_type": "refresh_token", "service": shared.host, "refresh_token": access}
    assert shared.ask("POST", "/oauth2/token", form)[0] == 401
    form = {"grant_type": "access_token", "service": shared.host, "access_token": access}
    assert shared.ask("POST", "/oauth2/exchange", form)[0] == 401


def test_tokens_run_out(rig: Rig) -> None:
    refresh, access = rig.refresh_token(), rig.bearer("repository:a:pull")
    assert rig.gate("GET", "/v2/a/tags/list", access)[0] == 200
    rig.clock.now += 75 * 60
    assert rig.gate("GET", "/v2/a/tags/list", access)[0] == 401
    form = {"grant_type": "refresh_token", "service": rig.host, "refresh_token": refresh}
    assert rig.ask("POST", "/oauth2/token", form)[0] == 200
    assert rig.gate("GET", "/v2/", basic(NOBODY, refresh))[0] == 200
    rig.clock.now += 105 * 60
    assert rig.ask("POST", "/oauth2/token", form)[0] == 401
    assert rig.gate("GET", "/v2/", basic(NOBODY, refresh))[0] == 401


def test_no_token_is_valid_for_longer_than_the_emulators(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    rig.login = RegistryLogin(rig.made, rig.tokens, rig.account, rig.clock, 2)
    rig.router = Router(rig.login.routes())
    access = rig.bearer("repository:a:pull")
    rig.clock.now += 3
    assert rig.gate("GET", "/v2/a/tags/list", access)[0] == 401


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"grant_type": "password"}, 400),
        ({"service": "other.azurecr.io"}, 400),
        ({"tenant": "other"}, 401),
        ({"access_token": "nonsense"}, 401),
        ({"access_token": ""}, 401),
    ],
)
def test_exchanges_that_are_refused(shared: Rig, change: dict[str, str], status: int) -> None:
    form = {"grant_type": "access_token", "service": shared.host, "access_token": shared.entra_token()}
    assert shared.ask("POST", "/oauth2/exchange", form)[0] == 200
    answer = shared.ask("POST", "/oauth2/exchange", {**form, **change})
    assert answer[0] == status
    assert answer[1]["errors"][0]["message"]


def test_a_job_and_a_token_for_something_else_are_not_exchanged(shared: Rig) -> None:
    for token in (shared.entra_token("https://ml.azure.com"), shared.entra_token(kind=Kind.JOB)):
        form = {"grant_type": "access_token", "service": shared.host, "access_token": token}
        assert shared.ask("POST", "/oauth2/exchange", form)[0] == 401


def test_passwords_give_tokens_both_ways(shared: Rig) -> None:
    made, scope = shared.made, "repository:a:pull,push"
    logins = [(shared.account.username, password) for password in shared.account.passwords()]
    logins += [(made.client_id, made.client_secret), (NOBODY, shared.refresh_token())]
    for user, password in logins:
        path = f"/oauth2/token?service={shared.host}&scope={scope}&scope=repository:b:pull"
        status, found = shared.ask("GET", path, authorization=basic(user, password))
        assert (status, list(found)) == (200, ["access_token"])
        assert shared.gate("GET", "/v2/b/tags/list", "Bearer " + found["access_token"])[0] == 200
        form = {"grant_type": "password", "username": user, "password": password, "service": shared.host}
        status, found = shared.ask("POST", "/oauth2/token", {**form, "scope": scope, "access_type": "offline"})
        assert (status, sorted(found)) == (200, ["access_token", "refresh_token"])
        assert shared.gate("PUT", "/v2/a/manifests/1", "Bearer " + found["access_token"])[0] == 200
        assert shared.gate("PUT", "/v2/a/manifests/1", basic(user, password))[0] == 200


@pytest.mark.parametrize("login", [("", ""), ("admin", "x"), (NOBODY, "x"), ("{user}", ""), ("ü", "ü")])
def test_wrong_passwords_give_none(shared: Rig, login: tuple[str, str]) -> None:
    user, password = login[0].format(user=shared.account.username), login[1]
    path = f"/oauth2/token?service={shared.host}&scope=repository:a:pull"
    assert shared.ask("GET", path, authorization=basic(user, password))[0] == 401
    assert shared.ask("GET", path)[0] == 401
    assert shared.ask("GET", path, authorization="Basic %%%")[0] == 401
    assert shared.gate("GET", "/v2/", basic(user, password))[0] == 401


@pytest.mark.parametrize(
    "scope", ["repository", "repository:a", "repository:a:", ":a:pull", "repository::pull", "a:b:C"]
)
def test_scopes_that_are_none(shared: Rig, scope: str) -> None:
    authorization = basic(shared.account.username, shared.account.passwords()[0])
    path = f"/oauth2/token?service={shared.host}&{urlencode({'scope': scope})}"
    assert shared.ask("GET", path, authorization=authorization)[0] == 400


def test_unknown_actions_are_not_granted(shared: Rig) -> None:
    token = shared.bearer("repository:a:fly", "garden:a:pull")
    assert shared.gate("GET", "/v2/", token)[0] == 200
    assert shared.gate("GET", "/v2/a/tags/list", token)[0] == 401


def test_passwords_are_made_anew_one_at_a_time(rig: Rig) -> None:
    before = rig.manage("POST", "/listCredentials")
    assert before["username"] == rig.made.workspace.registry
    assert [one["name"] for one in before["passwords"]] == ["password", "password2"]
    after = rig.manage("POST", "/regenerateCredential", {"name": "password2"})
    assert after["passwords"][0] == before["passwords"][0]
    old, new = before["passwords"][1]["value"], after["passwords"][1]["value"]
    assert rig.gate("GET", "/v2/", basic(after["username"], old))[0] == 401
    assert rig.gate("GET", "/v2/", basic(after["username"], new))[0] == 200
    with pytest.raises(Refusal) as refusal:
        rig.manage("POST", "/regenerateCredential", {"name": "password3"})
    assert refusal.value.status == 400


def test_the_administrator_can_be_switched_off(rig: Rig) -> None:
    assert rig.manage("GET")["properties"]["adminUserEnabled"] is True
    password = rig.manage("POST", "/listCredentials")["passwords"][0]["value"]
    changed = rig.manage("PATCH", body={"properties": {"adminUserEnabled": False}})
    assert changed["properties"] == {**rig.manage("GET")["properties"], "adminUserEnabled": False}
    assert rig.gate("GET", "/v2/", basic(rig.account.username, password))[0] == 401
    with pytest.raises(Refusal) as refusal:
        rig.manage("POST", "/listCredentials")
    assert refusal.value.status == 400
    with pytest.raises(Refusal) as refusal:
        rig.manage("PATCH", body={"properties": {"sku": "Premium"}})
    assert refusal.value.status == 400


def test_a_job_is_told_no_password(rig: Rig) -> None:
    assert rig.manage("GET", kind=Kind.JOB)["properties"]["loginServer"] == rig.host
    for method, path in (("POST", "/listCredentials"), ("POST", "/regenerateCredential"), ("PATCH", "")):
        with pytest.raises(Refusal) as refusal:
            rig.manage(method, path, {"name": "password"}, kind=Kind.JOB)
        assert refusal.value.status == 403
    with pytest.raises(Refusal) as refusal:
        rig.manage("GET", name="another")
    assert refusal.value.status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/v3/",
        "/",
        "/v2/../metrics",
        "/v2/a/../b/manifests/1",
        "/v2/A/manifests/1",
        "/v2//manifests/1",
        "/v2/a/manifests/",
        "/v2/a/manifests/1/2",
        "/v2/a/blobs/latest",
        "/v2/a%2fb/manifests/1",
        "/v2/a/tags/list/",
        "/v2/a\n/tags/list",
        "/debug/pprof",
    ],
)
def test_paths_that_no_registry_has_do_not_pass(shared: Rig, path: str) -> None:
    everything = basic(shared.account.username, shared.account.passwords()[0])
    assert shared.login.gate(Request("GET", shared.host, path, headers={"authorization": everything})) is not None


@given(st.lists(st.sampled_from(["a", "..", ".", "", "v2", "manifests", "blobs", "uploads", "tags", "list", "%2e"])))
def test_what_passes_is_a_plain_path(parts: list[str]) -> None:
    path = "/v2/" + "/".join(parts)
    needs = needs_of(Request("GET", "r.azurecr.io", path))
    if needs:
        assert not {"..", ".", "%2e"} & set(path.split("/"))
        assert "//" not in path
        assert path.startswith(f"/v2/{needs[0].name}/")
