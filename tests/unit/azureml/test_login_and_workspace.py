"""Which workspace is meant and which login is taken, without any service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kit
import pytest

from himl_container.azureml import interactive
from himl_container.azureml.ambient import ambient_login
from himl_container.azureml.failures import (
    FailedAssertion,
    LoginFailed,
    MissingFile,
    MissingKey,
    MissingRun,
    UnfinishedRun,
    WrongType,
    WrongValue,
)
from himl_container.azureml.login import get_authentication, get_secret_from_environment
from himl_container.azureml.service_failures import explained
from himl_container.azureml.workspace import find_file, get_workspace, workspace_names
from himl_container.errors import AzureMLError, HimlError, InputError

_NAMES = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of this machine's user: no variables, no remembered login, an empty current folder."""
    for name in list(os.environ):
        if name.startswith(("HIML_", "AZURE", "MSI_", "IDENTITY_", "PYTHONPATH")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def _write(path: Path, **changes: str) -> Path:
    path.write_text(json.dumps({**_NAMES, **changes}))
    return path


def test_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIML_SECRET", "value")
    monkeypatch.setenv("HIML_EMPTY", "")
    assert get_secret_from_environment("himl_secret") == "value"
    assert get_secret_from_environment("HIML_EMPTY", allow_missing=True) == ""
    assert get_secret_from_environment("HIML_ABSENT", allow_missing=True) is None
    for name in ("himl_absent", "HIML_EMPTY"):
        with pytest.raises(ValueError, match=f"There is no value stored for the secret named '{name.upper()}'"):
            get_secret_from_environment(name)


def test_a_path_or_a_text(bare: Path) -> None:
    path = _write(bare / "other.json")
    assert workspace_names(path) == workspace_names(str(path)) == ("s", "g", "w")


def test_a_file_with_a_byte_order_mark(bare: Path) -> None:
    path = bare / "other.json"
    path.write_text(json.dumps(_NAMES), encoding="utf-8-sig")
    assert workspace_names(path) == ("s", "g", "w")


def test_the_nearest_file_wins(bare: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    below = bare / "a" / "b"
    below.mkdir(parents=True)
    _write(bare.parent / "config.json", workspace_name="far")
    _write(bare / "config.json", workspace_name="near")
    (bare / "a" / "config.json").mkdir()
    monkeypatch.chdir(below)
    with caplog.at_level("INFO"):
        assert workspace_names().workspace_name == "near"
    assert str(bare / "config.json") in caplog.text


def test_the_search_stops_at_the_python_path(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(bare.parent / "config.json")
    (bare / "a").mkdir()
    (bare / "link").symlink_to(bare)
    monkeypatch.chdir(bare / "a")
    assert find_file("config.json") == bare.parent / "config.json"
    for entry in (str(bare), str(bare / "link"), "..", f"/elsewhere{os.pathsep}{bare}/"):
        monkeypatch.setenv("PYTHONPATH", entry)
        assert find_file("config.json") is None
        assert find_file("config.json", stop_at_pythonpath=False) == bare.parent / "config.json"


def test_the_script_s_folder_comes_after_the_current_one(bare: Path, tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    script = scripts / "train.py"
    script.write_text("from himl_container.azureml.workspace import find_file; print(find_file('config.json'))")

    def found() -> str:
        done = subprocess.run(
            [sys.executable, script], cwd=bare, env=kit.clean_environ(), capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert found() == "None"
    _write(scripts / "config.json")
    assert found() == str(scripts / "config.json")
    _write(bare / "config.json")
    assert found() == str(bare / "config.json")


def test_variables_where_there_is_no_file(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _NAMES.items():
        monkeypatch.setenv(f"HIML_{name.upper()}", f"{value}-of-variables")
    assert workspace_names() == ("s-of-variables", "g-of-variables", "w-of-variables")
    _write(bare / "config.json")
    assert workspace_names() == ("s", "g", "w")


def test_the_emulator_comes_before_a_file_that_is_found(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(bare / "config.json")
    emulated = _write(bare / "emulator.json", workspace_name="emulator")
    named = _write(bare / "named.json", workspace_name="named")
    monkeypatch.setenv("HIML_EMULATOR_CONFIG", str(emulated))
    assert workspace_names().workspace_name == "emulator"
    assert workspace_names(named).workspace_name == "named"


def test_no_workspace(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIML_RESOURCE_GROUP", "g")
    with pytest.raises(ValueError, match=r"No workspace config file given, nor can we find one\.") as caught:
        get_workspace()
    assert isinstance(caught.value, InputError)
    assert caught.value.hint.endswith("or set HIML_SUBSCRIPTION_ID, HIML_WORKSPACE_NAME")


def test_a_file_that_cannot_be_read(bare: Path) -> None:
    (bare / "folder.json").mkdir()
    (bare / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for name in ("absent.json", "folder.json", "bytes.json"):
        with pytest.raises(ValueError, match=r"Workspace config file does not exist or cannot be read\.") as caught:
            get_workspace(None, bare / name)
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "has no subscription_id, resource_group, workspace_name"),
        (
            '{"subscription_id": "s", "resource_group": 1, "workspace_name": ""}',
            "has no resource_group, workspace_name",
        ),
    ],
)
def test_a_malformed_file(bare: Path, text: str, said: str) -> None:
    (bare / "config.json").write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        get_workspace()
    assert "config.json" in str(caught.value)


def test_a_file_that_is_nested_without_end(bare: Path) -> None:
    (bare / "config.json").write_text("[" * 100_000)
    with pytest.raises(WrongValue, match="is not JSON"):
        get_workspace()


def test_inside_of_azureml_its_own_workspace_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    from himl_container.azureml import context

    own, other = SimpleNamespace(name="own"), SimpleNamespace(name="other")
    run: Any = SimpleNamespace(experiment=SimpleNamespace(workspace=own))
    monkeypatch.setattr(context, "_CURRENT", [run])
    monkeypatch.setenv("AZUREML_RUN_ID", "r")
    monkeypatch.setenv("AZUREML_ARM_SUBSCRIPTION", "s")
    assert get_workspace(other, Path("absent.json")) is own  # type: ignore[arg-type]


def _set(monkeypatch: pytest.MonkeyPatch, prefix: str, *names: str) -> None:
    for name in names:
        monkeypatch.setenv(f"{prefix}{name}", f"{prefix}{name}-value")


def test_service_principal_of_our_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    from azureml.core.authentication import ServicePrincipalAuthentication

    _set(monkeypatch, "AZUREML_SERVICE_PRINCIPAL_", "TENANT_ID", "ID", "PASSWORD")
    _set(monkeypatch, "HIML_", "TENANT_ID", "SERVICE_PRINCIPAL_ID", "SERVICE_PRINCIPAL_PASSWORD")
    found = get_authentication()
    assert isinstance(found, ServicePrincipalAuthentication)
    assert found._tenant_id == "HIML_TENANT_ID-value"
    monkeypatch.setenv("HIML_SERVICE_PRINCIPAL_PASSWORD", "")
    found = get_authentication()
    assert found._tenant_id == "AZUREML_SERVICE_PRINCIPAL_TENANT_ID-value"


class _Terminal:
    def isatty(self) -> bool:
        return True


class _Pipe:
    def isatty(self) -> bool:
        return False


def test_who_can_be_asked() -> None:
    assert interactive.can_ask({}, _Terminal(), _Terminal())
    assert not interactive.can_ask({}, _Pipe(), _Terminal())
    assert not interactive.can_ask({}, _Terminal(), _Pipe())
    assert not interactive.can_ask({}, None, None)


@pytest.mark.parametrize(
    ("kernel", "asked"), [({}, True), ({"_allow_stdin": True}, True), ({"_allow_stdin": False}, False)]
)
def test_who_can_be_asked_in_a_notebook(kernel: dict[str, bool], asked: bool) -> None:
    shell = SimpleNamespace(kernel=SimpleNamespace(**kernel))
    modules = {"IPython": SimpleNamespace(get_ipython=lambda: shell)}
    assert interactive.can_ask(modules, None, _Pipe()) is asked


@pytest.mark.parametrize("shell", [None, SimpleNamespace()])
def test_ipython_without_a_notebook(shell: Any) -> None:
    modules = {"IPython": SimpleNamespace(get_ipython=lambda: shell)}
    assert interactive.can_ask(modules, _Terminal(), _Terminal())
    assert not interactive.can_ask(modules, _Pipe(), _Pipe())


class _Asked:
    """In the place of the SDK's login in a browser, which waits for somebody."""

    def __init__(self, tenant_id: str | None) -> None:
        self.tenant_id = tenant_id


@pytest.fixture
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Azure CLI, and a machine that quickly says that it has no identity."""
    from azure.core.exceptions import ClientAuthenticationError

    # The module with the subclasses of the SDK's logins is loaded before a test puts others in their places.
    from himl_container.azureml import ambient, credential  # noqa: F401

    class Nothing:
        def get_token(self, *_scopes: str) -> None:
            raise ClientAuthenticationError("no identity endpoint")

    monkeypatch.setattr(ambient, "_managed", Nothing)
    monkeypatch.setenv("PATH", "")


def test_interactive_login_comes_last(no_login: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import azureml.core.authentication

    monkeypatch.setattr(azureml.core.authentication, "InteractiveLoginAuthentication", _Asked)
    monkeypatch.setattr(sys, "stdin", _Terminal())
    monkeypatch.setattr(sys, "stderr", _Terminal())
    found: Any = get_authentication()
    assert isinstance(found, _Asked)
    assert found.tenant_id is None
    monkeypatch.setenv("HIML_TENANT_ID", "t")
    found = get_authentication()
    assert found.tenant_id == "t"


def test_without_a_terminal_nobody_is_waited_for(no_login: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Pipe())
    with pytest.raises(LoginFailed, match="no terminal") as caught:
        get_authentication()
    for wanted in ("az login", "HIML_SERVICE_PRINCIPAL_ID", "HIML_SERVICE_PRINCIPAL_PASSWORD", "HIML_TENANT_ID"):
        assert wanted in caught.value.hint


def test_an_earlier_login_that_is_broken(no_login: None, bare: Path) -> None:
    remembered = bare / "auth"
    remembered.mkdir()
    (remembered / "azureProfile.json").write_text("{}")
    environ = {**os.environ, "AZUREML_AUTH_CONFIG_DIR": str(remembered)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZUREML_AUTH_CONFIG_DIR", str(remembered))
        found = ambient_login(environ)
    assert found.login is None
    assert found.refusals[0].startswith("an earlier login of the AzureML SDK: ")
    assert len(found.refusals) == 1
    with_endpoint = ambient_login({**environ, "IDENTITY_ENDPOINT": "http://127.0.0.1:9"})
    assert with_endpoint.refusals[0] == "managed identity: ClientAuthenticationError: no identity endpoint"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (WrongValue, ValueError),
        (WrongType, TypeError),
        (MissingKey, KeyError),
        (MissingFile, FileNotFoundError),
        (FailedAssertion, AssertionError),
        (UnfinishedRun, ValueError),
        (MissingRun, Exception),
        (LoginFailed, AzureMLError),
    ],
)
def test_failures_are_of_both_families(ours: type[HimlError], theirs: type[Exception]) -> None:
    error = ours("the text", where="config.json", hint="the next step")
    assert isinstance(error, theirs)
    assert isinstance(error, HimlError)
    assert str(error) == "config.json: the text\n  the next step"
    assert error.exit_code in (65, 77, 78)


def test_failures_of_others_are_not_explained() -> None:
    for failure in (ValueError("mine"), WrongValue("mine"), KeyError("mine")):
        with pytest.raises(type(failure)) as caught, explained("x"):
            raise failure
        assert caught.value is failure


def test_failures_of_services_are_explained() -> None:
    import requests
    from azure.core.exceptions import ClientAuthenticationError
    from azureml.exceptions import UserErrorException

    def said(failure: Exception) -> HimlError:
        with pytest.raises(AzureMLError) as caught, explained("the run", next_step="look there"):
            raise failure
        assert caught.value.__cause__ is failure
        return caught.value

    unreachable = said(requests.ConnectionError("no route to https://user:SECRET@host?sig=SECRET"))
    assert "does not answer" in unreachable.what
    assert "SECRET" not in str(unreachable)
    assert "try again" in unreachable.hint
    refused = said(ClientAuthenticationError("AADSTS700082: expired"))
    assert isinstance(refused, LoginFailed)
    assert "az login" in refused.hint
    assert str(said(UserErrorException("no such thing"))) == "the run: no such thing\n  look there"
