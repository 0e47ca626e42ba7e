"""The login of the workspace's container registry, as Azure has it, and the gate before the registry itself.

Facts: "Azure Container Registry integration with Azure Active Directory" (azure.github.io/acr/AAD-OAuth.html), the
``distribution`` project's token authentication, and the OCI distribution specification's paths. The registry behind the
gate asks nobody for a login; it listens on this machine only.
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from himl_container.emulator.http import Answer, Request, json_answer
from himl_container.emulator.identity import Kind
from himl_container.emulator.installation import Installation
from himl_container.emulator.routes import Route
from himl_container.emulator.state.registry_account import RegistryAccount
from himl_container.emulator.tokens import ARM_AUDIENCES, BadToken, Tokens

REGISTRY_AUDIENCES = ARM_AUDIENCES | {"https://containerregistry.azure.net"}
"""For whom a token of Microsoft Entra ID must be meant that the registry exchanges."""

NOBODY = "00000000-0000-0000-0000-000000000000"
"""The user's name that goes with a refresh token, where a client knows names and passwords only."""

REFRESH_SECONDS = 3 * 3600
"""For which a refresh token is valid (docs of ``az acr login --expose-token``)."""

ACCESS_SECONDS = 75 * 60
"""For which an access token is valid; what Azure's own tokens say."""

_ACTIONS = ("pull", "push", "delete", "metadata_read", "metadata_write")
_MOST_SCOPES = 50
_TEST = "tests/emulator/test_registry_credentials.py::"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_DIGEST = r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_PATHS = tuple(
    re.compile(rf"/v2/(?P<name>{_REPOSITORY})/{end}")
    for end in (
        r"tags/list",
        rf"manifests/(?:{_TAG}|{_DIGEST})",
        rf"referrers/{_DIGEST}",
        r"blobs/uploads/?",
        r"(?P<upload>blobs/uploads/[A-Za-z0-9_=-]+)",
        rf"blobs/{_DIGEST}",
    )
)
_NAME = re.compile(_REPOSITORY)
_SCOPE = re.compile(r"(?P<kind>[a-z]+):(?P<name>[^:\s][^\s]*):(?P<actions>[a-z_*]+(?:,[a-z_*]+)*)")


@dataclass(frozen=True)
class Need:
    """What a request needs: actions on a resource (``repository``, ``registry``)."""

    kind: str
    name: str
    actions: tuple[str, ...]

    @property
    def scope(self) -> str:
        """As a scope of a token."""
        return f"{self.kind}:{self.name}:{','.join(self.actions)}"


