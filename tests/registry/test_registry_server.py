"""The tests' own registry is what it says: a real one, with the options that tests ask for."""

from __future__ import annotations

import base64
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from registry_server import registry

pytestmark = pytest.mark.registry


def ask(url: str, *, login: str = "", ca: Path | None = None) -> int:
    request = urllib.request.Request(f"{url}/v2/")
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca) if ca else None)),
    )
    try:
        with opener.open(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_plain_registry_answers(tmp_path: Path) -> None:
    with registry(tmp_path) as host:
        assert ask(f"http://{host}") == 200
        assert host.blobs() == []


def test_a_registry_with_passwords_refuses_others(tmp_path: Path) -> None:
    with registry(tmp_path, htpasswd={"ada": "secret"}) as host:
        assert ask(host.url) == 401
        assert ask(host.url, login="ada:wrong") == 401
        assert ask(host.url, login="ada:secret") == 200


def test_a_registry_with_tls_is_trusted_by_its_certificate(tmp_path: Path) -> None:
    with registry(tmp_path, tls=True) as host:
        assert ask(host.url, ca=host.ca) == 200
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            ask(host.url)


def test_a_registry_comes_back_where_it_was(tmp_path: Path) -> None:
    with registry(tmp_path) as first:
        port = int(first.rpartition(":")[2])
    with registry(tmp_path, port=port) as again:
        assert again == first
