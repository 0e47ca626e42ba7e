"""A server of tokens for tests: what a registry with token authentication asks for (``distribution``, ``auth: token``).

It signs with a key of its own, so a real ``docker-registry`` takes its tokens and no others. It speaks both ways of
asking (GET with a password, POST with a refresh token), and those of Azure Container Registry: ``/oauth2/exchange``
takes a token of an Azure identity. With ``upstream`` it stands in front of the registry, as Azure's login server does.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.client
import http.server
import json
import math
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from registry_server import TokenService

LEEWAY = 60
"""Seconds after its end for which ``distribution`` 2.8 still takes a token (``token.Leeway``)."""


@dataclass
class Asked:
    """One request for a token.

    :param user: who asked; empty for nobody in particular.
    :param way: ``get``, ``post`` or ``exchange``.
    """

    way: str
    user: str
    scope: str
    status: int
    tenant: str = ""


@dataclass
class TokenServer:
    """A running server of tokens; what it does can be changed while it runs.

    :param users: passwords by user.
    :param identities: users by the token of their Azure identity.
    :param rights: what a user may do at most; whoever is missing may do all.
    :param public: what may be done without any login; None refuses it.
    :param lifetime: seconds for which the registry takes a token at least (it counts whole ones).
    :param announced: seconds that the answer says instead; nothing for none.
    :param get_only: answer POST with 404, as servers without OAuth 2 do.
    :param echo: quote the login in the error.
    :param upstream: the address of the registry that it stands in front of.
    :param administrator: the user and password that the Azure resource manager gives, which it is as well then.
    """

    url: str
    service: TokenService
    users: dict[str, str]
    identities: dict[str, str]
    rights: dict[str, set[str]] = field(default_factory=dict)
    public: set[str] | None = None
    lifetime: float = 300
    announced: float | None = 300
    get_only: bool = False
    echo: bool = False
    asked: list[Asked] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    upstream: str = ""
    administrator: tuple[str, str] | None = None
    _key: Any = None
    _certificate: str = ""

    @property
    def host(self) -> str:
        """Its address, ``127.0.0.1:40002``."""
        return self.url.partition("://")[2]

    def given(self, user: str) -> int:
        """Return how many tokens a user has got."""
        return sum(one.user == user and one.status == 200 and one.way != "exchange" for one in self.asked)

    def refresh_token(self, user: str) -> str:
        """Return a new refresh token, as ``docker login`` would have kept it."""
        token = f"refresh-{secrets.token_hex(16)}"
        self.refresh_tokens[token] = user
        return token

    def token(self, user: str, scope: str) -> str:
        """Return a signed token with what the user may do of a scope."""
        import jwt

        allowed = (self.public or set()) if not user else self.rights.get(user, {"pull", "push", "delete"})
        access = []
        for one in scope.split():
            kind, _, rest = one.partition(":")
            name, _, actions = rest.rpartition(":")
            granted = [action for action in actions.split(",") if action in allowed]
            if granted:
                access.append({"type": kind, "name": name, "actions": granted})
        now = time.time()
        claims = {
            "iss": self.service.issuer,
            "sub": user,
            "aud": self.service.service,
            "nbf": int(now) - 2 * LEEWAY,
            "iat": int(now) - 2 * LEEWAY,
            "exp": math.ceil(now + self.lifetime) - LEEWAY,  # whole seconds; rounded down, one may be refused at once
            "jti": secrets.token_hex(8),
            "access": access,
        }
        self.issued.append(jwt.encode(claims, self._key, algorithm="ES256", headers={"x5c": [self._certificate]}))
        return self.issued[-1]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: TokenServer

    def log_message(self, *arguments: object) -> None:
        """Be silent."""

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        if target.path.startswith("/v2/"):
            return self._pass_on()
        if target.path.startswith("/subscriptions/"):
            return self._manage()
        fields = {key: " ".join(values) for key, values in parse_qs(target.query).items()}
        user, password = self._basic()
        if not user:
            status = 200 if self.state.public is not None else 401
        else:
            status = 200 if self.state.users.get(user) == password else 401
        return self._answer("get", user, fields.get("scope", ""), status)

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/v2/"):
            return self._pass_on()
        if path.startswith("/subscriptions/"):
            return self._manage()
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        if self.state.get_only:
            return self._send(404, {})
        if path == "/oauth2/exchange":
            return self._exchange(form)
        user = self.state.refresh_tokens.get(form.get("refresh_token", ""), "")
        right = form.get("grant_type") == "refresh_token" and form.get("service") == self.state.service.service
        return self._answer("post", user, form.get("scope", ""), 200 if user and right else 401)

    def do_HEAD(self) -> None:
        self._pass_on()

    def do_PUT(self) -> None:
        self._pass_on()

    def do_PATCH(self) -> None:
        self._pass_on()

    def do_DELETE(self) -> None:
        self._pass_on()

    def _basic(self) -> tuple[str, str]:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(value).decode().partition(":") if kind == "Basic" else ("", "", "")
        return user, password

    def _exchange(self, form: Mapping[str, str]) -> None:
        user = self.state.identities.get(form.get("access_token", ""), "")
        right = form.get("grant_type") == "access_token" and form.get("service") == self.state.host
        status = 200 if user and right else 401
        self.state.asked.append(Asked("exchange", user, "", status, form.get("tenant", "")))
        if status == 200:
            return self._send(200, {"refresh_token": self.state.refresh_token(user)})
        return self._refuse(form.get("access_token", ""))

    def _manage(self) -> None:
        """Answer as the Azure resource manager: the workspace's registry, and its administrator's login."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        identity = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if identity not in self.state.identities or self.state.administrator is None:
            return self._send(403, {"error": {"code": "AuthorizationFailed", "message": "no right"}})
        if self.command == "GET":
            name = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/team"
            return self._send(200, {"properties": {"containerRegistry": name}})
        user, password = self.state.administrator
        return self._send(200, {"username": user, "passwords": [{"name": "password", "value": password}]})

    def _answer(self, way: str, user: str, scope: str, status: int) -> None:
        self.state.asked.append(Asked(way, user, scope, status))
        if status != 200:
            return self._refuse(self.headers.get("Authorization", ""))
        value: dict[str, object] = {"access_token": self.state.token(user, scope)}
        if self.state.announced is not None:
            value["expires_in"] = self.state.announced
        return self._send(200, value)

    def _refuse(self, login: str) -> None:
        message = f"authentication required {login if self.state.echo else ''}".strip()
        self._send(401, {"errors": [{"code": "UNAUTHORIZED", "message": message}]})

    def _send(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _pass_on(self) -> None:
        """Hand a request to the registry and its answer back; the host stays the same, so that addresses do."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))) or None
        connection = http.client.HTTPConnection(self.state.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            kept = [(key, value) for key, value in answer.getheaders() if key.lower() not in _OF_THE_CONNECTION]
            for key, value in kept:
                self.send_header(key, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(data)))
            elif answer.getheader("Content-Length"):
                self.send_header("Content-Length", str(answer.getheader("Content-Length")))
            self.end_headers()
            self.wfile.write(data)
        finally:
            connection.close()


_OF_THE_CONNECTION = ("content-length", "transfer-encoding", "connection", "date", "server")


@contextlib.contextmanager
def token_server(
    folder: Path,
    *,
    users: Mapping[str, str] | None = None,
    identities: Mapping[str, str] | None = None,
    lifetime: float = 300,
    announced: float | None = 300,
) -> Iterator[TokenServer]:
    """Run a server of tokens; its ``service`` is what :func:`registry_server.registry` takes as ``token``.

    :param folder: for the certificate; made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate, bundle = _certificate(folder)
    handler = type("Handler", (_Handler,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        host = f"127.0.0.1:{server.server_port}"
        # As Azure does: the service is the address itself.
        service = TokenService(f"http://{host}/oauth2/token", host, "tokens of a test", bundle)
        state = TokenServer(
            f"http://{host}",
            service,
            dict(users or {}),
            dict(identities or {}),
            lifetime=lifetime,
            announced=announced,
            _key=key,
            _certificate=certificate,
        )
        handler.state = state  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def _certificate(folder: Path) -> tuple[Any, str, Path]:
    """Make the key that tokens are signed with, and its certificate, for the registry's configuration."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens of a test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    bundle = folder / "tokens.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    coded = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    return key, coded, bundle
