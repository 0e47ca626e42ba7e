"""The world outside of an emulator, on this machine: a proxy with a login, and behind it an HTTPS host with files."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from folder_server import basic

HOST = "packages.example"


@dataclass
class OutsideServer:
    """A running proxy. :param certificate: the authority of what is behind it. :param seen: paths that were got."""

    folder: Path
    login: str
    context: ssl.SSLContext
    certificate: Path
    port: int = 0
    seen: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """The variables of somebody for whom this is the way to the internet."""
        proxy = f"http://{self.login}@127.0.0.1:{self.port}"
        return {
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), proxy),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
            "SSL_CERT_FILE": str(self.certificate),
        }


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: Any, state: OutsideServer) -> None:
        self.state = state
        super().__init__(*arguments, directory=str(state.folder))

    def log_message(self, *arguments: object) -> None:
        """Be silent."""

    def do_CONNECT(self) -> None:
        """Go on as the host that is asked for, with TLS, on the same connection."""
        if self.headers.get("Proxy-Authorization", "") != basic(self.state.login):
            self.send_error(407)
        elif self.path != f"{HOST}:443":
            self.send_error(502)
        else:
            self.send_response(200)
            self.end_headers()
            self.connection = self.state.context.wrap_socket(self.connection, server_side=True)
            self.rfile = self.connection.makefile("rb")
            self.wfile = self.connection.makefile("wb", 0)
            self.close_connection = False

    def do_GET(self) -> None:
        self.state.seen.append(self.path)
        super().do_GET()


@contextlib.contextmanager
def outside_serving(folder: Path, authority: Path, login: str) -> Iterator[OutsideServer]:
    """Serve a folder as ``https://packages.example``, through a proxy alone.

    :param authority: a folder for the authority that has signed the host's certificate.
    """
    from himl_container.emulator.certificates import Authority

    context = Authority(authority).context(HOST)
    state = OutsideServer(folder, login, context, authority / "ca.pem")
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
