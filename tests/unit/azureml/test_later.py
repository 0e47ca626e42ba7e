"""Imports that are put off until something of them is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from himl_container.azureml.later import imported_later

CLIENTS = """
from himl_later_clients import log
log.append("clients")

class Client:
    kind = "a client"

    def __init__(self, name):
        self.name = name

def sign(name):
    return name + ", signed"
"""
USER = """
import himl_later_tool as tool
from himl_later_clients.storage import Client, sign

def made(name):
    return Client(name)
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Three packages, and the log of what of them was loaded."""
    package = tmp_path / "himl_later_clients"
    package.mkdir()
    (package / "__init__.py").write_text("log = []\n")
    (package / "storage").mkdir()
    (package / "storage" / "__init__.py").write_text(CLIENTS)
    (package / "storage" / "extra.py").write_text("value = 3\n")
    (tmp_path / "himl_later_tool.py").write_text(
        "from himl_later_clients import log\nlog.append('tool')\ndef work():\n    return 'done'\n"
    )
    (tmp_path / "himl_later_user.py").write_text(USER)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("himl_later_clients").log
    for name in [name for name in sys.modules if name.startswith("himl_later_")]:
        del sys.modules[name]


def test_nothing_is_loaded_before_it_is_used(packages: list[str]) -> None:
    with imported_later(["himl_later_tool"], ["himl_later_clients.storage"]):
        user = importlib.import_module("himl_later_user")
    assert packages == []
    assert user.tool.work() == "done"
    assert packages == ["tool"]
    client = user.made("a")
    assert (client.name, user.sign("a"), user.Client.kind) == ("a", "a, signed", "a client")
    assert packages == ["tool", "clients"]


def test_who_imports_afterwards_gets_the_module_itself(packages: list[str]) -> None:
    before = list(sys.meta_path)
    with imported_later([], ["himl_later_clients.storage"]):
        user = importlib.import_module("himl_later_user")
    assert sys.meta_path == before
    storage = importlib.import_module("himl_later_clients.storage")
    assert importlib.import_module("himl_later_clients").storage is storage
    assert type(user.made("a")) is storage.Client
    assert isinstance(user.made("a"), user.Client)
    assert not isinstance("a", user.Client)
    assert packages == ["tool", "clients"]


def test_what_is_used_at_once(packages: list[str]) -> None:
    with imported_later([], ["himl_later_clients.storage"]):
        user = importlib.import_module("himl_later_user")
        assert user.made("a").name == "a"
        assert importlib.import_module("himl_later_clients.storage").Client("b").name == "b"
    assert packages == ["tool", "clients"]


def test_a_module_below_one_that_is_put_off(packages: list[str]) -> None:
    with imported_later([], ["himl_later_clients.storage"]):
        importlib.import_module("himl_later_user")
        assert importlib.import_module("himl_later_clients.storage.extra").value == 3
    storage = importlib.import_module("himl_later_clients.storage")
    assert (storage.extra.value, storage.sign("a")) == (3, "a, signed")
    assert packages == ["tool", "clients"]


def test_what_is_loaded_already_or_does_not_exist_is_left_alone(packages: list[str]) -> None:
    storage = importlib.import_module("himl_later_clients.storage")
    with imported_later(["himl_later_nothing"], ["himl_later_clients.storage", "himl_later_clients.nothing"]):
        assert importlib.import_module("himl_later_user").Client is storage.Client
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("himl_later_clients.nothing")
    assert packages == ["clients", "tool"]


def test_a_name_that_the_module_lacks(packages: list[str]) -> None:
    with imported_later([], ["himl_later_clients.storage"]):
        missing = importlib.import_module("himl_later_clients.storage").Missing
    with pytest.raises(AttributeError, match="Missing"):
        missing()
    assert packages == ["clients"]
