"""What a registry writes into WWW-Authenticate is read by the grammar, and nothing that it may write does harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.registry.challenges import Challenge, parse_challenges

REALM = "https://auth.example/token"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ('Basic realm="a registry"', [("basic", {"realm": "a registry"})]),
        ("Basic", [("basic", {})]),
        (
            f'Bearer realm="{REALM}",service="s",scope="repository:a/b:pull,push",error="invalid_token"',
            [
                (
                    "bearer",
                    {"realm": REALM, "service": "s", "scope": "repository:a/b:pull,push", "error": "invalid_token"},
                )
            ],
        ),
        (f'BEARER Realm = "{REALM}" , SERVICE=s', [("bearer", {"realm": REALM, "service": "s"})]),
        (f"Bearer realm={REALM},service=s", [("bearer", {"realm": REALM, "service": "s"})]),
        (
            f'Negotiate abc==, Bearer realm="{REALM}", Basic realm="x"',
            [("negotiate", {}), ("bearer", {"realm": REALM}), ("basic", {"realm": "x"})],
        ),
        ('Basic realm="x", Negotiate', [("basic", {"realm": "x"}), ("negotiate", {})]),
        (r'Basic realm="a \"quoted\" word, and \\ more"', [("basic", {"realm": r'a "quoted" word, and \ more'})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ('Basic realm="never ends', [("basic", {})]),
        (', , Basic realm="x",,', [("basic", {"realm": "x"})]),
        ('Basic realm=""', [("basic", {"realm": ""})]),
        ('="x"', []),
    ],
)
def test_headers(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(one.scheme, dict(one.parameters)) for one in parse_challenges(header)] == expected


@given(st.text(alphabet=st.sampled_from('abBR =,"\\\t;:/é\r\n\x00')))
def test_any_text_is_read_without_an_error(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme
        assert all(name == name.lower() for name in challenge.parameters)


WORDS = st.text(alphabet="abcxyz0189-_.", min_size=1, max_size=8)
SCHEMES = st.lists(
    st.tuples(
        st.sampled_from(["Basic", "Bearer", "Digest"]),
        st.dictionaries(WORDS, st.text(max_size=12).filter(lambda text: "\r" not in text), max_size=4),
    ),
    max_size=4,
)


@given(SCHEMES)
def test_what_is_written_by_the_grammar_comes_back(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges(header) == tuple(Challenge(scheme.lower(), parameters) for scheme, parameters in challenges)


def test_a_very_long_header_takes_no_time() -> None:
    for piece in ('Bearer realm="', "a=", "a ,", '\\"', " " * 50):
        assert len(parse_challenges(piece * 200_000)) < 20_000
