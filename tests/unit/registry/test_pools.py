"""Proxies, as the environment names them."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_client import Told, client

from himl_container.errors import InputError, RegistryError
from himl_container.registry.pools import Pools, proxy_for

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("exceptions", "proxy"),
    [
        ("", PROXY),
        ("*", ""),
        ("registry.example", ""),
        ("example", ""),
        (".example", ""),
        ("*.example", ""),
        ("REGISTRY.example", ""),
        ("other.example, registry.example", ""),
        ("registry.example:443", ""),
        ("registry.example:8443", PROXY),
        ("ample", PROXY),
        ("10.0.0.0/8", PROXY),
    ],
)
def test_hosts_that_need_no_proxy(exceptions: str, proxy: str) -> None:
    environ = {"HTTPS_PROXY": PROXY, "NO_PROXY": exceptions}
    assert proxy_for("https", "registry.example", 443, environ) == proxy
    assert proxy_for("https", "registry.example", 443, {key.lower(): value for key, value in environ.items()}) == proxy


def test_addresses_networks_and_this_machine() -> None:
    environ = {"HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8,192.168.1.7,[fd00::1]:8443"}
    assert proxy_for("https", "10.1.2.3", 443, environ) == ""
    assert proxy_for("https", "192.168.1.7", 443, environ) == ""
    assert proxy_for("https", "192.168.1.8", 443, environ) == PROXY
    assert proxy_for("https", "fd00::1", 8443, environ) == ""
    assert proxy_for("https", "fd00::1", 443, environ) == PROXY
    assert proxy_for("http", "127.0.0.1", 5000, environ) == ""
    assert proxy_for("http", "localhost", 5000, environ) == ""


@given(st.text(max_size=60))
def test_any_list_of_exceptions_is_read(exceptions: str) -> None:
    assert proxy_for("https", "registry.example", 443, {"HTTPS_PROXY": PROXY, "NO_PROXY": exceptions}) in ("", PROXY)


@contextmanager
def a_proxy(seen: list[tuple[str, str, str]]) -> Iterator[str]:
    """A proxy that notes what it is asked for and refuses it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Be silent."""

        def do_CONNECT(self) -> None:
            seen.append((self.command, self.path, self.headers.get("Proxy-Authorization", "")))
            self.send_error(502)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_proxy_is_asked_with_its_own_login(scheme: str) -> None:
    seen: list[tuple[str, str, str]] = []
    with a_proxy(seen) as proxy:
        environ = {"HTTPS_PROXY": f"{scheme}ada:s%40cret@{proxy}/"}
        told = Told()
        with pytest.raises(RegistryError, match="the proxy does not answer") as caught:
            client("registry.example/himl/x", told, environ=environ).head("latest")
    assert seen[0] == ("CONNECT", "registry.example:443", "Basic YWRhOnNAY3JldA==")
    assert "cret" not in f"{caught.value} {told.lines}"


@pytest.mark.parametrize("proxy", ["socks5://ada:secret@proxy.example:1080", "http://", "ftp://proxy.example"])
def test_a_proxy_of_another_kind_is_named_without_its_login(proxy: str) -> None:
    with pytest.raises(InputError, match="is not an http proxy") as caught:
        client("registry.example/himl/x", environ={"HTTPS_PROXY": proxy}).head("latest")
    assert "secret" not in str(caught.value)


def test_a_missing_file_of_certificates_is_named(tmp_path: Path) -> None:
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        with pytest.raises(InputError, match="cannot be read") as caught:
            Pools({variable: str(tmp_path / "none.pem")}).send("GET", "https://registry.example/v2/", {})
        assert variable in caught.value.hint
