"""Requests that are passed on as they are, in both directions as streams: to the blob storage and the registry."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
from starlette.types import Receive, Scope, Send

log = logging.getLogger("himl_container.emulator")

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
"""Headers of one connection, not of the message (RFC 9110, section 7.6.1)."""


class Forwarder:
    """Passes requests on to one server on this machine, with the ``Host`` that the client asked for.

    The path is sent byte for byte as it came, and the query too, but for :func:`encoded_values`: signatures of Azure's
    storage are over the address.

    :param address: ``http://127.0.0.1:PORT``.
    :param login: user and password of the server, sent in the place of what the client sent; None leaves that as it is.
    """

    def __init__(self, address: str, login: tuple[str, str] | None = None) -> None:
        self._address = address
        self._authorization = b"" if login is None else b"Basic " + base64.b64encode(":".join(login).encode())
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=32, keepalive_expiry=4)
        # A long upload may pause for as long as its client likes; a connection to this machine may not.
        timeout = httpx.Timeout(None, connect=10)
        self._client = httpx.AsyncClient(trust_env=False, limits=limits, timeout=timeout, follow_redirects=False)

    async def pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with what the server answers; with 503 where it does not."""
        headers = [item for item in scope["headers"] if item[0] not in _HOP_BY_HOP]
        if self._authorization:
            headers = [item for item in headers if item[0] != b"authorization"]
            headers.append((b"authorization", self._authorization))
        chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
        if chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        has_body = chunked or any(name == b"content-length" and value != b"0" for name, value in headers)
        target = scope["raw_path"] + (b"?" + encoded_values(scope["query_string"]) if scope["query_string"] else b"")
        request = httpx.Request(
            scope["method"],
            self._address,
            headers=headers,
            stream=_Upload(receive) if has_body else httpx.ByteStream(b""),
            extensions={"target": target},
        )
        started = False
        try:
            response = await self._client.send(request, stream=True)
            try:
                head = [item for item in response.headers.raw if item[0].lower() not in _HOP_BY_HOP]
                await send({"type": "http.response.start", "status": response.status_code, "headers": head})
                started = True
                async for chunk in response.aiter_raw():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            log.warning("%s does not answer: %s", self._address, type(error).__name__)
            if started:
                # A body that ends too early can only be told by the end of the connection.
                raise
            await self._busy(send)
            return
        await send({"type": "http.response.body", "body": b""})

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @staticmethod
    async def _busy(send: Send) -> None:
        headers = [(b"content-length", b"0"), (b"x-ms-error-code", b"ServerBusy"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def encoded_values(query: bytes) -> bytes:
    """Return a query whose values have no bare ``=``.

    The SDK's native engine sends ``blockid=...==``, which Azure's storage takes. Azurite leaves such a field out of
    what it signs (3.35, ``getURLQueries``), refuses the block, and a file of more than 8 MB would be stored empty.
    """
    fields = (field.partition(b"=") for field in query.split(b"&"))
    return b"&".join(name + equals + value.replace(b"=", b"%3D") for name, equals, value in fields)


class _Upload(httpx.AsyncByteStream):
    """A request's body as it arrives."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message: Any = await self._receive()
            if message["type"] == "http.disconnect":
                # The server must not take what has arrived for the whole.
                raise httpx.ReadError("the client went away")
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return
