"""A web server on this machine over a folder: with a login, and with the faults that a test asks for."""

from __future__ import annotations

import base64
import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path


@dataclass
class FolderServer:
    """A running server; what it does may be changed while it runs.

    :param login: ``user:password`` that each request must bring; empty for none.
    :param cut: ends of paths of which half is sent, and then the connection closed.
    :param hold: keep every request waiting for as long as this is set.
    :param seen: the path and the Authorization header of each request.
    """

    folder: Path
    login: str = ""
    cut: tuple[str, ...] = ()
    seen: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0
    hold: bool = False

    def url(self, path: str = "", *, login: str = "", host: str = "127.0.0.1") -> str:
        """Return an address on this server; the login is put in as it is."""
        return f"http://{login}{'@' if login else ''}{host}:{self.port}{path}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: object, state: FolderServer) -> None:
        self.state = state
        super().__init__(*arguments, directory=str(state.folder))  # type: ignore[arg-type]

    def log_message(self, *arguments: object) -> None:
        """Be silent."""

    def do_HEAD(self) -> None:
        if self._allowed():
            super().do_HEAD()

    def do_GET(self) -> None:
        if not self._allowed():
            return
        if not self.path.endswith(self.state.cut or ("\0",)):
            super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True

    def _allowed(self) -> bool:
        header = self.headers.get("Authorization", "")
        self.state.seen.append((self.path, header))
        while self.state.hold:
            time.sleep(0.02)
        if not self.state.login or header == basic(self.state.login):
            return True
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="test"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False


def basic(login: str) -> str:
    """Return the header for ``user:password``."""
    return "Basic " + base64.b64encode(login.encode()).decode()


@contextlib.contextmanager
def serving(folder: Path, *, login: str = "", cut: tuple[str, ...] = ()) -> Iterator[FolderServer]:
    """Serve a folder for the length of the context."""
    state = FolderServer(folder, login, cut)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, state=state)) as server:
        state.port = server.server_port
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def package_index(folder: Path) -> Path:
    """Write the pages of a simple index over its folders of files, one for each package, and return the folder."""
    for package in filter(Path.is_dir, folder.iterdir()):
        names = sorted(file.name for file in package.iterdir() if file.name != "index.html")
        (package / "index.html").write_text("".join(f'<a href="{name}">{name}</a>\n' for name in names))
    return folder
