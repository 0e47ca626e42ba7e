"""Where a repository is: the registry's host, the address that its requests go to, the name inside the registry."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from himl_container.errors import InputError
from himl_container.registry.reference import parse_reference

DOCKER_HUB = "docker.io"
_HUB_ENDPOINT = "registry-1.docker.io"
_HUB_NAMES = (DOCKER_HUB, "index.docker.io", _HUB_ENDPOINT)
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?\Z")


@dataclass(frozen=True)
class Address:
    """A repository, taken apart.

    :param host: as logins and messages name the registry (``docker.io``, ``localhost:5000``).
    :param endpoint: the host and port that requests go to (``registry-1.docker.io``).
    :param name: the repository inside the registry (``library/python``).
    """

    host: str
    endpoint: str
    name: str

    @property
    def loopback(self) -> bool:
        """Whether the registry is on this machine; only such a one may speak plain http, as with Docker."""
        return is_loopback(split_port(self.endpoint)[0])

    @property
    def full(self) -> str:
        """``docker.io/library/python``."""
        return f"{self.host}/{self.name}"


def parse_address(name: str) -> Address:
    """Take the full name of a repository apart, with Docker's rules for names without a host.

    The first part is a host when it has a dot, a colon or a capital letter, or is ``localhost``; otherwise the
    repository is in Docker Hub, under ``library/`` where it has only one part.

    :raises InputError: it is not the name of a repository.
    """
    reference = parse_reference(name)
    if reference.tag or reference.digest:
        raise InputError(f"{name!r} names an image; a repository has no tag and no digest")
    first, slash, rest = reference.repository.partition("/")
    is_host = bool(slash) and (any(sign in first for sign in ".:[") or first == "localhost" or first != first.lower())
    host, path = (first, rest) if is_host else (DOCKER_HUB, reference.repository)
    if host.lower() in _HUB_NAMES:
        return Address(DOCKER_HUB, _HUB_ENDPOINT, path if "/" in path else f"library/{path}")
    _, port = split_port(host)
    if port is not None and not 0 < port < 65536:
        raise InputError(f"{name!r}: there is no port {port}")
    return Address(host, host.lower(), path)


def split_port(host: str) -> tuple[str, int | None]:
    """Return a host without brackets, and its port where it has one.

    :raises InputError: it is no host.
    """
    found = _HOST_AND_PORT.match(host)
    if found is None:
        raise InputError(f"{host!r} is not a host")
    return found["host"].strip("[]"), int(found["port"]) if found["port"] else None


def is_loopback(host: str) -> bool:
    """Whether a host (without a port) is this machine: ``localhost``, 127.0.0.0/8 or ``::1``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
