"""The emulator's own authority, as OpenSSL sees it."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from himl_container.emulator.certificates import Authority
from himl_container.emulator.folder import client_variables
from himl_container.emulator.installation import open_installation


def _talk(server: ssl.SSLContext, ca: Path, host: str) -> str:
    """Shake hands over a pair of sockets, and return the name that the client was shown."""
    left, right = socket.socketpair()
    client = ssl.create_default_context(cafile=str(ca))

    def serve() -> None:
        try:
            server.wrap_socket(left, server_side=True).close()
        except (ssl.SSLError, OSError):
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(right, server_hostname=host) as secure:
            return str(secure.getpeercert()["subjectAltName"][0][1])  # type: ignore[index]
    finally:
        right.close()
        thread.join()


def test_a_certificate_for_each_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    long = "a" * 60 + ".blob.core.windows.net"
    for host in ("management.azure.com", long):
        assert _talk(authority.context(host), tmp_path / "ca.pem", host) == host
        assert _talk(authority.context(host), tmp_path / "bundle.pem", host) == host
        assert _talk(authority.context(host), tmp_path / "roots.pem", host) == host
    assert authority.context(long) is authority.context(long)


def test_no_name_for_another(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _talk(Authority(tmp_path).context("management.azure.com"), tmp_path / "ca.pem", "login.microsoftonline.com")


def test_no_authority_for_another(tmp_path: Path) -> None:
    Authority(tmp_path)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        _talk(other.context("management.azure.com"), tmp_path / "ca.pem", "management.azure.com")


def test_the_authority_stays(tmp_path: Path) -> None:
    Authority(tmp_path)
    before = (tmp_path / "ca.pem").read_bytes()
    again = Authority(tmp_path)
    assert (tmp_path / "ca.pem").read_bytes() == before
    assert _talk(again.context("x.example"), tmp_path / "ca.pem", "x.example") == "x.example"


def test_the_usual_roots_are_there_for_whoever_needs_them(tmp_path: Path) -> None:
    def count(name: str) -> int:
        return (tmp_path / name).read_text().count("BEGIN CERTIFICATE")

    Authority(tmp_path)
    assert count("bundle.pem") == 1
    assert count("roots.pem") > 50
    Authority(tmp_path, roots=True)
    assert count("bundle.pem") == count("roots.pem") > 50


@pytest.mark.parametrize(
    ("no_proxy", "name"),
    [
        ("", "bundle.pem"),
        ("localhost,127.0.0.1,::1", "bundle.pem"),
        ("mirror.example", "roots.pem"),
        ("*", "roots.pem"),
    ],
)
def test_clients_that_reach_others_directly_trust_the_usual_roots(no_proxy: str, name: str, tmp_path: Path) -> None:
    installation = open_installation(tmp_path, workspace_name="w", resource_group="g")
    found = client_variables(installation, 5010, {"no_proxy": no_proxy})
    assert {found[key] for key in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")} == {str(tmp_path / name)}
    assert set(found["no_proxy"].split(",")) >= {"127.0.0.1", "localhost", *filter(None, no_proxy.split(","))}


def test_the_key_is_the_owners_only(tmp_path: Path) -> None:
    Authority(tmp_path)
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert b"PRIVATE" not in (tmp_path / "bundle.pem").read_bytes()
