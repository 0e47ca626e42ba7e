"""No credential survives: in a URL that is stored or shown, or anywhere in a text."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.environment.urls import redact, scrub, strip_credentials

CANARY = "CANARY5ecret"


@pytest.mark.parametrize(
    ("url", "plain", "user", "password", "redacted"),
    [
        ("https://u:p%40@h/x", "https://h/x", "u", "p@", "https://h/x"),
        ("https://tok@h:8080/s#sha256=00ff", "https://h:8080/s#sha256=00ff", "tok", "", "https://h:8080/s#sha256=00ff"),
        ("https://u:a@b@h/x", "https://h/x", "u", "a@b", "https://h/x"),
        ("https://u:pa/ss@h/x", "https://h/x", "u", "pa/ss", "https://h/x"),
        ("https://u:p@[::1]:80/x", "https://[::1]:80/x", "u", "p", "https://[::1]:80/x"),
        ("http://h:80/@scope/x", "http://h:80/@scope/x", "", "", "http://h:80/@scope/x"),
        ("https://h/t/abc-1/c", "https://h/t/abc-1/c", "", "", "https://h/t/***/c"),
        ("https://h/x?sig=a%2F&b", "https://h/x?sig=a%2F&b", "", "", "https://h/x?sig=***&***"),
        ("https://h/x#frag", "https://h/x#frag", "", "", "https://h/x#***"),
        ("conda-forge", "conda-forge", "", "", "conda-forge"),
        ("file:///a/b@c", "file:///a/b@c", "", "", "file:///a/b@c"),
        ("https://u:p@h", "https://h", "u", "p", "https://h"),
    ],
)
def test_forms(url: str, plain: str, user: str, password: str, redacted: str) -> None:
    assert strip_credentials(url) == (plain, user, password)
    assert redact(url) == redacted


def test_credentials_alone_make_no_difference() -> None:
    assert redact("https://a:b@h/s") == redact("https://c@h/s") == redact("https://h/s")


def test_text_around_stays() -> None:
    text = "see 'https://u:p@h/x', then (https://h/y?k=v). Basic usage of x@y.z; 50% done"
    assert scrub(text) == "see 'https://h/x', then (https://h/y?k=***). Basic usage of x@y.z; 50% done"


def test_headers() -> None:
    for text in (f"Authorization: Basic {CANARY}==", f'"authorization": "Bearer {CANARY}"', f"bearer {CANARY}"):
        assert CANARY not in scrub(text)
    assert CANARY not in scrub(f"Proxy-Authorization: {CANARY}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            f"Max retries exceeded with url: /c/x?sv=1&sig={CANARY}%2B&se=1 (Caused by NewConnectionError)",
            "Max retries exceeded with url: /c/x?sv=***&sig=***&se=*** (Caused by NewConnectionError)",
        ),
        (f"with url: /t/{CANARY}/c/repodata.json (Caused by", "with url: /t/***/c/repodata.json (Caused by"),
        (
            f"DefaultEndpointsProtocol=https;AccountName=x;AccountKey={CANARY}==;EndpointSuffix=e",
            "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=***;EndpointSuffix=e",
        ),
        (f"the signature 'sv=1&se=2&sig={CANARY}%3D' expired", "the signature 'sv=1&se=2&sig=***' expired"),
        (f"SharedAccessSignature=sv=1&sig={CANARY}; x", "SharedAccessSignature=***&sig=***; x"),
        ("train.py --sig=5 --design=6 url: /help", "train.py --sig=5 --design=6 url: /help"),
    ],
)
def test_keys_outside_of_urls(text: str, shown: str) -> None:
    assert scrub(text) == shown


SAFE = st.text(string.ascii_letters + string.digits + "._~-", min_size=1, max_size=8)
# What people type unencoded; "/", "?" and "#" end the authority for every program, so they cannot be in a login.
SLOPPY = st.text(string.ascii_letters + string.digits + "._~-!$&'()*+,;=:@%\"<>|", max_size=8)
AROUND = st.text(max_size=20)


@given(user=SAFE, before=SLOPPY, after=SLOPPY, host=SAFE, path=SAFE, left=AROUND, right=AROUND)
def test_a_password_never_survives(
    user: str, before: str, after: str, host: str, path: str, left: str, right: str
) -> None:
    encoded = quote(f"{before}{CANARY}{after}", safe="")
    assert strip_credentials(f"https://{user}:{encoded}@{host}")[1:] == (user, f"{before}{CANARY}{after}")
    for secret in (f"{before}{CANARY}{after}", encoded):
        url = f"https://{user}:{secret}@{host}/{path}"
        assert CANARY not in redact(url)
        assert CANARY not in strip_credentials(url)[0]
        assert CANARY not in scrub(f"{left} {url} {right}")
        assert CANARY not in scrub(f"{left}{url},{url}\n{right}")


@given(name=SAFE, before=SAFE, after=SAFE, left=AROUND)
def test_a_token_in_the_query_never_survives(name: str, before: str, after: str, left: str) -> None:
    for query in (f"?{name}={before}{CANARY}{after}", f"?a=1&{name}={CANARY}", f"?{CANARY}", f"#{CANARY}"):
        assert CANARY not in redact(f"https://host/x{query}")
        assert CANARY not in scrub(f"{left}https://host/x{query} and so on")


@given(st.text(max_size=60))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)
    assert scrub(scrub(text)) == scrub(text)
