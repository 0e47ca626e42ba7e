"""Requests to the Docker daemon over its own socket, with nothing but the light parts of the standard library.

The Docker SDK takes a third of a second to import and to connect, ``http.client`` alone a twentieth.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

from himl_container.errors import EngineError
from himl_container.image.docker_socket import connected
from himl_container.image.endpoint import Endpoint
from himl_container.image.http_wire import body_of, headers_for, read_head, request_head, send
from himl_container.image.probe import cannot_connect

ANSWER_TIMEOUT = 300.0
"""Seconds for a daemon to answer; creating and starting a container take seconds on a machine under load."""


class GoneError(EngineError):
    """The daemon was there and went away in the middle of a request."""


class Answer(NamedTuple):
    """An answer: status, body, and headers (names in lower case)."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}

    @property
    def message(self) -> str:
        """The daemon's error text, or the beginning of what it sent instead."""
        try:
            return str(json.loads(self.body)["message"])
        except (ValueError, KeyError, TypeError):
            return self.body[:300].decode(errors="replace")

    def json(self) -> Any:
        """Return the body as a JSON value.

        :raises EngineError: it is none.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise EngineError("the Docker daemon's answer is not whole; it may have gone away") from error


class Stream:
    """An answer whose body is read as it comes. Closing it from another thread ends a read that waits.

    :param body: for readers that need a file; its reads raise OSError where the daemon goes away.
    """

    def __init__(self, connection: socket.socket, status: int, headers: Mapping[str, str], body: BinaryIO) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        self.body = body

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, size: int) -> bytes:
        """Read exactly ``size`` bytes, or fewer at the end. An end by error counts as an end."""
        try:
            return self.body.read(size)
        except (OSError, ValueError):
            return b""

    def read_some(self, size: int) -> bytes:
        """Read what is there, at least one byte and at most ``size``; empty at the end."""
        try:
            return self.body.read1(size)  # type: ignore[attr-defined,no-any-return]
        except (OSError, ValueError):
            return b""

    def read_all(self) -> bytes:
        """Read to the end."""
        return self.read(-1)

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield what comes, in pieces of at most ``size`` bytes.

        :raises OSError: the daemon went away.
        """
        while data := self.body.read(size):
            yield data

    def send(self, data: bytes) -> None:
        """Send bytes the other way (a hijacked connection)."""
        self._connection.sendall(data)

    def close(self) -> None:
        """End the connection, also for a reader in another thread."""
        with contextlib.suppress(OSError):  # the other side was faster
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class DockerHttp:
    """The daemon at one address. May be used by several threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._idle: list[tuple[socket.socket, BinaryIO]] = []

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        timeout: float | None = ANSWER_TIMEOUT,
    ) -> Answer:
        """Send a request and read the whole answer. The connection is kept for the next request.

        :param path: made with :func:`segment` where a part of it is not constant.
        :param body: a JSON value.
        :param timeout: seconds that the daemon may be silent; None for as long as it takes.
        :raises EngineError: the daemon does not answer, or goes away in the middle.
        """
        connection, reader = self._kept() or self._connected()
        data = None if body is None else json.dumps(body).encode()
        stream = self._exchange(connection, reader, request_head(method, path, query, headers_for(data)), data, timeout)
        try:
            answer = Answer(stream.status, stream.body.read(), stream.headers)
        except (OSError, ValueError) as error:
            stream.close()
            raise self._failed(error) from error
        except BaseException:
            stream.close()
            raise
        if stream.body is reader or stream.headers.get("connection", "").lower() == "close":
            stream.close()
        else:
            self._idle.append((connection, reader))
        return answer

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        data: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        answer_timeout: float | None = ANSWER_TIMEOUT,
    ) -> Stream:
        """Send a request and return as soon as the answer begins.

        :param body: a JSON value.
        :param data: bytes instead, whole or in pieces.
        :param headers: further ones; ``Content-Type`` where ``data`` is not JSON.
        :param timeout: seconds that a read may wait; None for as long as it takes.
        :param answer_timeout: the same for the time until the answer begins.
        :raises EngineError: the daemon does not answer, or goes away before.
        """
        data = json.dumps(body).encode() if data is None and body is not None else data
        connection, reader = self._connected()
        head = request_head(method, path, query, {**headers_for(data), **(headers or {}), "Connection": "close"})
        stream = self._exchange(connection, reader, head, data, answer_timeout)
        connection.settimeout(timeout)
        return stream

    def _exchange(
        self,
        connection: socket.socket,
        reader: BinaryIO,
        head: bytes,
        data: bytes | Iterable[bytes] | None,
        timeout: float | None,
    ) -> Stream:
        try:
            connection.settimeout(timeout)
            # A daemon that refuses a long body answers and hangs up before it has read all; its answer says why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                send(connection, head, b"" if data is None else data)
            found = read_head(reader)
            if found is None:
                raise GoneError("the Docker daemon went away", where=str(self.endpoint))
            status, headers = found
            return Stream(connection, status, headers, body_of(reader, status, headers))
        except OSError as error:
            connection.close()
            raise self._failed(error) from error
        except BaseException:
            connection.close()
            raise

    def _connected(self) -> tuple[socket.socket, BinaryIO]:
        try:
            connection = connected(self.endpoint)
        except OSError as error:
            raise cannot_connect(self.endpoint, error) from error
        return connection, connection.makefile("rb")

    def _kept(self) -> tuple[socket.socket, BinaryIO] | None:
        """Return a connection of an earlier request; one that has something to read was ended by the daemon."""
        while True:
            try:
                connection, reader = self._idle.pop()
            except IndexError:  # none is left; not looked at before, because another thread may take the last one
                return None
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            if not poll.poll(0):
                return connection, reader
            connection.close()

    def _failed(self, error: Exception) -> EngineError:
        if isinstance(error, TimeoutError):
            return cannot_connect(self.endpoint, error)
        return GoneError(f"the Docker daemon went away ({error})", where=str(self.endpoint))


def segment(text: str) -> str:
    """Return text as one segment of a path, so that no name can end the request line or reach another resource."""
    return quote(text, safe="")
