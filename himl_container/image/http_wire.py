"""The little that the Engine API needs of HTTP/1.1 (RFC 9112): heads, and bodies of known length or in chunks."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, cast
from urllib.parse import urlencode

_LONGEST_LINE = 65536
_BUFFER = 65536


class _Framed(io.RawIOBase):
    """A body of known length, or in chunks; one that ends too early raises ConnectionError."""

    def __init__(self, reader: BinaryIO, length: int | None) -> None:
        super().__init__()
        self._reader = reader
        self._left = length or 0
        self._chunked = length is None
        self._ended = length == 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left == 0 and self._chunked and not self._ended:
            self._next_chunk()
        if self._ended:
            return 0
        data = cast("bytes", self._reader.read1(min(len(buffer), self._left)))  # type: ignore[attr-defined]
        if not data:
            raise ConnectionError("the answer is not whole")
        buffer[: len(data)] = data
        self._left -= len(data)
        if self._left == 0:
            if self._chunked:
                self._line()
            self._ended = not self._chunked
        return len(data)

    def _next_chunk(self) -> None:
        size = self._line().partition(b";")[0].strip()
        if not size or size.strip(b"0123456789abcdefABCDEF"):
            raise ConnectionError("the answer is not whole")
        self._left = int(size, 16)
        if self._left == 0:
            self._ended = True
            while self._line().strip():
                pass  # trailers

    def _line(self) -> bytes:
        line = self._reader.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise ConnectionError("the answer is not whole")
        return line


def headers_for(data: bytes | Iterable[bytes] | None) -> dict[str, str]:
    """Return the headers that describe a request's body: whole (JSON), in pieces, or none."""
    if data is None or isinstance(data, bytes):
        length = {"Content-Length": str(len(data or b""))}
        return length if data is None else {"Content-Type": "application/json", **length}
    return {"Transfer-Encoding": "chunked"}


def request_head(method: str, path: str, query: Mapping[str, object] | None, headers: Mapping[str, str]) -> bytes:
    """Return a request up to its body.

    :raises UnicodeEncodeError: path or headers are not ASCII.
    """
    target = path + (f"?{urlencode(query)}" if query else "")
    lines = [f"{method} {target} HTTP/1.1", "Host: docker", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def send(connection: socket.socket, head: bytes, data: bytes | Iterable[bytes]) -> None:
    """Send a request whose head says how its body is framed.

    :raises OSError: the connection broke.
    """
    if isinstance(data, bytes):
        connection.sendall(head + data)
        return
    connection.sendall(head)
    for piece in data:
        if piece:  # an empty chunk is the end
            connection.sendall(b"%x\r\n" % len(piece))
            connection.sendall(piece)
            connection.sendall(b"\r\n")
    connection.sendall(b"0\r\n\r\n")


def read_head(reader: BinaryIO) -> tuple[int, dict[str, str]] | None:
    """Read an answer's head; None when the daemon went away before its end, or when it is none."""
    words = reader.readline(_LONGEST_LINE).split(None, 2)
    headers: dict[str, str] = {}
    while line := reader.readline(_LONGEST_LINE):
        if line in (b"\r\n", b"\n"):
            return (int(words[1]), headers) if len(words) >= 2 and words[1].isdigit() else None
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return None


def body_of(reader: BinaryIO, status: int, headers: Mapping[str, str]) -> BinaryIO:
    """Return the body; the reader itself where the body goes to the end of the connection."""
    length = headers.get("content-length", "")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return cast("BinaryIO", io.BufferedReader(_Framed(reader, None), _BUFFER))
    if status in (204, 304) or length.isdecimal():
        return cast("BinaryIO", io.BufferedReader(_Framed(reader, int(length or 0)), _BUFFER))
    return reader
