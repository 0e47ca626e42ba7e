"""A small web server over a folder, with the faults that a test asks for."""

from __future__ import annotations

import base64
import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Handler(http.server.SimpleHTTPRequestHandler):
    login = ""
    cut = False

    def log_message(self, *arguments: object) -> None:
        """Be silent."""

    def _allowed(self) -> bool:
        expected = "Basic " + base64.b64encode(self.login.encode()).decode()
        if not self.login or self.headers.get("Authorization") == expected:
            return True
        self.send_response(401)
        self.send_header("WWW-Authenticate", "Basic")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def do_HEAD(self) -> None:
        if self._allowed():
            super().do_HEAD()

    def do_GET(self) -> None:
        if not self._allowed():
            return
        if self.cut:
            data = (Path(self.directory) / self.path.lstrip("/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        super().do_GET()


@contextmanager
def served(folder: Path, *, login: str = "", cut: bool = False) -> Iterator[str]:
    """Yield the host and port under which a folder is served.

    :param login: ``user:password`` that a request must bring.
    :param cut: end each answer in its middle.
    """
    kind = type("Handler", (_Handler,), {"login": login, "cut": cut})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(kind, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
