"""What answers on a unix socket: a daemon as small, as slow or as broken as a test needs it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

Answers = Mapping[str, "tuple[int, object] | bytes | None"]
"""Path (without its version) to a status and a JSON value, to raw bytes, or to None: the connection is closed."""

PING: Answers = {"/_ping": b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"}


@contextlib.contextmanager
def fake_daemon(folder: Path, answers: Answers) -> Iterator[str]:
    """Answer on a socket for the length of the context; yields the value for ``DOCKER_HOST``."""
    path = folder / "fake.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=_serve, args=(server, answers), daemon=True)
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _serve(server: socket.socket, answers: Answers) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            _answer(connection, answers)


def _answer(connection: socket.socket, answers: Answers) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        data = connection.recv(65536)
        if not data:
            return
        request += data
    path = unquote(request.split()[1].decode().partition("?")[0])
    if path.startswith("/v1."):
        path = "/" + path.split("/", 2)[2]
    answer = answers.get(path, (404, {"message": f"no such page: {path}"}))
    if isinstance(answer, tuple):
        body = json.dumps(answer[1]).encode()
        head = f"HTTP/1.1 {answer[0]} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        answer = head.encode() + b"Connection: close\r\n\r\n" + body
    connection.sendall(answer or b"")
