"""Which workspace is opened and who logs in, with the real SDK on the emulator."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from himl_container.azureml.failures import LoginFailed
from himl_container.azureml.login import get_authentication
from himl_container.azureml.workspace import get_workspace
from himl_container.errors import AzureMLError

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator

_LOGINS = ("AZUREML_SERVICE_PRINCIPAL_", "AZURE_", "MSI_", "HIML_TENANT", "HIML_SERVICE")


@pytest.fixture
def without_login(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to the emulator, without anything that logs in."""
    for name in [name for name in os.environ if name.startswith(_LOGINS)]:
        monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no mention of the emulator's own configuration file."""
    monkeypatch.delenv("HIML_EMULATOR_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _principal(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, secret: str = "") -> None:
    made = emulator.installation
    monkeypatch.setenv("HIML_TENANT_ID", made.workspace.tenant_id)
    monkeypatch.setenv("HIML_SERVICE_PRINCIPAL_ID", made.client_id)
    monkeypatch.setenv("HIML_SERVICE_PRINCIPAL_PASSWORD", secret or made.client_secret)


def test_an_object_is_returned_as_it_is(workspace: Workspace) -> None:
    assert get_workspace(workspace) is workspace
    assert get_workspace(aml_workspace=workspace, workspace_config_path=Path("absent.json")) is workspace


def test_a_file_that_is_named(emulator: Emulator, folder: Path) -> None:
    for path in (emulator.config, str(emulator.config)):
        assert get_workspace(workspace_config_path=path).name == "emulator"


def test_the_nearest_file(emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    shutil.copy(emulator.config, folder / "a" / "config.json")
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(folder / "a" / "b")
    assert get_workspace().name == "emulator"


def test_variables_in_the_place_of_a_file(emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in json.loads(emulator.config.read_text()).items():
        monkeypatch.setenv(f"HIML_{name.upper()}", value)
    assert get_workspace().name == "emulator"


def test_the_emulator_that_this_process_is_led_to(emulator: Emulator, tmp_path: Path) -> None:
    assert get_workspace().subscription_id == emulator.installation.workspace.subscription_id


def test_a_workspace_that_is_not_there(emulator: Emulator, folder: Path) -> None:
    names = json.loads(emulator.config.read_text())
    config = folder / "config.json"
    config.write_text(json.dumps({**names, "workspace_name": "another"}))
    with pytest.raises(AzureMLError, match=r"the workspace another: .*not found"):
        get_workspace()


def test_service_principal(emulator: Emulator, without_login: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from azureml.core.authentication import ServicePrincipalAuthentication

    _principal(emulator, monkeypatch)
    assert isinstance(get_authentication(), ServicePrincipalAuthentication)
    assert get_workspace().name == "emulator"


def test_refused_service_principal(emulator: Emulator, without_login: None, monkeypatch: pytest.MonkeyPatch) -> None:
    _principal(emulator, monkeypatch, secret="wrong-secret-of-the-user")
    with pytest.raises(LoginFailed, match="AADSTS7000215") as caught:
        get_workspace()
    assert "HIML_SERVICE_PRINCIPAL_PASSWORD" in caught.value.hint
    assert "wrong-secret-of-the-user" not in str(caught.value)


@pytest.mark.parametrize("kept", ["AZUREML_SERVICE_PRINCIPAL_", "AZURE_", "MSI_"])
def test_a_login_that_is_there(
    emulator: Emulator, without_login: None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in emulator.variables.items():
        if name.startswith(kept):
            monkeypatch.setenv(name, value)
    found = get_workspace()
    assert found.name == "emulator"
    assert sorted(found.compute_targets) == ["cpu-cluster", "low-priority"]


def test_variables_that_are_refused_end_the_search(
    emulator: Emulator, without_login: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSI_ENDPOINT", emulator.variables["MSI_ENDPOINT"])
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID"):
        monkeypatch.setenv(name, emulator.variables[name])
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "another")
    with pytest.raises(LoginFailed, match=r"the AZURE_. variables.*AADSTS7000215"):
        get_workspace()


def test_nobody_is_logged_in(emulator: Emulator, without_login: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LoginFailed, match="nobody is logged in") as caught:
        get_workspace()
    assert "HIML_TENANT_ID" in caught.value.hint


def test_an_earlier_login_through_the_sdk(
    emulator: Emulator, without_login: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azureml._base_sdk_common.common import perform_interactive_login

    from himl_container.azureml.credential import RememberedLogin

    monkeypatch.setenv("AZUREML_AUTH_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    made = emulator.installation
    perform_interactive_login(
        username=made.client_id,
        password=made.client_secret,
        service_principal=True,
        tenant=made.workspace.tenant_id,
    )
    assert isinstance(get_authentication(), RememberedLogin)
    assert sorted(get_workspace().compute_targets) == ["cpu-cluster", "low-priority"]


def _azure_cli(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the place of the Azure CLI."""
    program = folder / "bin" / "az"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_azure_cli(emulator: Emulator, without_login: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CLI is asked once, however many requests follow: it takes half a second for each token."""
    token = emulator.headers()["Authorization"].removeprefix("Bearer ")
    answer = {"accessToken": token, "expires_on": 4102444800, "expiresOn": "2100-01-01 00:00:00.000000"}
    (tmp_path / "answer").write_text(json.dumps(answer))
    _azure_cli(tmp_path, f'echo "$@" >> "{tmp_path}/asked"\ncat "{tmp_path}/answer"\n', monkeypatch)
    found = get_workspace()
    assert found.name == "emulator"
    assert sorted(found.compute_targets) == ["cpu-cluster", "low-priority"]
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 1
    assert "get-access-token" in asked[0]


@pytest.mark.parametrize(
    ("status", "part"),
    [(503, "/openid-configuration"), (429, "/openid-configuration"), (503, "/workspaces/emulator")],
)
def test_a_service_that_is_busy(
    emulator: Emulator, status: int, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK and msal hide the status of these in the text or the context of what they raise."""
    import requests

    send, refused = requests.adapters.HTTPAdapter.send, list[str]()

    def busy_once(self: Any, request: Any, **options: Any) -> requests.Response:
        answer = send(self, request, **options)
        if part in request.url and not refused:
            refused.append(request.url)
            answer.status_code = status
        return answer

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", busy_once)
    assert get_workspace().name == "emulator"
    assert len(refused) == 1
    assert "opening the workspace emulator: " in caplog.text
    assert "Attempt 2 of 5 in 1 s." in caplog.text


def test_expired_login_of_the_azure_cli(
    emulator: Emulator, without_login: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "ERROR: AADSTS700082: The refresh token has expired due to inactivity."
    _azure_cli(tmp_path, f'echo "{said}" >&2\nexit 1\n', monkeypatch)
    with pytest.raises(LoginFailed, match=r"the Azure CLI.*AADSTS700082") as caught:
        get_workspace()
    assert "az login" in caught.value.hint
