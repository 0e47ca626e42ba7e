"""Requests to one registry: its scheme, the login, redirects, tries, and errors in words that a user can act on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from himl_container.errors import RegistryError
from himl_container.registry.answers import ANSWER_LIMIT, Answer, Body, Request, Stream, drained
from himl_container.registry.headers import error_text, location, origin, readable
from himl_container.registry.pools import Pools
from himl_container.registry.refusals import connection_text, hung_up, refusal, untrusted
from himl_container.registry.retries import RETRIED, Failure, Patience, RetryableError

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOPS = 5
_LOGINS = 10
_TOKEN_LIMIT = 1 << 20


class Authorizer(Protocol):
    """What :class:`himl_container.registry.auth.Authenticator` does for a transport."""

    def authorization(self, scope: str) -> str | None:
        """Return the header that is known for a scope; None when nothing is known yet."""

    def challenged(self, www_authenticate: str, scope: str) -> str:
        """Return a new header after a 401, or raise RegistryError when the login is refused."""

    def denied(self, scope: str, reason: str = "") -> RegistryError:
        """Return the error for a request that is not allowed with any login."""

    def without_secrets(self, text: str) -> str:
        """Return a text of the registry without any secret that it was sent."""


class Transport:
    """Sends requests to one registry. Safe to use from several threads.

    :param endpoint: host and port.
    :param loopback: whether plain http may be spoken.
    :param authorizer: makes, at the first 401, what answers it; is given this transport. Without it, a 401 is an error.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        loopback: bool,
        pools: Pools,
        patience: Patience,
        authorizer: Callable[[Transport], Authorizer] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.patience = patience
        self.pools = pools
        self._scheme = None if loopback else "https"
        self._new_authorizer = authorizer
        self._authorizer: Authorizer | None = None
        self._deciding = threading.Lock()

    def request(self, request: Request) -> Answer:
        """Send a request that may be sent again, as often as patience allows, and return the answer.

        :raises RegistryError: no answer after all tries, or one that was not expected.
        """
        return self.patience.tried(request.what, self.endpoint, partial(self.once, request))

    def token_request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request about a login, wherever its server is, and return status, headers and body of any answer.

        Redirects are not followed, because headers and body hold credentials.

        :raises RegistryError: no answer after all tries.
        """
        what = f"Login at {readable(url)}"

        def once() -> tuple[int, Mapping[str, str], bytes]:
            stream = self._send_to(url, method, headers, body)
            try:
                data = stream.read(_TOKEN_LIMIT)
            finally:
                stream.close()
            if stream.status in RETRIED:
                raise refusal(stream.status, stream.headers, b"", what=what, where="", now=self.patience.clock())
            return stream.status, stream.headers, data

        return self.patience.tried(what, self.endpoint, once)

    @property
    def url(self) -> str:
        """``https://<endpoint>``, or http for a registry on this machine that speaks no TLS."""
        return f"{self._scheme or 'http'}://{self.endpoint}"

    def once(self, request: Request) -> Answer:
        """Send a request once; as :meth:`request` otherwise.

        :raises RetryableError: another try may help; whether the registry acted upon the request is not known.
        """
        with self.open(request) as stream:
            data = b"" if request.method == "HEAD" else stream.read(request.limit)
            return Answer(stream.status, stream.headers, data, stream.url)

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        """Send a request once and give the answer with its body still to be read; as :meth:`once` otherwise."""
        self.patience.check()
        stream = self._with_login(request)
        try:
            if stream.status not in request.expect:
                raise self._error(request, stream)
            yield stream
        finally:
            stream.close()

    def _error(self, request: Request, stream: Stream) -> RegistryError | RetryableError:
        """Return the error for an answer that was not expected."""
        data = b"" if request.method == "HEAD" else self._harmless(stream.read(ANSWER_LIMIT))
        if request.scope and self._authorizer is not None and stream.status == 403 and self._is_registry(stream.url):
            return self._authorizer.denied(request.scope, error_text(data))
        now = self.patience.clock()
        return refusal(stream.status, stream.headers, data, what=request.what, where=self.endpoint, now=now)

    def _with_login(self, request: Request) -> Stream:
        scope = request.scope
        known = self._authorizer.authorization(scope) if scope and self._authorizer is not None else None
        stream = self._follow(request, known)
        for _ in range(_LOGINS):
            authorizer = self._authorizer_of(stream, scope)
            if authorizer is None:
                return stream
            drained(stream)
            # Raises when no login is left.
            renewed = authorizer.challenged(stream.headers.get("WWW-Authenticate", ""), scope)
            stream = self._follow(request, renewed)
        return stream

    def _authorizer_of(self, stream: Stream, scope: str) -> Authorizer | None:
        """Return what answers a 401 of the registry itself; None for every other answer."""
        if stream.status != 401 or not scope or self._new_authorizer is None or not self._is_registry(stream.url):
            return None
        with self._deciding:
            if self._authorizer is None:
                self._authorizer = self._new_authorizer(self)
            return self._authorizer

    def _follow(self, request: Request, login: str | None) -> Stream:
        """Send one request and follow redirects of reads; the login goes to the registry itself only."""
        target = request.target
        for _ in range(_HOPS):
            mine = {"Authorization": login} if login and self._is_registry(target) else {}
            stream = self._send(request.method, target, {**request.headers, **mine}, request.body)
            if stream.status not in _REDIRECTS or request.method not in ("GET", "HEAD"):
                return stream
            drained(stream)
            target = location(stream.headers.get("Location"), stream.url, elsewhere=True)
        raise RegistryError(f"The registry redirects more than {_HOPS} times", where=readable(target))

    def _harmless(self, data: bytes) -> bytes:
        """Return the body of an error without the login, which a server may quote from the request."""
        if self._authorizer is None:
            return data
        return self._authorizer.without_secrets(data.decode(errors="replace")).encode()

    def _is_registry(self, target: str) -> bool:
        return target.startswith("/") or origin(target) == origin(self.url)

    def _send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | Body | None) -> Stream:
        if not target.startswith("/"):
            return self._send_to(target, method, headers, body)
        if self._scheme is None:
            with self._deciding:
                if self._scheme is None:
                    return self._first(method, target, headers, body)
        return self._send_to(f"{self._scheme}://{self.endpoint}{target}", method, headers, body)

    def _first(self, method: str, path: str, headers: Mapping[str, str], body: bytes | Body | None) -> Stream:
        """Find out whether a registry on this machine speaks http or https, with the first request itself.

        Servers answer plain http on a TLS port with 400 or hang up; only then https is tried. So a registry without TLS
        costs nothing, one with TLS a single request.
        """
        plain, secure = (f"{scheme}://{self.endpoint}{path}" for scheme in ("http", "https"))
        stream, failed = None, None
        try:
            stream = self._send_to(plain, method, headers, body)
        except RetryableError as error:
            if not hung_up(error.__cause__):
                raise
            failed = error
        if stream is None or stream.status == 400:
            try:
                secured = self._send_to(secure, method, headers, body)
            except RegistryError:
                self._scheme = "https"  # its certificate is not trusted, so it does speak TLS
                raise
            except RetryableError:
                if failed is not None:
                    raise failed from None
            else:
                self._scheme = "https"
                if stream is not None:
                    stream.close()
                return secured
        self._scheme = "http"
        assert stream is not None
        return stream

    def _send_to(self, url: str, method: str, headers: Mapping[str, str], body: bytes | Body | None) -> Stream:
        import urllib3

        content: bytes | Iterable[bytes] | None = body if isinstance(body, bytes) else None
        if isinstance(body, Body):
            content = body.pieces()
            headers = {**headers, "Content-Length": str(body.length)}
        elif body is None and method in ("POST", "PUT", "PATCH"):
            headers = {**headers, "Content-Length": "0"}
        try:
            return Stream(self.pools.send(method, url, headers, content), url)
        except urllib3.exceptions.HTTPError as error:
            untrusted(error, url)
            raise RetryableError(Failure(connection_text(error))) from error
