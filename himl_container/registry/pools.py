"""Connections: one pool per origin, through the proxies and with the certificates that the environment names.

One call sends one request; who asks again, and when, is decided in :mod:`himl_container.registry.transport`.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from himl_container import __version__
from himl_container.errors import InputError
from himl_container.registry.addresses import is_loopback
from himl_container.registry.headers import origin, readable

if TYPE_CHECKING:
    import ssl

    import urllib3

USER_AGENT = f"himl-container/{__version__}"
CONNECT_SECONDS = 30.0
"""For a connection, and for each piece of a body to go out: 256 kB, so a line may be as slow as 9 kB/s."""
ANSWER_SECONDS = 120.0
"""For an answer, and for each piece of it: a registry hashes a large layer before it answers the last request."""
_CONNECTIONS = 16
DOCKER_CERTIFICATES = Path("/etc/docker/certs.d")


class Pools:
    """Pools of connections by origin, made when they are needed; safe to use from several threads.

    :param environ: names proxies (``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY``) and certificates
        (``REQUESTS_CA_BUNDLE``, ``SSL_CERT_FILE``, ``SSL_CERT_DIR``), in capitals or small letters.
    :param certificates: folder with ``<host>/*.crt`` (authorities) and ``<host>/*.cert`` with ``*.key`` (client
        certificates), as Docker reads it.
    """

    def __init__(self, environ: Mapping[str, str], *, certificates: Path = DOCKER_CERTIFICATES) -> None:
        self._environ = environ
        self._certificates = certificates
        self._pools: dict[tuple[str, str, int], urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._requests = 0

    @property
    def requests(self) -> int:
        """Number of requests that were sent, or that were tried to be."""
        return self._requests

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Send one request and return the answer with its body still to be read; redirects are not followed.

        :raises urllib3.exceptions.HTTPError: no answer.
        :raises InputError: the proxy or a file with certificates cannot be used.
        """
        import urllib3

        pool = self._pool(url)
        with self._lock:
            self._requests += 1
        return pool.request(
            method,
            url,
            body=body,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers},
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
        )

    def close(self) -> None:
        """Close all connections that are not in use."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.clear()

    def _pool(self, url: str) -> urllib3.PoolManager:
        key = origin(url)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = self._new_pool(*key)
            return pool

    def _new_pool(self, scheme: str, host: str, port: int) -> urllib3.PoolManager:
        import urllib3

        context = self._context(host, port) if scheme == "https" else None
        proxy = proxy_for(scheme, host, port, self._environ)
        if not proxy:
            return urllib3.PoolManager(1, maxsize=_CONNECTIONS, ssl_context=context)
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"The proxy {readable(parts.geturl())} is not an http proxy",
                hint=f"It comes from {scheme.upper()}_PROXY in the environment; NO_PROXY names hosts to go without it.",
            )
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
        return urllib3.ProxyManager(
            parts._replace(netloc=parts.netloc.rpartition("@")[2], path="").geturl(),
            1,
            proxy_headers=urllib3.make_headers(proxy_basic_auth=login, user_agent=USER_AGENT),
            proxy_ssl_context=self._context(parts.hostname, parts.port or 443) if parts.scheme == "https" else None,
            maxsize=_CONNECTIONS,
            ssl_context=context,
        )

    def _context(self, host: str, port: int) -> ssl.SSLContext:
        """Return what an https connection trusts: the environment's or the machine's authorities, and Docker's."""
        import ssl

        place = "the environment"
        try:
            bundle, authorities = _authorities(self._environ)
            context = ssl.create_default_context(cafile=bundle or None, capath=authorities or None)
            known = ssl.get_default_verify_paths()
            if not (bundle or authorities or known.cafile or known.capath):
                _trust_certifi(context)
            for folder in (self._certificates / f"{host}:{port}", self._certificates / host):
                if (folder.name == host and port != 443) or not folder.is_dir():
                    continue
                place = str(folder)
                for authority in sorted(folder.glob("*.crt")):
                    context.load_verify_locations(authority)
                for certificate in sorted(folder.glob("*.cert")):
                    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            raise InputError(
                f"The certificates that {place} names cannot be read: {error}",
                where=f"{host}:{port}",
                hint="REQUESTS_CA_BUNDLE, SSL_CERT_FILE and SSL_CERT_DIR name files and folders in PEM form.",
            ) from error
        return context


def _authorities(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the file and the folder of authorities that the environment names, each empty where it names none."""
    bundle = environ.get("REQUESTS_CA_BUNDLE", "") or environ.get("SSL_CERT_FILE", "")
    folder = environ.get("SSL_CERT_DIR", "")
    return ("", bundle) if bundle and Path(bundle).is_dir() else (bundle, folder)


def _trust_certifi(context: ssl.SSLContext) -> None:
    """For a Python whose OpenSSL knows no authorities of the machine."""
    try:
        import certifi
    except ImportError:
        return
    context.load_verify_locations(certifi.where())


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> str:
    """Return the proxy for a host from the environment, empty for none; the same rules as Docker's (Go's).

    ``NO_PROXY`` is ``*`` or a list of hosts (with their subdomains), ``.domains``, addresses and networks, each with a
    port or without. This machine itself is never asked through a proxy.
    """
    name = f"{scheme}_proxy"
    proxy = environ.get(name.upper(), "") or environ.get(name, "")
    if not proxy or is_loopback(host):
        return ""
    exceptions = environ.get("NO_PROXY", "") or environ.get("no_proxy", "")
    return "" if any(_excepts(text.strip().lower(), host, port) for text in exceptions.split(",")) else proxy


def _excepts(exception: str, host: str, port: int) -> bool:
    if exception in ("", "*"):
        return exception == "*"
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(exception, strict=False)
    except ValueError:
        pass
    name, colon, wanted = exception.rpartition(":")
    if colon and wanted.isdigit() and (":" not in name or name.startswith("[")):
        if int(wanted) != port:
            return False
        exception = name.strip("[]")
    exception = exception.removeprefix("*")
    return host == exception or host.endswith(exception if exception.startswith(".") else f".{exception}")
