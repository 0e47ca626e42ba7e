"""The emulator as an ASGI application: from a connection's bytes to :class:`Request`, and from :class:`Answer` back."""

from __future__ import annotations

import functools
import logging
import re
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import anyio.to_thread
from starlette.concurrency import iterate_in_threadpool
from starlette.types import Message, Receive, Scope, Send

from himl_container.emulator.app import Application
from himl_container.emulator.forward import Forwarder
from himl_container.emulator.hosts import AUDIENCES, Hosts, Service
from himl_container.emulator.http import Answer, Refusal, Request, json_answer
from himl_container.emulator.identity import NOBODY, Identity, Kind
from himl_container.emulator.names import AAD_HOST
from himl_container.emulator.routes import Found, Host
from himl_container.emulator.services.arm import check_names
from himl_container.emulator.tokens import BadToken

Result = TypeVar("Result")

LARGEST_BODY = 32 * 2**20
"""Bytes that a request may have, where it is not a stream for the blob storage or the registry."""

_DRAINED = 512 * 2**20
_LONGEST_PATH = 8192
_NO_PATH = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{8,}|(?<=/)\d+(?=/|$)", re.IGNORECASE)
_WORKSPACE = re.compile(r"subscriptions/[^/]+/resourceGroups/[^/]+/providers/[^/]+/workspaces/[^/]+", re.IGNORECASE)
_AFTER_ID = re.compile(r"/(runs|experiments|experimentids|artifacts/ExperimentRun|versions|secrets)/[^/]+", re.I)

log = logging.getLogger("himl_container.emulator")


class Gone(Exception):  # noqa: N818  # the client's decision, not an error
    """The client closed the connection before its request was whole."""


class EmulatorApp:
    """Answers requests with the services, the blob storage or the registry, by the host that was asked.

    :param threads: how many requests may be in services at the same time; some wait there for a run to end.
    """

    def __init__(self, application: Application, hosts: Hosts, blobs: Forwarder, registry: Forwarder) -> None:
        self._application, self._hosts = application, hosts
        self._blobs, self._registry = blobs, registry
        self._threads = anyio.CapacityLimiter(64)
        self._not_imitated: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (asgi.readthedocs.io/en/latest/specs/www.html)."""
        if scope["type"] != "http":
            # A web socket; there is none in what is imitated.
            await send({"type": "websocket.close", "code": 1000})
            return
        try:
            await self._answer(scope, receive, send)
        except Gone:
            log.debug("a client went away")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = _request(scope)
            kind = self._kind(scope, request)
            if kind == "blob":
                await self._blobs.pass_on(scope, receive, send)
                return
            if kind == "registry" and not request.path.startswith("/oauth2/"):
                gate = self._application.registry_gate
                passed = await self._in_thread(functools.partial(gate, request))
                if passed is None:
                    await self._registry.pass_on(scope, receive, send)
                    return
                answer = passed
            else:
                body = await _body(request, receive)
                answer = await self._serve(kind, replace(request, body=body))
        except Refusal as refusal:
            answer = refusal.answer()
            if refusal.status == 413:
                # What has not been read of the body cannot be skipped.
                answer = replace(answer, headers={**answer.headers, "connection": "close"})
        await self._send(answer, scope["method"] == "HEAD", send)

    def _kind(self, scope: Scope, request: Request) -> Service:
        if scope["scheme"] == "http":
            # Without TLS only the page answers, and only under the address of this machine: a page of some web site
            # whose name was made to lead here (DNS rebinding) must not read it.
            if request.host not in self._hosts.local:
                raise Refusal(403, "Forbidden", "This address is asked for by https, through the emulator's proxy.")
            return "studio"
        kind = self._hosts.kind(request.host)
        if kind is None:
            raise Refusal(404, "NotFound", f"The emulator does not answer for {request.host}.")
        return kind

    async def _serve(self, kind: Host, request: Request) -> Answer:
        try:
            found = self._application.router.find(kind, request)
        except Refusal as refusal:
            if kind not in {"studio", "telemetry"}:
                # A stranger does not learn which operations there are.
                self._identify(kind, request)
                self._note(refusal, kind, request)
            raise
        if not found.route.public:
            identity = self._identify(kind, found.request)
            if identity.kind is Kind.JOB and kind == "arm" and request.method != "GET":
                raise Refusal(403, "AuthorizationFailed", "A job's token is not valid for changes of resources.")
            found = Found(found.route, replace(found.request, identity=identity))
        # The login answers for a tenant, and says itself what it does not know.
        if kind != "aad":
            check_names(self._application.installation, found.request.params)
        return await self._in_thread(functools.partial(_handle, found))

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        return await anyio.to_thread.run_sync(call, limiter=self._threads)

    def _identify(self, kind: Host, request: Request) -> Identity:
        if kind == "aad":
            return NOBODY
        tenant = self._application.installation.workspace.tenant_id
        challenge = f'Bearer authorization_uri="https://{AAD_HOST}/{tenant}"'
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            text = "Authentication failed. The 'Authorization' header is missing."
            raise Refusal(401, "AuthenticationFailed", text, headers={"www-authenticate": challenge})
        try:
            return self._application.tokens.identity(token.strip(), AUDIENCES.get(kind, frozenset()))
        except BadToken as wrong:
            challenge += f', error="invalid_token", error_description="{wrong.message}"'
            raise Refusal(401, wrong.code, wrong.message, headers={"www-authenticate": challenge}) from None

    def _note(self, refusal: Refusal, kind: Host, request: Request) -> None:
        """Log an operation that does not exist here, once, without names of the user's."""
        path = _AFTER_ID.sub(r"/\1/{id}", _IDS.sub("{id}", _WORKSPACE.sub("{ws}", request.path)))
        line = f"not imitated: {request.method} {kind} {path[:200]}"
        if line not in self._not_imitated and len(self._not_imitated) < 10_000:
            self._not_imitated.add(line)
            log.warning("%s (%d)", line, refusal.status)

    @staticmethod
    async def _send(answer: Answer, head_only: bool, send: Send) -> None:
        headers = [(name.lower().encode("latin-1"), _header_value(value)) for name, value in answer.headers.items()]
        start: Message = {"type": "http.response.start", "status": answer.status, "headers": headers}
        body = answer.body
        if isinstance(body, bytes):
            if answer.status != 204:
                headers.append((b"content-length", str(len(body)).encode()))
            await send(start)
            await send({"type": "http.response.body", "body": b"" if head_only else body})
            return
        await send(start)
        if not head_only:
            chunks: Iterator[bytes] = body
            async for chunk in iterate_in_threadpool(chunks):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _handle(found: Found) -> Answer:
    """Call a handler; what it did not expect becomes Azure's answer to a fault of its own."""
    try:
        return found.route.handler(found.request)
    except Refusal as refusal:
        return refusal.answer()
    except Exception:
        correlation = str(uuid.uuid4())
        log.exception("%s failed (%s)", found.route.operation, correlation)
        message = f"An internal error of the emulator; its log has the details under {correlation}."
        error = {"code": "InternalServerError", "message": message}
        return json_answer({"error": error, "correlation": {"operation": correlation}, "statusCode": 500}, 500)


