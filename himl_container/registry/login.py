"""A login for a registry, where one may come from, and how text of strangers is made fit for a message."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, quote_plus, urlsplit

from himl_container.errors import RegistryError

DOCKER_HUB = "docker.io"
_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


class TokenRequest(Protocol):
    """Sends one request about a login; the transport's, with its retries, proxies and certificates.

    A redirect is not followed but returned as it is, because the headers and the body hold credentials. At most a
    megabyte of the answer is read. Header names of the answer may have any case.
    """

    def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and content.

        :raises RegistryError: no answer, after retries.
        """


@dataclass(frozen=True)
class Login:
    """A user's name and secret for one registry. What it prints as has no secret in it.

    :param identity_token: a refresh token of OAuth 2, used in place of the password where the registry gives tokens.
    :param source: where it was found, for messages.
    :param only: the user named this login for this registry, so no other is tried when it is refused.
    """

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    source: str = ""
    only: bool = False

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header (RFC 7617); empty where there is no password."""
        if not self.password:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must not be shown."""
        return tuple(text for text in (self.password, self.identity_token, self.basic.removeprefix("Basic ")) if text)


@dataclass(frozen=True)
class Place:
    """The registry that a login is wanted for.

    :param host: with the port where there is one.
    :param url: ``https://host``, or ``http://host`` for a registry without TLS.
    :param repository: for files that keep a login for part of a registry.
    """

    host: str
    url: str
    request: TokenRequest = field(repr=False, compare=False)
    repository: str = ""

    @property
    def plain(self) -> bool:
        """Whether the registry is spoken to without TLS."""
        return self.url.startswith("http://")


class Source(Protocol):
    """One place in which a login may be found. Asked only when a registry wants a login."""

    def login(self, place: Place) -> Login | None:
        """Return the login for a registry, or None when there is none here.

        :raises LoginUnavailableError: there should be one, but it cannot be had; the next source is asked.
        :raises InputError: what the user wrote is malformed.
        """


class LoginUnavailableError(RegistryError):
    """A source of logins is set up for a registry, but does not work."""


class LoginRefusedError(RegistryError):
    """The registry gives no access with any login that is known, or wants one and none is known."""


def canonical_host(host: str) -> str:
    """Return a registry's address in one spelling: lower case, and one name for Docker Hub."""
    lower = host.lower()
    return DOCKER_HUB if lower in _HUB_HOSTS else lower


def is_loopback(host: str) -> bool:
    """Whether an address (with or without a port) is this machine's own."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text without secrets, in every form in which a server may send them back."""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in {secret, quote(secret, safe=""), quote_plus(secret), base64.b64encode(secret.encode()).decode()}:
            text = text.replace(form, "***") if form else text
    return text


def cleaned(text: str, *, secrets: tuple[str, ...] = (), limit: int = 200) -> str:
    """Return a stranger's text as one short line without secrets.

    Beside what is known to be secret, every long word that looks like a token is removed, because another program's
    error may quote a secret that we never saw.
    """
    text = masked(text, secrets)
    text = _TOKEN.sub("***", text)
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


_TOKEN = re.compile(r"(?=[A-Za-z0-9+_=-]*[0-9])(?=[A-Za-z0-9+_=-]*[A-Za-z])[A-Za-z0-9+_=-]{20,}(?:\.[A-Za-z0-9+_=-]+)*")


def server_reason(data: bytes, *, secrets: tuple[str, ...] = ()) -> str:
    """Return what a server says about a refusal (error bodies of the OCI and OAuth 2 specifications), or nothing."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict):
        return ""
    errors = value.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else value
    if isinstance(first, dict) and isinstance(first.get("error"), dict):
        first = first["error"]
    if not isinstance(first, dict):
        return ""
    words = (first.get(key) for key in ("code", "error", "message", "error_description", "details"))
    return cleaned(": ".join(word for word in words if isinstance(word, str) and word), secrets=secrets)