class RegistryLogin:
    """Gives tokens for the registry, and looks at those of every request to it.

    :param longest: seconds for which no token is valid for longer.
    """

    def __init__(
        self,
        installation: Installation,
        tokens: Tokens,
        account: RegistryAccount,
        clock: Callable[[], float],
        longest: float = REFRESH_SECONDS,
    ) -> None:
        self._host, self._tenant = installation.workspace.registry_host, installation.workspace.tenant_id
        self._tokens, self._account, self._clock, self._longest = tokens, account, clock, longest

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers; requests for images themselves pass :meth:`gate`."""
        return (
            _route("POST", "/oauth2/exchange", self._exchange, "Registry.Exchange", "test_exchange"),
            _route("POST", "/oauth2/token", self._token_by_form, "Registry.Token", "test_tokens_by_form"),
            _route("GET", "/oauth2/token", self._token_by_header, "Registry.TokenGet", "test_tokens_by_header"),
        )

    # --- the gate ---

    def gate(self, request: Request) -> Answer | None:
        """Let a request for the registry pass (None), or answer it.

        Only paths of the OCI distribution specification pass, so that the registry never sees one that it could read
        in another way than it was checked.
        """
        needs = needs_of(request)
        if needs is None:
            return _refuse(404, "NAME_UNKNOWN", "repository name not known to registry")
        granted = self._granted(request.headers.get("authorization", ""))
        if granted is None:
            return self._challenge(needs, "invalid_token" if request.headers.get("authorization") else "")
        if all(_covers(granted, need) for need in needs):
            return None
        # Somebody who may do nothing more gets the same challenge; it is the server of tokens that refuses him.
        return self._challenge(needs, "insufficient_scope")

    def _challenge(self, needs: Sequence[Need], error: str) -> Answer:
        challenge = f'Bearer realm="https://{self._host}/oauth2/token",service="{self._host}"'
        if needs:
            challenge += f',scope="{" ".join(need.scope for need in needs)}"'
        if error:
            challenge += f',error="{error}"'
        detail = [{"Type": need.kind, "Name": need.name, "Action": action} for need in needs for action in need.actions]
        text = "authentication required, visit https://aka.ms/acr/authorization for more information."
        return _refuse(401, "UNAUTHORIZED", text, detail or None, {"www-authenticate": challenge})

    def _granted(self, header: str) -> tuple[Need, ...] | None:
        """Return what a request's authorization allows; None where it is none that counts."""
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "basic":
            user, password = _basic(value)
            return (_EVERYTHING,) if self._opened(user, password) else None
        if scheme.lower() != "bearer":
            return None
        claims = self._own_claims(value.strip(), "access_token")
        access = claims.get("access") if claims else None
        if not isinstance(access, list):
            return None
        return tuple(Need(item["type"], item["name"], tuple(item["actions"])) for item in access)

    # --- tokens ---

    def _exchange(self, request: Request) -> Answer:
        form = _form(request.body)
        if form.get("grant_type") not in ("access_token", "access_token_refresh_token"):
            return _refuse(400, "UNSUPPORTED", "grant_type is access_token here: a service principal has no other.")
        if form.get("service", "").lower() != self._host:
            return _refuse(400, "INVALID", f"the service is {self._host}")
        if form.get("tenant", self._tenant).lower() != self._tenant:
            return self._unauthorized("the tenant is another one")
        try:
            identity = self._tokens.identity(form.get("access_token", ""), REGISTRY_AUDIENCES)
        except BadToken as wrong:
            return self._unauthorized(wrong.message)
        if identity.kind is not Kind.USER:
            return self._unauthorized("a job has no role in the registry")
        return json_answer({"refresh_token": self._refresh_token(identity.name)})

    def _token_by_form(self, request: Request) -> Answer:
        form = _form(request.body)
        kind = form.get("grant_type")
        if kind == "refresh_token":
            claims = self._own_claims(form.get("refresh_token", ""), "refresh_token")
            user = str(claims.get("sub", "")) if claims else ""
        elif kind == "password":
            user = self._user(form.get("username", ""), form.get("password", ""))
        else:
            return _refuse(400, "UNSUPPORTED", "grant_type is refresh_token or password.")
        scopes = urllib.parse.parse_qs(request.body.decode("utf-8", "replace")).get("scope", [])
        offline = form.get("access_type") == "offline"
        return self._give(user, form.get("service", ""), scopes, offline=offline)

    def _token_by_header(self, request: Request) -> Answer:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        user = self._user(*_basic(value)) if scheme.lower() == "basic" else ""
        offline = request.first("offline_token").lower() == "true"
        return self._give(user, request.first("service"), request.query.get("scope", ()), offline=offline)

    def _give(self, user: str, service: str, scopes: Sequence[str], *, offline: bool) -> Answer:
        """Return a token; ``user`` is empty for somebody who did not log in."""
        if service.lower() != self._host:
            return _refuse(400, "INVALID", f"the service is {self._host}")
        asked = [one for scope in scopes for one in scope.split()]
        found = [_SCOPE.fullmatch(scope) for scope in asked]
        if len(asked) > _MOST_SCOPES or not all(found):
            return _refuse(400, "INVALID", "a scope is written as repository:NAME:pull,push")
        if not user:
            return self._unauthorized("the login is not accepted")
        access = [
            {"type": need.kind, "name": need.name, "actions": list(need.actions)}
            for need in (_allowed(one) for one in found if one is not None)
            if need.actions
        ]
        claims = {"sub": user, "grant_type": "access_token", "access": access, "tid": self._tenant}
        token, _ = self._tokens.sign({**claims, "aud": self._host}, min(ACCESS_SECONDS, self._longest))
        answer = {"access_token": token}
        if offline:
            # Docker's client keeps it in place of the password (the specification's ``offline_token``).
            answer["refresh_token"] = self._refresh_token(user)
        return json_answer(answer)

    def _refresh_token(self, user: str) -> str:
        claims = {"sub": user, "grant_type": "refresh_token", "tid": self._tenant, "aud": self._host}
        return self._tokens.sign(claims, min(REFRESH_SECONDS, self._longest))[0]

    def _user(self, username: str, password: str) -> str:
        """Return whose login it is; empty where it is nobody's."""
        return username if self._opened(username, password) else ""

    def _opened(self, username: str, password: str) -> bool:
        if username == NOBODY:
            return self._own_claims(password, "refresh_token") is not None
        return self._account.opens(username, password)

    def _own_claims(self, token: str, kind: str) -> Mapping[str, Any] | None:
        """Return what a token of this registry says; None for any other token."""
        try:
            claims = self._tokens.claims(token)
        except BadToken:
            return None
        return claims if claims.get("aud") == self._host and claims.get("grant_type") == kind else None

    def _unauthorized(self, why: str) -> Answer:
        return _refuse(401, "UNAUTHORIZED", f"authentication required: {why}")


