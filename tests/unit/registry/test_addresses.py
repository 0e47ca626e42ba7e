"""Where a repository is, by Docker's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.errors import InputError
from himl_container.registry.addresses import is_loopback, parse_address, split_port


@pytest.mark.parametrize(
    ("name", "host", "endpoint", "inside"),
    [
        ("python", "docker.io", "registry-1.docker.io", "library/python"),
        ("himl/train", "docker.io", "registry-1.docker.io", "himl/train"),
        ("docker.io/python", "docker.io", "registry-1.docker.io", "library/python"),
        ("index.docker.io/himl/train", "docker.io", "registry-1.docker.io", "himl/train"),
        ("team.azurecr.io/himl/train", "team.azurecr.io", "team.azurecr.io", "himl/train"),
        ("team.azurecr.io/train", "team.azurecr.io", "team.azurecr.io", "train"),
        ("Team.azurecr.io/train", "Team.azurecr.io", "team.azurecr.io", "train"),
        ("localhost/train", "localhost", "localhost", "train"),
        ("localhost:5000/a/b/c", "localhost:5000", "localhost:5000", "a/b/c"),
        ("[::1]:5000/train", "[::1]:5000", "[::1]:5000", "train"),
    ],
)
def test_a_name_is_taken_apart(name: str, host: str, endpoint: str, inside: str) -> None:
    address = parse_address(name)
    assert (address.host, address.endpoint, address.name) == (host, endpoint, inside)
    assert parse_address(address.full) == address


@pytest.mark.parametrize(
    "name",
    [
        "",
        "host.example/",
        "host.example/UPPER",
        "host.example/a:tag",
        f"host.example/a@sha256:{'0' * 64}",
        "host.example/../a",
        "host.example:70000/a",
        "host.example:0/a",
        "user@host.example/a",
        "https://host.example/a",
        "host.example/a?b",
        "host.example/a b",
    ],
)
def test_what_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        parse_address(name)


@given(st.text(max_size=60))
def test_any_name_gives_an_address_that_is_safe_in_a_request_or_none(name: str) -> None:
    try:
        address = parse_address(name)
    except InputError:
        return
    assert not set(address.name) & set(" ?#%\\@:\r\n")
    assert ".." not in address.name.split("/")
    assert parse_address(address.full) == address


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example", "128.0.0.1", "10.0.0.1", "::2", "registry.example", ""])
def test_another_machine(host: str) -> None:
    assert not is_loopback(host)


def test_ports() -> None:
    assert split_port("[::1]:5000") == ("::1", 5000)
    assert split_port("host.example") == ("host.example", None)
    with pytest.raises(InputError):
        split_port("::1")