def _request(scope: Scope) -> Request:
    """Return what was asked, without a body.

    :raises Refusal: 400 or 414, the path cannot be one.
    """
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    path: str = scope["path"]
    if len(path) > _LONGEST_PATH:
        raise Refusal(414, "UriTooLong", "The address is too long.")
    if not path.startswith("/") or _NO_PATH.search(path):
        raise Refusal(400, "BadArgument", "The path has a character that no path has.")
    try:
        query = urllib.parse.parse_qs(scope["query_string"].decode("latin-1"), True, max_num_fields=1000)
    except ValueError:
        raise Refusal(400, "BadArgument", "The query has too many fields.") from None
    host = headers.get("host", "").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    values = {key: tuple(found) for key, found in query.items()}
    return Request(scope["method"], name, path, values, headers)


async def _body(request: Request, receive: Receive) -> bytes:
    """Return the body.

    :raises Refusal: 413, it is larger than :data:`LARGEST_BODY`.
    """
    length = request.headers.get("content-length", "")
    too_large = length.isdigit() and int(length) > LARGEST_BODY
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        size += len(part)
        too_large = too_large or size > LARGEST_BODY
        if too_large:
            # A client that is still sending does not hear an answer; so some more is taken, and thrown away.
            parts.clear()
        else:
            parts.append(part)
        if not message.get("more_body") or size > _DRAINED:
            break
    if too_large:
        raise Refusal(413, "RequestEntityTooLarge", f"A request has at most {LARGEST_BODY} bytes.")
    return b"".join(parts)


def _header_value(value: str) -> bytes:
    # A line break would begin a header of its own.
    return re.sub(r"[\r\n\0]", " ", value).encode("latin-1", "replace")
