"""The forward proxy on this machine: what clients connect to, and how a connection reaches the application.

``CONNECT host:443`` for a host that the emulator answers for is ended here: TLS with a certificate of the emulator's
own authority, then HTTP. A plain ``GET /...`` is a browser that wants the page. Everything else is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from himl_container.emulator.certificates import Authority
from himl_container.emulator.hosts import Hosts

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope

log = logging.getLogger("himl_container.emulator")

_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux only, and good for a few packets only (tcp(7))."""

_LARGEST_HEAD = 64 * 1024
_PATIENCE = 30.0
"""Seconds in which a client must have said what it wants."""

_CONNECT = re.compile(rb"CONNECT ([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5}) HTTP/1\.[01]\r\n")
_ORIGIN_FORM = re.compile(rb"[A-Z]{1,20} /")


class Proxy:
    """Listens where it is told to, and serves connections with an ASGI application.

    A connection is handed to uvicorn's protocol as a socket, in this process: nothing is copied between two sockets,
    and there is no second door that somebody else could find.

    :param allow_hosts: other hosts that clients may be connected to (``*.example.com`` for those below).
    """

    def __init__(self, config: Config, authority: Authority, hosts: Hosts, allow_hosts: Sequence[str] = ()) -> None:
        self._config, self._authority, self._hosts = config, authority, hosts
        self._allow_hosts = tuple(allow_hosts)
        self._state = ServerState()
        self._doors: dict[socket.socket, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: set[str] = set()
        config.load()
        config.loaded_app = _given_up_quietly(config.loaded_app)

    def listen(self, sock: socket.socket, peers: ipaddress.IPv4Network | None = None) -> None:
        """Serve a listening socket from now on.

        :param peers: whom it serves (the containers of the emulator's own network), who do not get the page; None for
            everybody on this machine, for a socket of the loopback device.
        """
        sock.setblocking(False)
        self._doors[sock] = asyncio.get_running_loop().create_task(self._accept(sock, peers))

    async def close(self, patience: float = 5) -> None:
        """Stop listening, let requests end for some seconds, and close what is left."""
        # The loop must have let go of a socket before it is closed: the next one to be opened gets its number.
        for task in self._doors.values():
            task.cancel()
        await asyncio.gather(*self._doors.values(), return_exceptions=True)
        for sock in self._doors:
            sock.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._quiet(), patience)
        for connection in list(self._state.connections):
            # A client that keeps its connection does not take part in closing it.
            connection.transport.abort()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._gone(), 1)
        for task in [*self._tasks, *self._state.tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._state.tasks, return_exceptions=True)

    async def _quiet(self) -> None:
        while self._state.tasks:
            await asyncio.sleep(0.02)

    async def _gone(self) -> None:
        while self._state.connections:
            await asyncio.sleep(0)

    def _start(self, work: Callable[[], None] | object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, peers: ipaddress.IPv4Network | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError as error:
                if listener.fileno() < 0:
                    return
                # Out of file descriptors: others will be closed.
                log.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(0.1)
                continue
            sock.setblocking(False)
            if peers is not None and ipaddress.ip_address(address[0]) not in peers:
                log.warning("a connection from %s was refused", address[0])
                sock.close()
                continue
            self._start(self._serve(sock, page=peers is None))

    async def _serve(self, sock: socket.socket, page: bool) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head = await asyncio.wait_for(_read_head(sock), _PATIENCE)
            asked = _CONNECT.match(head)
            if asked is not None:
                await self._connect(sock, asked[1].decode().lower(), int(asked[2]))
            elif page and _ORIGIN_FORM.match(head):
                transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(self._protocol, sock)
                protocol.data_received(head)
                del transport
            elif head:
                await _refuse(sock, 403, "This proxy connects by CONNECT to port 443 only.")
            else:
                sock.close()
        except (OSError, asyncio.TimeoutError, ValueError) as error:
            log.debug("a connection ended: %s", error)
            sock.close()

    async def _connect(self, sock: socket.socket, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        if port == 443 and self._hosts.kind(host) is not None:
            await loop.sock_sendall(sock, b"HTTP/1.1 200 Connection established\r\n\r\n")
            context = self._authority.context(host)
            await loop.connect_accepted_socket(self._protocol, sock, ssl=context, ssl_handshake_timeout=_PATIENCE)
            return
        if port == 443 and self._allowed(host):
            await _tunnel(sock, host)
            return
        name = f"{host}:{port}"
        if name not in self._refused and len(self._refused) < 10_000:
            self._refused.add(name)
            log.warning("not imitated: host %s", name)
        await _refuse(sock, 403, f"The emulator does not answer for {name}; 'allow-hosts' lets clients through.")

    def _allowed(self, host: str) -> bool:
        # A name that leads into this machine or its network would open what listens there to jobs.
        return any(host == item or (item.startswith("*.") and host.endswith(item[1:])) for item in self._allow_hosts)

    def _protocol(self) -> H11Protocol:
        return _Protocol(config=self._config, server_state=self._state, app_state={})


def _given_up_quietly(application: ASGI3Application) -> ASGI3Application:
    """Return an application of whose requests :meth:`Proxy.close` may give some up: to uvicorn that is an error."""

    async def call(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            await application(scope, receive, send)
        except asyncio.CancelledError:
            log.info("a request was given up")

    return call


class _Protocol(H11Protocol):
    """HTTP without waiting for clients that wait for us.

    urllib3 leaves Nagle's algorithm on where it speaks to a proxy: a body is sent only once the head has been
    acknowledged, which the kernel puts off for 40 ms. So every arrival is acknowledged at once.
    """

    def data_received(self, data: bytes) -> None:
        if _QUICK_ACK is not None:
            sock = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        super().data_received(data)


async def _read_head(sock: socket.socket) -> bytes:
    """Return what the client has sent up to the end of its first request's head (and what came with it)."""
    loop = asyncio.get_running_loop()
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > _LARGEST_HEAD:
            raise ValueError("too long a head")
        part = await loop.sock_recv(sock, 16384)
        if not part:
            return b""
        head += part
    return head


async def _refuse(sock: socket.socket, status: int, text: str) -> None:
    body = text.encode()
    head = f"HTTP/1.1 {status} Forbidden\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    await asyncio.get_running_loop().sock_sendall(sock, head.encode() + b"Connection: close\r\n\r\n" + body)
    sock.close()


async def _tunnel(sock: socket.socket, host: str) -> None:
    """Connect a client with a host that it may reach, and copy until both have nothing more to say."""
    loop = asyncio.get_running_loop()
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, 443), _PATIENCE)
    except (OSError, asyncio.TimeoutError):
        await _refuse(sock, 502, f"{host} does not answer.")
        return
    await loop.sock_sendall(sock, b"HTTP/1.1 200 Connection established\r\n\r\n")
    client_reader, client_writer = await asyncio.open_connection(sock=sock)
    try:
        await asyncio.gather(_copy(client_reader, writer), _copy(reader, client_writer))
    finally:
        writer.close()
        client_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(65536):
        writer.write(part)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
