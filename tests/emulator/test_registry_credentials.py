"""The workspace's registry: its resource, its passwords, its tokens, and those who log in with them."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
import pytest
import requests
from second_daemon import certificates_of, daemon, missing

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator

ACR = "https://containerregistry.azure.net"


@pytest.fixture
def host(emulator: Emulator) -> str:
    return emulator.installation.workspace.registry_host


@pytest.fixture
def management(emulator: Emulator) -> Iterator[Any]:
    """Azure's own client of registries, as PyPI has it, with the identity that it finds in the environment."""
    from azure.identity import EnvironmentCredential
    from azure.mgmt.containerregistry import ContainerRegistryManagementClient

    subscription = emulator.installation.workspace.subscription_id
    with ContainerRegistryManagementClient(EnvironmentCredential(), subscription) as client:
        yield client.registries


@pytest.fixture
def names(emulator: Emulator) -> tuple[str, str]:
    workspace = emulator.installation.workspace
    return workspace.resource_group, workspace.registry


def ask(method: str, url: str, **options: Any) -> requests.Response:
    return requests.request(method, url, timeout=60, **options)


def exchanged(emulator: Emulator, host: str) -> str:
    """The registry's refresh token for the service principal."""
    token = emulator.headers(ACR)["Authorization"].partition(" ")[2]
    form = {"grant_type": "access_token", "service": host, "access_token": token}
    return str(ask("POST", f"https://{host}/oauth2/exchange", data=form).json()["refresh_token"])


def test_the_registry_behind_it_lets_nobody_else_in(emulator: Emulator) -> None:
    """Other users of this machine reach its port, and a job's container on the host's network would too."""
    port = (emulator.folder / "registry.log").read_text().rpartition("listening on 127.0.0.1:")[2].partition('"')[0]
    address = f"http://127.0.0.1:{port}/v2/"
    made = emulator.installation
    for login in (None, ("emulator", "guess"), (made.client_id, made.client_secret)):
        assert ask("GET", address, auth=login).status_code == 401
        assert ask("POST", f"{address}x/blobs/uploads/", auth=login).status_code == 401
    assert ask("GET", address, auth=made.inner_registry_login).status_code == 200


def test_the_resource(management: Any, names: tuple[str, str], host: str, workspace: Workspace) -> None:
    found = management.get(*names)
    assert (found.login_server, found.admin_user_enabled) == (host, True)
    assert found.id == workspace.get_details()["containerRegistry"]
    assert [one.name for one in management.list_by_resource_group(names[0])] == [names[1]]
    assert [one.name for one in management.list()] == [names[1]]
    from azure.core.exceptions import ResourceNotFoundError

    with pytest.raises(ResourceNotFoundError):
        management.get(names[0], "another")


def test_passwords(management: Any, names: tuple[str, str], host: str, workspace: Workspace) -> None:
    before = management.list_credentials(*names)
    assert before.username == names[1]
    after = management.regenerate_credential(*names, {"name": "password2"})
    assert after.passwords[0].value == before.passwords[0].value
    statuses = [
        ask("GET", f"https://{host}/v2/", auth=(names[1], one.value)).status_code
        for one in (before.passwords[0], before.passwords[1], after.passwords[1])
    ]
    assert statuses == [200, 401, 200]
    assert workspace.list_keys()["containerRegistryCredentials"]["passwords"][1]["value"] == after.passwords[1].value


def test_the_administrator_can_be_switched_off(
    emulator: Emulator, management: Any, names: tuple[str, str], host: str
) -> None:
    from azure.core.exceptions import HttpResponseError

    password = management.list_credentials(*names).passwords[0].value
    url = f"https://management.azure.com{management.get(*names).id}?api-version=2023-07-01"
    try:
        changed = ask("PATCH", url, headers=emulator.headers(), json={"properties": {"adminUserEnabled": False}})
        assert changed.json()["properties"]["adminUserEnabled"] is False
        assert ask("GET", f"https://{host}/v2/", auth=(names[1], password)).status_code == 401
        with pytest.raises(HttpResponseError):
            management.list_credentials(*names)
    finally:
        ask("PATCH", url, headers=emulator.headers(), json={"properties": {"adminUserEnabled": True}})
    assert ask("GET", f"https://{host}/v2/", auth=(names[1], password)).status_code == 200


def test_exchange(emulator: Emulator, host: str) -> None:
    assert exchanged(emulator, host).count(".") == 2
    form = {"grant_type": "access_token", "service": host, "access_token": "nonsense"}
    refused = ask("POST", f"https://{host}/oauth2/exchange", data=form)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (401, "UNAUTHORIZED")


def test_tokens_by_form(emulator: Emulator, host: str) -> None:
    challenge = ask("GET", f"https://{host}/v2/team/a/tags/list")
    scope = "repository:team/a:pull"
    assert challenge.status_code == 401
    assert challenge.headers["WWW-Authenticate"] == (
        f'Bearer realm="https://{host}/oauth2/token",service="{host}",scope="{scope}"'
    )
    form = {"grant_type": "refresh_token", "service": host, "refresh_token": exchanged(emulator, host)}
    token = ask("POST", f"https://{host}/oauth2/token", data={**form, "scope": scope}).json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    # There is no such repository, which the registry itself says: the request has passed.
    assert ask("GET", f"https://{host}/v2/team/a/tags/list", headers=bearer).status_code == 404
    assert ask("POST", f"https://{host}/v2/team/a/blobs/uploads/", headers=bearer).status_code == 401
    assert ask("GET", f"https://{host}/v2/team/b/tags/list", headers=bearer).status_code == 401
    push = ask("POST", f"https://{host}/oauth2/token", data={**form, "scope": "repository:team/a:pull,push"})
    bearer = {"Authorization": f"Bearer {push.json()['access_token']}"}
    assert ask("POST", f"https://{host}/v2/team/a/blobs/uploads/", headers=bearer).status_code == 202


