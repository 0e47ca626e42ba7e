"""Answering what a registry wants of a login: ``Authorization`` headers, renewed when they run out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from himl_container.registry.challenges import Challenge, parse_challenges
from himl_container.registry.credentials import Credentials, LoginChain
from himl_container.registry.login import (
    DOCKER_HUB,
    Login,
    LoginRefusedError,
    Place,
    TokenRequest,
    canonical_host,
    masked,
)
from himl_container.registry.tokens import Token, TokenRefusedError, fetch_token

__all__ = ["Authenticator", "LoginRefusedError", "TokenRequest"]


@dataclass(frozen=True)
class _Held:
    """An authorization that was got for a scope.

    :param actions: what it was asked for, as pairs of a resource and an action; None for whatever the login may do.
    :param expires: on the clock of the authenticator; None when it does not.
    """

    header: str = field(repr=False)
    actions: frozenset[tuple[str, str]] | None
    login: Login | None
    expires: float | None = None


@dataclass(frozen=True)
class _Sent:
    """What a thread's last request carried.

    :param renewed: it was got because the same request had been refused before.
    """

    header: str | None = field(repr=False)
    renewed: bool = False


class Authenticator:
    """The authorization of all requests to one registry; for any number of threads at once.

    For each request the transport sends what :meth:`authorization` returns; as long as the registry answers 401, the
    same thread hands its ``WWW-Authenticate`` to :meth:`challenged` and sends the request again with what that returns;
    :meth:`challenged` raises when no login is left. For 403 it raises what :meth:`denied` returns. Only answers of the
    registry itself are handed over, never those of a server that it redirects to, and a redirected request to another
    host carries no authorization.

    A scope is written as in the token specification, ``repository:himl/train:pull,push``; several are separated by
    blanks (mounting from another repository).

    :param request: how requests for tokens are sent.
    :param registry: the registry's address with its scheme, ``https://team.azurecr.io``; https where it has none.
    :param repository: the repository that is worked with, for login files that tell repositories apart.
    :param clock: seconds that never go back.
    """

    def __init__(
        self,
        credentials: Credentials,
        request: TokenRequest,
        *,
        registry: str,
        repository: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        url = (registry if "://" in registry else f"https://{registry}").rstrip("/")
        self._place = Place(url.partition("://")[2], url, request, repository)
        self._chain = LoginChain(credentials, self._place)
        self._clock = clock
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._held: tuple[_Held, ...] = ()
        self._passed: dict[str, list[Login | None]] = {}
        self._sent = threading.local()

    def authorization(self, scope: str) -> str | None:
        """Return the header's value for a request, or None while the registry has not asked for one.

        A token that is about to run out is renewed here, so that a request is not sent in vain.

        :raises RegistryError: the token cannot be renewed.
        """
        held = self._find(scope)
        if held is None and self._challenge is not None:
            with self._lock:
                held = self._find(scope) or self._get(scope, self._challenge)
        header = held.header if held else None
        self._last()[scope] = _Sent(header)
        return header

    def challenged(self, www_authenticate: str, scope: str) -> str:
        """Return the header's value for a request that was answered with 401.

        What :meth:`authorization` gave this thread is taken as refused, unless another thread has got a newer one in
        the meantime. One thread asks for a token, the others wait for it.

        :raises LoginRefusedError: no login is accepted, or one is needed and none is known; names what was tried.
        :raises RegistryError: the server of tokens does not answer, or must not be sent a login.
        """
        sent = self._last().get(scope, _Sent(None))
        with self._lock:
            held = self._find(scope)
            if held is None or held.header == sent.header:
                challenge = self._chosen(www_authenticate)
                if held is not None:
                    self._drop(held, scope, challenge, renewed=sent.renewed)
                self._challenge = challenge
                held = self._get(scope, challenge)
        self._last()[scope] = _Sent(held.header, renewed=True)
        return held.header

    def denied(self, scope: str, reason: str = "") -> LoginRefusedError:
        """Return the error for a request that the registry does not allow, with whatever login was used.

        :param reason: what the registry says; secrets in it are removed here.
        """
        held = self._find(scope)
        return self._refusal(scope, [held.login] if held else [], self.without_secrets(reason))

    def without_secrets(self, text: str) -> str:
        """Return a text of the registry without any secret that it was sent: a server may quote a request's header."""
        headers = [held.header.partition(" ")[2] for held in self._held]
        return masked(text, [*headers, *(secret for login in self._chain.known for secret in login.secrets)])

    def _last(self) -> dict[str, _Sent]:
        if not hasattr(self._sent, "by_scope"):
            self._sent.by_scope = {}
        by_scope: dict[str, _Sent] = self._sent.by_scope
        return by_scope

    def _find(self, scope: str) -> _Held | None:
        """Return what is held and covers a scope; needs no lock, since the tuple is only ever replaced."""
        now, wanted = self._clock(), _actions(scope)
        for held in self._held:
            covers = held.actions is None or wanted <= held.actions
            if covers and (held.expires is None or now < held.expires):
                return held
        return None

    def _drop(self, held: _Held, scope: str, challenge: Challenge, *, renewed: bool) -> None:
        """Forget what was refused, and its login too where a new token of the same login would be refused as well.

        :param renewed: what was refused was got for this very request, so it cannot have run out.
        """
        self._held = tuple(other for other in self._held if other is not held)
        if challenge.scheme == "basic":
            # A password does not run out: what was accepted before gets a second chance, since a server may err once.
            if held.login is not None and renewed:
                self._chain.refuse(held.login)
        elif held.actions == _actions(scope) and (renewed or challenge["error"] == "insufficient_scope"):
            self._passed.setdefault(scope, []).append(held.login)

    def _chosen(self, www_authenticate: str) -> Challenge:
        offered = parse_challenges(www_authenticate)
        for scheme in ("bearer", "basic"):
            for challenge in offered:
                if challenge.scheme == scheme and (scheme == "basic" or challenge["realm"]):
                    return challenge
        if self._challenge is not None:
            return self._challenge  # something between us and the registry has answered in its place
        raise LoginRefusedError(
            "the registry refuses the request and names no way to log in that is known here (Bearer, Basic)",
            where=self._place.host,
        )

    def _get(self, scope: str, challenge: Challenge) -> _Held:
        """Get an authorization with the first login that is accepted. The lock is held."""
        reason = ""
        passed = self._passed.get(scope, [])
        while True:
            login = self._chain.best(passed)
            if login is None and (passed or self._chain.refused or challenge.scheme == "basic"):
                raise self._refusal(scope, [*self._chain.refused, *passed], reason)
            if challenge.scheme == "basic" and login is not None:
                if login.basic:
                    return self._hold(_Held(login.basic, None, login))
                passed = [*passed, login]
                continue
            began = self._clock()
            try:
                token = fetch_token(self._place, challenge, scope, login)
            except TokenRefusedError as refused:
                reason = refused.reason
                if login is None:
                    raise self._refusal(scope, [], reason) from None
                self._chain.refuse(login)
                continue
            if login is not None:
                self._chain.accept(login)
            return self._hold(_Held(f"Bearer {token.value}", _actions(scope), login, began + _usable(token)))

    def _hold(self, held: _Held) -> _Held:
        now = self._clock()
        valid = (other for other in self._held if other.expires is None or now < other.expires)
        self._held = (held, *(other for other in valid if other.actions != held.actions))
        return held

    def _refusal(self, scope: str, logins: list[Login | None], reason: str) -> LoginRefusedError:
        host = self._place.host
        sources = list(dict.fromkeys(login.source for login in logins if login is not None and login.source))
        access = f" for {scope!r}" if scope else ""
        said = f" ({reason})" if reason else ""
        if sources:
            what = f"the registry refuses the login of {', and that of '.join(sources)}{access}{said}"
            step = "Check its rights, or log in again"
        else:
            what = f"the registry wants a login{access}{said}, and none is known"
            step = "Log in"
        name = "" if canonical_host(host) == DOCKER_HUB else f" {host}"
        hint = (
            f"{step} with 'docker login{name}', or set HIML_CONTAINER_REGISTRY_USER and "
            "HIML_CONTAINER_REGISTRY_PASSWORD (docs/registry-login.md)."
        )
        notes = [f"{problem.what}. {problem.hint}".rstrip() for problem in self._chain.problems]
        return LoginRefusedError(what, where=host, hint="\n  ".join([hint, *dict.fromkeys(notes)]))


def _usable(token: Token) -> float:
    """Return the seconds for which a token is used: until shortly before its end, since requests take time too."""
    return token.lifetime - min(30.0, token.lifetime / 4)


def _actions(scope: str) -> frozenset[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for one in scope.split():
        resource, _, actions = one.rpartition(":")
        found.update((resource, action) for action in actions.split(","))
    return frozenset(found)
