"""Connections to a Docker daemon: its unix socket, TCP with or without TLS, or through ``ssh``."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from himl_container.errors import EngineError
from himl_container.image.endpoint import Endpoint

if TYPE_CHECKING:
    import subprocess

CONNECT_TIMEOUT = 30.0


def connected(endpoint: Endpoint) -> socket.socket:
    """Return a new connection to a daemon.

    :raises OSError: nobody answers there.
    :raises EngineError: it is no address that can be talked to.
    """
    if endpoint.socket_path:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_TIMEOUT)
            connection.connect(endpoint.socket_path)
        except BaseException:
            connection.close()
            raise
        return connection
    url = urlsplit(endpoint.url)
    if url.scheme in ("tcp", "http", "https") and url.hostname:
        return _tcp(url, url.hostname, endpoint)
    # A host is an argument of ssh, which must not be taken for an option.
    if url.scheme == "ssh" and url.hostname and not f"{url.username}".startswith("-") and url.hostname[0] != "-":
        return _Tunnel.to(url, url.hostname)
    raise EngineError("this kind of address of a Docker daemon is not supported", where=str(endpoint))


def _tcp(url: SplitResult, host: str, endpoint: Endpoint) -> socket.socket:
    folder = endpoint.tls_folder
    plain = socket.create_connection((host, url.port or (2376 if folder else 2375)), timeout=CONNECT_TIMEOUT)
    if folder is None:
        return plain
    import ssl

    try:
        authority = folder / "ca.pem"
        context = ssl.create_default_context(cafile=str(authority) if authority.is_file() else None)
        if not endpoint.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if (folder / "cert.pem").is_file():
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


class _Tunnel(socket.socket):
    """A connection whose other end is ``docker system dial-stdio`` on another machine, as Docker's own client does."""

    process: subprocess.Popen[bytes]

    @classmethod
    def to(cls, url: SplitResult, host: str) -> _Tunnel:
        """Start ssh; whether it gets there shows when the daemon is to answer. ssh itself says why it does not."""
        import subprocess

        options = ["-o", f"ConnectTimeout={CONNECT_TIMEOUT:.0f}", "-T"]
        options += ["-l", url.username] if url.username else []
        options += ["-p", str(url.port)] if url.port else []
        ours, theirs = socket.socketpair()
        with theirs:
            tunnel = cls(fileno=ours.detach())
            try:
                command = ["ssh", *options, "--", host, "docker", "system", "dial-stdio"]
                tunnel.process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno())
            except FileNotFoundError as error:
                socket.socket.close(tunnel)
                raise EngineError("the program 'ssh' is not installed", where=url.geturl()) from error
        return tunnel

    def close(self) -> None:
        """End the connection, and ssh with it."""
        super().close()
        if hasattr(self, "process"):
            with contextlib.suppress(OSError):
                self.process.terminate()
            self.process.wait()
