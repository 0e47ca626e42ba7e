"""Getting a token from the server that a registry names (the ``distribution`` project's token authentication).

A login with a password asks by GET with basic authentication; one with a refresh token by POST, as in OAuth 2. Where
the token comes from is the registry's word, so it is checked before anything secret is sent there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from himl_container.errors import RegistryError
from himl_container.registry.challenges import Challenge
from himl_container.registry.login import Login, Place, cleaned, is_loopback, server_reason

CLIENT_ID = "himl-container"
DEFAULT_LIFETIME = 60.0
"""Seconds that a token holds when the server does not say (token specification, ``expires_in``)."""
LONGEST_LIFETIME = 24 * 3600.0
_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}\Z")
_URL = re.compile(r"[\x21-\x7e]{1,2048}\Z")


@dataclass(frozen=True)
class Token:
    """A token and the seconds for which it holds, from the moment when it was asked for."""

    value: str = field(repr=False)
    lifetime: float = DEFAULT_LIFETIME


class TokenRefusedError(Exception):
    """The server of tokens does not accept a login. ``reason`` is what it says, without secrets."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


def fetch_token(place: Place, challenge: Challenge, scope: str, login: Login | None) -> Token:
    """Return a token for a scope, or several scopes separated by blanks.

    :param login: None for what everybody may do.
    :raises TokenRefusedError: the login is wrong, or one is needed.
    :raises RegistryError: the server's address is not one that a login may go to, or its answer is no token.
    """
    realm = checked_realm(challenge["realm"], place)
    status, data = 0, b""
    if login is not None and login.identity_token:
        status, data = _by_refresh_token(realm, place, challenge["service"], scope, login)
    # A server without the POST form says so with one of these; the password, if there is one, may still be accepted.
    by_password = login is None or not login.identity_token or (status in (404, 405) and bool(login.password))
    if by_password:
        status, data = _by_password(realm, place, challenge["service"], scope, login)
    secrets = login.secrets if login else ()
    refresh_refused = status == 400 and not by_password
    if status in (401, 403) or refresh_refused:
        raise TokenRefusedError(server_reason(data, secrets=secrets))
    if status != 200:
        reason = server_reason(data, secrets=secrets)
        raise RegistryError(
            f"the server of tokens {realm.netloc} answers {status}{f' ({reason})' if reason else ''}", where=place.host
        )
    return _read(data, realm, place)


def checked_realm(realm: str, place: Place) -> SplitResult:
    """Return the address of a server of tokens, if a login may be sent there.

    TLS is required. Only a registry that is itself spoken to without it may name a server without it, and only on the
    same machine or on this one: otherwise anybody on the way could have the login sent to himself.

    :raises RegistryError: it may not.
    """
    problem = ""
    try:
        parts = urlsplit(realm) if _URL.match(realm) else SplitResult("", "", "", "", "")
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = SplitResult("", "", "", "", ""), ""
    if parts.scheme not in ("https", "http") or not host or "\\" in realm:
        problem = "is no web address"
    elif "@" in parts.netloc:
        problem = "has a login in it"
    elif parts.scheme == "http" and not (place.plain and (is_loopback(parts.netloc) or host == _hostname(place.url))):
        problem = "is not https"
    if problem:
        shown = cleaned(realm.rpartition("@")[2].partition("?")[0], limit=100)
        raise RegistryError(
            f"the registry wants a token from {shown!r}, which {problem}; no login is sent there",
            where=place.host,
            hint="Tell whoever runs the registry, or check that its address is the right one.",
        )
    return parts._replace(fragment="")


def _hostname(url: str) -> str:
    return urlsplit(url).hostname or ""


def _by_refresh_token(realm: SplitResult, place: Place, service: str, scope: str, login: Login) -> tuple[int, bytes]:
    form = {
        "grant_type": "refresh_token",
        "service": service,
        "client_id": CLIENT_ID,
        "scope": scope,
        "refresh_token": login.identity_token,
    }
    body = urlencode(form).encode()
    status, _, data = place.request("POST", urlunsplit(realm), headers=_FORM, body=body)
    return status, data


def _by_password(realm: SplitResult, place: Place, service: str, scope: str, login: Login | None) -> tuple[int, bytes]:
    fields = [("service", service)] if service else []
    fields += [("scope", one) for one in scope.split()]
    query = "&".join(part for part in (realm.query, urlencode(fields)) if part)
    headers = {"Accept": "application/json"}
    if login is not None and login.basic:
        headers["Authorization"] = login.basic
    status, _, data = place.request("GET", urlunsplit(realm._replace(query=query)), headers=headers, body=None)
    return status, data


def _read(data: bytes, realm: SplitResult, place: Place) -> Token:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    value = value if isinstance(value, dict) else {}
    for name in ("token", "access_token"):
        token = value.get(name)
        if isinstance(token, str) and _TOKEN.match(token):
            return Token(token, _lifetime(value.get("expires_in")))
    raise RegistryError(f"what the server of tokens {realm.netloc} answers is no token", where=place.host)


def _lifetime(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        return DEFAULT_LIFETIME
    return float(
        min(value, LONGEST_LIFETIME)
    )  # compared before it is converted: an integer may be too long for a float