def test_tokens_by_header(emulator: Emulator, management: Any, names: tuple[str, str], host: str) -> None:
    password = management.list_credentials(*names).passwords[0].value
    query = {"service": host, "scope": ["repository:team/a:pull", "registry:catalog:*"]}
    found = ask("GET", f"https://{host}/oauth2/token", params=query, auth=(names[1], password))
    bearer = {"Authorization": f"Bearer {found.json()['access_token']}"}
    assert "repositories" in ask("GET", f"https://{host}/v2/_catalog", headers=bearer).json()
    assert ask("GET", f"https://{host}/oauth2/token", params=query).status_code == 401
    assert ask("GET", f"https://{host}/oauth2/token", params=query, auth=(names[1], "x")).status_code == 401


@pytest.mark.parametrize("path", ["/v2/../debug", "/v2/a/%2e%2e/b/manifests/1", "/debug/vars", "/v2/A/tags/list"])
def test_paths_that_no_registry_has(emulator: Emulator, host: str, path: str) -> None:
    request = requests.Request("GET", f"https://{host}/").prepare()
    request.url = f"https://{host}{path}"
    with requests.Session() as session:
        settings = session.merge_environment_settings(request.url, {}, None, None, None)
        assert session.send(request, timeout=60, **settings).status_code == 404


def test_our_client_logs_in_as_the_service_principal(emulator: Emulator, host: str, tmp_path: Path) -> None:
    """Nothing but the variables of ``emulator exec`` says who it is: the identity's token is exchanged."""
    from himl_container.registry.client import RegistryClient

    environ = {**os.environ, "DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    repository = RegistryClient.connect(f"{host}/ours/{uuid.uuid4().hex[:8]}", environ=environ)
    data = b"{}"
    digest = repository.upload_bytes(data)
    assert repository.blob(digest) == data


def test_our_client_is_refused_without_an_identity(emulator: Emulator, host: str, tmp_path: Path) -> None:
    from himl_container.registry.client import RegistryClient
    from himl_container.registry.login import LoginRefusedError

    environ = {"DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path), "AZURE_CLIENT_SECRET": "wrong"}
    wrong = {"HIML_TENANT_ID": os.environ["AZURE_TENANT_ID"], "HIML_SERVICE_PRINCIPAL_ID": str(uuid.uuid4())}
    proxy = {name: os.environ[name] for name in ("HTTPS_PROXY", "REQUESTS_CA_BUNDLE")}
    environ |= {**wrong, "HIML_SERVICE_PRINCIPAL_PASSWORD": "wrong", **proxy}
    with pytest.raises(LoginRefusedError) as refused:
        RegistryClient.connect(f"{host}/ours", environ=environ).head("1")
    assert "no Azure identity" in str(refused.value)
    assert "wrong" not in str(refused.value)


@pytest.mark.docker
def test_docker_itself(emulator: Emulator, host: str, tmp_path: Path) -> None:
    """With a daemon of its own: another one's proxy and certificates are not for a test to change."""
    if missing():
        kit.lacking(f"a second daemon {missing()}")
    made = emulator.installation
    docker = ["docker", "--config", str(tmp_path / "docker")]

    def call(at: str, *arguments: str, given: bytes = b"", fails: bool = False) -> str:
        done = subprocess.run([*docker, "-H", at, *arguments], input=given, capture_output=True, check=False)
        text = (done.stdout + done.stderr).decode()
        assert bool(done.returncode) == fails, text
        return text

    image = f"{host}/docker/{uuid.uuid4().hex[:8]}"
    layer = tmp_path / "layer.tar"
    subprocess.run(["tar", "-cf", layer, "-C", tmp_path, "--files-from", "/dev/null"], check=True)
    bridge = Path("/sys/class/net/docker0/ifindex")
    before = bridge.read_text() if bridge.exists() else ""
    with certificates_of(host, emulator.folder / "ca.pem"), daemon(emulator.port) as at:
        # The machine's own daemon keeps its bridge.
        assert (bridge.read_text() if bridge.exists() else "") == before
        call(at, "import", str(layer), f"{image}:1")
        refused = call(at, "push", f"{image}:1", fails=True)
        assert "authentication required" in refused or "denied" in refused
        login = ("login", "--password-stdin", host, "--username")
        call(at, *login, made.client_id, given=b"wrong", fails=True)
        call(at, *login, made.client_id, given=made.client_secret.encode())
        pushed = call(at, "push", f"{image}:1")
        call(at, "rmi", f"{image}:1")
        pulled = call(at, "pull", f"{image}:1")
        digest = next(word for line in pulled.splitlines() if line.startswith("Digest: ") for word in line.split()[1:])
        assert digest in pushed
        # The registry's administrator, and the token of the exchange, as ``az acr login`` does it.
        call(at, "logout", host)
        call(at, *login, made.workspace.registry, given=made.registry_passwords[0].encode())
        call(at, "logout", host)
        nobody = "00000000-0000-0000-0000-000000000000"
        call(at, *login, nobody, given=exchanged(emulator, host).encode())
        assert "up to date" in call(at, "pull", f"{image}@{digest}")
        kept = json.loads((tmp_path / "docker" / "config.json").read_text())["auths"]
        assert list(kept) == [host]
