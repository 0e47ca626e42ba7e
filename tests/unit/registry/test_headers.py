"""Headers and error bodies of strangers: read by the specification, and never trusted further."""

from __future__ import annotations

import email.utils
import json
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.errors import RegistryError
from himl_container.registry.headers import (
    error_codes,
    error_text,
    location,
    next_page,
    origin,
    parse_content_range,
    parse_retry_after,
    parse_upload_range,
    printable,
    readable,
)

BASE = "https://registry.example:8443/v2/himl/x/blobs/uploads/"
anything = st.text(max_size=80) | st.from_regex(
    r"(bytes[= ])?-?[0-9]{0,30}-?[0-9]{0,30}(/[0-9*]{0,25})?", fullmatch=True
)


@pytest.mark.parametrize(
    ("value", "has"),
    [("0-0", 0), ("0-1", 2), ("bytes=0-99", 100), (" 0-9 ", 10), ("1-5", None), ("0-", None), ("-1", None), ("", None)],
)
def test_how_much_of_an_upload_is_there(value: str, has: int | None) -> None:
    assert parse_upload_range(value) == has
    assert parse_upload_range(None) is None


@given(st.integers(min_value=2, max_value=10**17))
def test_every_length_of_an_upload_is_read(length: int) -> None:
    assert parse_upload_range(f"0-{length - 1}") == length


@given(anything)
def test_a_range_is_read_or_not_but_never_wrong(value: str) -> None:
    has = parse_upload_range(value)
    assert has is None or has >= 0
    part = parse_content_range(value)
    assert part is None or part[0] >= 0


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.none() | st.integers(0, 10**13))
def test_a_content_range_is_read(start: int, more: int, whole: int | None) -> None:
    value = f"bytes {start}-{start + more}/{'*' if whole is None else whole}"
    assert parse_content_range(value) == (start, whole)
    assert more == 0 or parse_content_range(f"bytes {start + more}-{start}/*") is None


@given(st.integers(0, 10**9 - 1))
def test_retry_after_in_seconds(seconds: int) -> None:
    assert parse_retry_after(str(seconds), 0) == seconds


@given(st.integers(0, 4 * 10**9), st.integers(-(10**6), 10**6))
def test_retry_after_as_a_date(now: int, ahead: int) -> None:
    date = email.utils.formatdate(max(0, now + ahead), usegmt=True)
    assert parse_retry_after(date, float(now)) == max(0, max(0, now + ahead) - now)


@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, [0-9]+ [A-Z][a-z]{2} [0-9]+ [0-9:]+ .*", fullmatch=True))
def test_retry_after_never_raises_and_is_never_negative(value: str) -> None:
    pause = parse_retry_after(value, 1e9)
    assert pause is None or pause >= 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "/v2/himl/x/blobs/uploads/1?_state=a%2Fb",
            "https://registry.example:8443/v2/himl/x/blobs/uploads/1?_state=a%2Fb",
        ),
        ("1?x=y", BASE + "1?x=y"),
        ("https://registry.example:8443/other#part", "https://registry.example:8443/other"),
        ("HTTPS://REGISTRY.example:8443/other", "https://REGISTRY.example:8443/other"),
        ("http://registry.example/behind/tls", "https://registry.example:8443/behind/tls"),
        ("http://registry.example:8443/behind/tls", "https://registry.example:8443/behind/tls"),
    ],
)
def test_a_location_of_the_registry_is_followed(value: str, expected: str) -> None:
    assert location(value, BASE) == expected


@pytest.mark.parametrize(
    "value",
    [
        "https://elsewhere.example/v2/",
        "https://registry.example/v2/",
        "https://registry.example:8444/v2/",
        "http://registry.example:8080/v2/",
        "//elsewhere.example/v2/",
        "https://registry.example:8443@elsewhere.example/v2/",
        "https://user:word@registry.example:8443/v2/",
        "http://user:word@registry.example/v2/",
        "https://registry.example.elsewhere.example:8443/",
        "ftp://registry.example:8443/",
        "https://registry.example:99999/",
        "https://[::1/",
        "javascript:alert(1)",
        "/v2/a\r\nX-Injected: 1",
        "/v2/a b",
        "",
        None,
    ],
)
def test_a_location_elsewhere_is_refused_without_repeating_secrets(value: str | None) -> None:
    with pytest.raises(RegistryError) as caught:
        location(value, BASE + "?_state=hidden")
    assert "word" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@given(st.text(max_size=60) | st.from_regex(r"(https?:)?//[a-z@:.\[\]0-9\\]*/[a-z]*", fullmatch=True))
def test_a_location_is_of_the_same_origin_or_refused(value: str) -> None:
    try:
        found = location(value, BASE)
    except RegistryError:
        return
    assert origin(found) == origin(BASE)
    assert "@" not in urlsplit(found).netloc


@pytest.mark.parametrize(
    ("value", "base", "allowed"),
    [
        ("https://store.example/blob?sig=1", BASE, True),
        ("http://store.example/blob", BASE, False),
        ("http://127.0.0.1:9000/blob", BASE, False),
        ("http://127.0.0.1:9000/blob", "http://localhost:5000/v2/", True),
        ("http://store.example/blob", "http://localhost:5000/v2/", False),
        ("https://user@store.example/blob", BASE, False),
        ("file:///etc/passwd", BASE, False),
    ],
)
def test_a_redirect_of_a_read_may_leave_the_registry_by_https(value: str, base: str, allowed: bool) -> None:
    if allowed:
        assert location(value, base, elsewhere=True) == value
    else:
        with pytest.raises(RegistryError):
            location(value, base, elsewhere=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('</v2/x/referrers/d?n=1>; rel="next"', "https://registry.example:8443/v2/x/referrers/d?n=1"),
        ("</a>; rel=next", "https://registry.example:8443/a"),
        ('</first>; rel="first", </b>; title="x"; rel="next"', "https://registry.example:8443/b"),
        ('</a>; rel="prev"', None),
        ("nonsense", None),
        ("", None),
        (None, None),
    ],
)
def test_the_next_page_is_found(value: str | None, expected: str | None) -> None:
    assert next_page(value, BASE) == expected


def test_the_next_page_is_never_elsewhere() -> None:
    with pytest.raises(RegistryError):
        next_page('<https://elsewhere.example/a>; rel="next"', BASE)


@given(st.text(max_size=100))
def test_any_link_is_read_or_refused(value: str) -> None:
    try:
        found = next_page(value, BASE)
    except RegistryError:
        return
    assert found is None or origin(found) == origin(BASE)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps).map(str.encode)
)
def test_any_error_body_is_read(data: bytes) -> None:
    assert error_text(data).isprintable()
    assert all(isinstance(code, str) for code in error_codes(data))


def test_an_error_body_is_told_in_one_line() -> None:
    errors = [{"code": "DENIED", "message": "not\nyou\x1b[31m"}, {"message": "really"}, {"code": 3}, "x"]
    data = json.dumps({"errors": errors}).encode()
    assert error_text(data) == "DENIED: not you [31m; really"
    assert error_codes(data) == ("DENIED", "really")
    assert len(printable("x" * 1000)) == 300


@given(st.text(max_size=100))
def test_an_address_for_messages_has_no_secrets(text: str) -> None:
    assert "hidden" not in readable(f"https://user:hidden@host.example/path?hidden={text.replace('#', '')}#hidden")
    assert readable(text).isprintable()
