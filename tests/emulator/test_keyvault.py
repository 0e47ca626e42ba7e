"""Secrets of the workspace, through the SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator


def test_one_secret(workspace: Workspace) -> None:
    vault = workspace.get_default_keyvault()
    vault.set_secret("one-secret", "a value: ü 'quoted'")
    assert vault.get_secret("one-secret") == "a value: ü 'quoted'"
    vault.set_secret("ONE-secret", "another")
    assert vault.get_secret("one-secret") == "another"
    vault.delete_secret("one-secret")
    with pytest.raises(Exception, match="not found"):
        vault.get_secret("one-secret")


def test_many_secrets(workspace: Workspace) -> None:
    vault = workspace.get_default_keyvault()
    values = {f"many-{number}": f"value {number}" for number in range(3)}
    vault.set_secrets(values)
    assert vault.get_secrets([*values, "many-missing"]) == {**values, "many-missing": None}
    assert set(values) <= {item["name"] for item in vault.list_secrets()}
    vault.delete_secrets(list(values))
    assert not set(values) & {item["name"] for item in vault.list_secrets()}


def test_names_and_sizes(emulator: Emulator, workspace: Workspace) -> None:
    import requests

    base = f"https://eastus.api.azureml.ms/credential/v2.0/{emulator.installation.workspace.path}/secrets"
    for document in (
        {"name": "no/slash", "value": "x"},
        {"name": "../x", "value": "x"},
        {"name": "", "value": "x"},
        {"name": "n" * 128, "value": "x"},
        {"name": "too-large", "value": "x" * 25601},
        {"name": "no-text", "value": {"a": 1}},
    ):
        answer = requests.put(base, json=document, headers=emulator.headers(), timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BadArgument"), document
