"""Requests to the Docker daemon over its own socket, with nothing but the light parts of the standard library.

HTTP/1.0: each answer ends when the daemon closes the connection, so there is no chunked encoding to undo, and a
connection whose daemon dies ends as well. ``http.client`` alone would take a tenth of a run's start.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, urlencode

from himl_container.errors import EngineError
from himl_container.image.endpoint import Endpoint
from himl_container.image.probe import cannot_connect

CONNECT_TIMEOUT = 30.0
ANSWER_TIMEOUT = 300.0
"""Seconds for a daemon to answer; creating and starting a container take seconds on a machine under load."""


class Answer(NamedTuple):
    """An answer: status and body."""

    status: int
    body: bytes

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
    """An answer whose body is read as it comes. Closing it from another thread ends a read that waits."""

    def __init__(self, connection: socket.socket, reader: BinaryIO, status: int) -> None:
        self._connection = connection
        self._reader = reader
        self.status = status

    def read(self, size: int) -> bytes:
        """Read exactly ``size`` bytes, or fewer at the end. An end by error counts as an end."""
        try:
            return self._reader.read(size)
        except (OSError, ValueError):
            return b""

    def read_some(self, size: int) -> bytes:
        """Read what is there, at least one byte and at most ``size``; empty at the end."""
        try:
            return self._reader.read1(size)  # type: ignore[attr-defined,no-any-return]
        except (OSError, ValueError):
            return b""

    def read_all(self) -> bytes:
        """Read to the end."""
        return self.read(-1)

    def send(self, data: bytes) -> None:
        """Send bytes the other way (a hijacked connection)."""
        self._connection.sendall(data)

    def close(self) -> None:
        """End the connection, also for a reader in another thread."""
        with contextlib.suppress(OSError):  # the other side was faster
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class DockerHttp:
    """The daemon at one address."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def request(
        self, method: str, path: str, *, query: Mapping[str, object] | None = None, body: object = None
    ) -> Answer:
        """Send a request and read the whole answer.

        :param path: made with :func:`segment` where a part of it is not constant.
        :raises EngineError: the daemon does not answer, or goes away in the middle.
        """
        stream = self.stream(method, path, query=query, body=body, timeout=ANSWER_TIMEOUT)
        try:
            return Answer(stream.status, stream.read_all())
        finally:
            stream.close()

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        timeout: float | None = None,
    ) -> Stream:
        """Send a request and return as soon as the answer begins.

        :param timeout: seconds that a read may wait; None for as long as it takes.
        :raises EngineError: the daemon does not answer.
        """
        payload = b"" if body is None else json.dumps(body).encode()
        target = path + (f"?{urlencode(query)}" if query else "")
        lines = [f"{method} {target} HTTP/1.0", "Host: docker", f"Content-Length: {len(payload)}"]
        if body is not None:
            lines.append("Content-Type: application/json")
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        try:
            connection = self._connect()
        except OSError as error:
            raise cannot_connect(self.endpoint, error) from error
        try:
            connection.settimeout(ANSWER_TIMEOUT)
            connection.sendall(head + payload)
            reader = connection.makefile("rb")
            status = _status(reader)
            if status is None:
                raise EngineError("the Docker daemon went away", where=str(self.endpoint))
            connection.settimeout(timeout)
        except OSError as error:
            connection.close()
            raise cannot_connect(self.endpoint, error) from error
        except BaseException:
            connection.close()
            raise
        return Stream(connection, reader, status)

    def _connect(self) -> socket.socket:
        if self.endpoint.socket_path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(CONNECT_TIMEOUT)
            try:
                connection.connect(self.endpoint.socket_path)
            except OSError:
                connection.close()
                raise
            return connection
        return self._connect_tcp()

    def _connect_tcp(self) -> socket.socket:
        from urllib.parse import urlsplit

        url = urlsplit(self.endpoint.url)
        if url.scheme not in ("tcp", "http", "https") or not url.hostname:
            raise EngineError(
                f"runs cannot go through {url.scheme or 'this kind of address'}: they mount folders of this machine",
                where=str(self.endpoint),
                hint="Use a daemon on this machine ('docker context use default').",
            )
        plain = socket.create_connection((url.hostname, url.port or 2375), timeout=CONNECT_TIMEOUT)
        folder = self.endpoint.tls_folder
        if folder is None:
            return plain
        import ssl

        context = ssl.create_default_context(cafile=str(folder / "ca.pem") if self.endpoint.tls_verify else None)
        if not self.endpoint.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if (folder / "cert.pem").exists():
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        return context.wrap_socket(plain, server_hostname=url.hostname)


def segment(text: str) -> str:
    """Return text as one segment of a path, so that no name can end the request line or reach another resource."""
    return quote(text, safe="")


def _status(reader: BinaryIO) -> int | None:
    """Read an answer's head; None when the daemon went away before its end."""
    words = reader.readline(65536).split(None, 2)
    while line := reader.readline(65536):
        if line in (b"\r\n", b"\n"):
            return int(words[1]) if len(words) >= 2 and words[1].isdigit() else None
    return None
