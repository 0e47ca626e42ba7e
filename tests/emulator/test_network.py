"""Which doors the emulator has, what it lets through, and that the SDK in front of it is the one of PyPI."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import importlib.metadata
import json
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator

_LISTEN = "0A"
"""State of a socket in /proc/net/tcp (proc(5))."""


def _family(pid: int) -> set[int]:
    """A process and its descendants."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _listening(pids: set[int]) -> dict[str, list[str]]:
    """The addresses on which processes listen, by the table that has them."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):  # a process that has ended listens no more
            for entry in list(Path(f"/proc/{pid}/fd").iterdir()):
                with contextlib.suppress(OSError):
                    target = str(entry.readlink())
                    if target.startswith("socket:["):
                        inodes.add(target[8:-1])
    found: dict[str, list[str]] = {}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in inodes and (words[3] == _LISTEN or table.startswith("udp")):
                found.setdefault(table, []).append(words[1].partition(":")[0])
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux only")
def test_listens_on_this_machine_only(emulator: Emulator, workspace: Workspace) -> None:
    pid = json.loads(emulator.cli("status", "--json").stdout.splitlines()[-1])["pid"]
    found = _listening(_family(pid))
    # The proxy, Azurite and the registry; where a job has run in this session, the bridge's own address too.
    assert set(found) == {"tcp"}
    own = [address for address in found["tcp"] if address == "0100007F"]
    assert len(own) == 3
    bridges = [socket.inet_ntoa(bytes.fromhex(address)[::-1]) for address in found["tcp"] if address != "0100007F"]
    assert all(ipaddress_is_private(address) for address in bridges)
    assert len(bridges) <= 1


def ipaddress_is_private(address: str) -> bool:
    import ipaddress

    found = ipaddress.ip_address(address)
    return found.is_private and not found.is_unspecified


def _proxy(emulator: Emulator, words: bytes) -> bytes:
    """What the proxy answers to the first bytes of a connection."""
    with socket.create_connection(("127.0.0.1", emulator.port), timeout=30) as connection:
        connection.sendall(words)
        return connection.recv(4096)


@pytest.mark.parametrize(
    "target",
    [
        "example.com:443",
        "management.azure.com:80",
        "127.0.0.1:22",
        "169.254.169.254:443",
        "[::1]:443",
        "another.blob.core.windows.net:443",
        "another.azurecr.io:443",
        "management.azure.com.evil.example:443",
    ],
)
def test_other_hosts_are_refused_and_logged(emulator: Emulator, target: str) -> None:
    answer = _proxy(emulator, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert f"not imitated: host {target}" in emulator.log


@pytest.mark.parametrize(
    "words",
    [
        b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"CONNECT management.azure.com HTTP/1.1\r\n\r\n",
        b"CONNECT a b:443 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_other_words_are_refused(emulator: Emulator, words: bytes) -> None:
    assert _proxy(emulator, words).startswith(b"HTTP/1.1 403 ")


def test_page_only_under_an_address_of_this_machine(emulator: Emulator) -> None:
    """A web site's name that was made to lead to this machine gets nothing."""
    answer = _proxy(emulator, b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")


def test_services_do_not_answer_without_tls(emulator: Emulator) -> None:
    token = emulator.headers()["Authorization"]
    head = f"GET /subscriptions HTTP/1.1\r\nHost: 127.0.0.1:{emulator.port}\r\nConnection: close\r\n"
    answer = _proxy(emulator, f"{head}Authorization: {token}\r\n\r\n".encode())
    assert answer.partition(b"\r\n")[0].split()[1] in {b"403", b"404"}
    assert emulator.installation.workspace.subscription_id.encode() not in answer


def test_certificate_is_for_the_host_and_by_the_own_authority(emulator: Emulator) -> None:
    context = ssl.create_default_context(cafile=str(emulator.folder / "ca.pem"))
    with socket.create_connection(("127.0.0.1", emulator.port), timeout=30) as connection:
        connection.sendall(b"CONNECT management.azure.com:443 HTTP/1.1\r\n\r\n")
        assert b" 200 " in connection.recv(4096)
        with context.wrap_socket(connection, server_hostname="management.azure.com") as secure:
            assert secure.getpeercert()["subjectAltName"] == (("DNS", "management.azure.com"),)


def test_private_files_are_the_owners_only(emulator: Emulator, workspace: Workspace) -> None:
    assert emulator.folder.stat().st_mode & 0o077 == 0
    for name in ("ca.key", "token.key", "client.pem", "state.json", "emulator.db", "emulator.log", "registry.yml"):
        assert (emulator.folder / name).stat().st_mode & 0o077 == 0, name


def test_unknown_operation(emulator: Emulator) -> None:
    import requests

    path = f"/nothing/v1.0/{emulator.installation.workspace.path}/runs/my-secret-run/thing/{'5' * 8}"
    for _ in range(2):
        answer = requests.get(f"https://eastus.api.azureml.ms{path}", headers=emulator.headers(), timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NotFound")
    line = "not imitated: GET api /nothing/v1.0/{ws}/runs/{id}/thing/{id}"
    assert emulator.log.count(line) == 1
    assert "my-secret-run" not in emulator.log


def test_wrong_verb(emulator: Emulator) -> None:
    import requests

    answer = requests.delete("https://management.azure.com/subscriptions", headers=emulator.headers(), timeout=60)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET"


def test_too_large_a_body(emulator: Emulator) -> None:
    import requests

    address = f"https://eastus.api.azureml.ms/credential/v2.0/{emulator.installation.workspace.path}/secrets"
    answer = requests.put(address, data=b"x" * (33 * 2**20), headers=emulator.headers(), timeout=60)
    assert answer.status_code == 413


def test_telemetry(emulator: Emulator) -> None:
    import requests

    answer = requests.post("https://dc.services.visualstudio.com/v2/track", json=[{"name": "x"}], timeout=60)
    assert answer.json()["itemsAccepted"] == answer.json()["itemsReceived"] == 1


def test_nothing_is_answered_without_a_token(emulator: Emulator) -> None:
    """Also of paths that nothing answers: a stranger does not learn what there is."""
    import requests

    for address in ("https://management.azure.com/nothing", "https://eastus.api.azureml.ms/history/v1.0/x"):
        assert requests.get(address, timeout=60).status_code == 401


@pytest.mark.parametrize("name", ["azureml-core", "azureml-train-core", "azureml-dataprep", "azureml-dataset-runtime"])
def test_sdk_is_as_pypi_ships_it(name: str, workspace: Workspace) -> None:
    """No file of the SDK differs from what its wheel's own list says of it."""
    distribution = importlib.metadata.distribution(name)
    looked_at = 0
    for path, digest, _ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        if not digest:
            continue
        algorithm, _, value = digest.partition("=")
        content = Path(str(distribution.locate_file(path))).read_bytes()
        found = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest()).rstrip(b"=").decode()
        assert found == value, path
        looked_at += 1
    assert looked_at


def test_sdk_is_not_patched_in_memory(workspace: Workspace) -> None:
    """What the SDK's modules call is their own: no function of theirs comes from our packages."""
    import sys

    foreign = [
        f"{name}.{attribute}"
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in {"azureml", "msrest", "msal"}
        for attribute, value in list(vars(module).items())
        if str(getattr(value, "__module__", "")).startswith(("himl_container", "tests", "conftest"))
    ]
    assert foreign == []