_EVERYTHING = Need("*", "*", ("*",))


def needs_of(request: Request) -> tuple[Need, ...] | None:
    """Return what a request to the registry needs; None for a path that no registry has.

    Reading needs ``pull``, writing ``pull`` and ``push``; a layer that is taken over from another repository needs
    ``pull`` there.
    """
    if request.path in ("/v2", "/v2/"):
        return ()
    if request.path == "/v2/_catalog":
        return (Need("registry", "catalog", ("*",)),)
    found = next((match for pattern in _PATHS if (match := pattern.fullmatch(request.path))), None)
    if found is None:
        return None
    name, upload = found["name"], found.groupdict().get("upload")
    if request.method in ("GET", "HEAD"):
        return (Need("repository", name, ("pull", "push") if upload else ("pull",)),)
    if request.method == "DELETE" and not upload:
        return (Need("repository", name, ("delete",)),)
    needs: tuple[Need, ...] = (Need("repository", name, ("pull", "push")),)
    origin = request.first("from")
    if origin and origin != name and _NAME.fullmatch(origin):
        needs += (Need("repository", origin, ("pull",)),)
    return needs


def _allowed(scope: re.Match[str]) -> Need:
    """Return what of a scope anybody who is logged in may do: everything there is."""
    kind, actions = scope["kind"], scope["actions"].split(",")
    known = {"repository": _ACTIONS, "registry": ("*",)}.get(kind, ())
    wanted = _ACTIONS if "*" in actions and kind == "repository" else tuple(dict.fromkeys(actions))
    return Need(kind, scope["name"], tuple(action for action in wanted if action in known))


def _covers(granted: Sequence[Need], need: Need) -> bool:
    held = {
        action
        for one in granted
        if one.kind in (need.kind, "*") and one.name in (need.name, "*")
        for action in one.actions
    }
    return "*" in held or held.issuperset(need.actions)


def _basic(value: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password


def _form(body: bytes) -> dict[str, str]:
    try:
        found = urllib.parse.parse_qs(body.decode(), max_num_fields=100)
    except (UnicodeDecodeError, ValueError):
        return {}
    return {name: values[0] for name, values in found.items()}


def _refuse(
    status: int, code: str, message: str, detail: Any = None, headers: Mapping[str, str] | None = None
) -> Answer:
    document = {"errors": [{"code": code, "message": message, "detail": detail}]}
    return json_answer(document, status, {"docker-distribution-api-version": "registry/2.0", **(headers or {})})


def _route(method: str, path: str, handler: Callable[[Request], Answer], operation: str, test: str) -> Route:
    return Route(method, path, handler, operation, _TEST + test, host="registry", public=True)
