from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.emulator.http import Refusal
from himl_container.emulator.services.odata import Fields, page, parse_filter, seconds

FIELDS: Fields = {
    "runid": "a",
    "status": "Running",
    "parentrunid": None,
    "createdutc": 1_600_000_000.0,
    "tags/Mine": "yes (really) and more",
    "tags/empty": None,
    "properties/azureml.runsource": "hyperdrive",
    "runtypev2/traits/unspecified": "unspecified",
}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True),
        ("(Status eq Running)", True),
        ("Status ne Running", False),
        ("(ParentRunId eq null)", True),
        ("(RunId eq b or RunId eq a)", True),
        ("RunId eq b or RunId eq c", False),
        ("((Status eq Failed) and (RunId eq a))", False),
        # and binds before or
        ("RunId eq a or RunId eq b and Status eq Failed", True),
        ("(Tags/Mine ne null or Tags/Mine eq null)", True),
        ("(Tags/empty ne null or Tags/empty eq null)", True),
        ("(Tags/mine ne null or Tags/mine eq null)", False),
        ('(Tags/Mine eq "yes (really) and more")', True),
        ("(Tags/empty eq null)", True),
        ("(Tags/none eq null)", False),
        ("(RunType eq hyperdrive or Properties/azureml.runsource eq hyperdrive)", True),
        ("(RunTypeV2/Traits/unspecified ne null) or (RunTypeV2/Traits/unspecified eq null)", True),
        ("(CreatedUtc ge 2020-01-01 00:00:00)", True),
        ("(CreatedUtc ge 2020-09-13 12:26:41+00:00)", False),
        ("CreatedUtc gt 2020-01-01T00:00:00.1234567Z", True),
        ("(Status gt 3)", True),
        ("ParentRunId lt x", False),
    ],
)
def test_filters_of_the_sdk(text: str, passes: bool) -> None:
    assert parse_filter(text)(FIELDS) is passes


@pytest.mark.parametrize(
    "text",
    [
        "(",
        "RunId",
        "RunId eq a)",
        "(RunId eq a",
        "eq a",
        "CreatedUtc gt yesterday",
        'a eq "b',
        "(" * 5000,
        "x" * 100_001,
    ],
)
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_filter(text)
    assert refused.value.status == 400


VALUES = st.text(string.printable, min_size=1, max_size=20).filter(lambda text: '"' not in text)


@given(VALUES)
def test_a_value_in_quotes_is_found_whatever_is_in_it(value: str) -> None:
    passes = parse_filter(f'((Tags/name eq "{value}") and (Status eq Running))')
    assert passes({"tags/name": value, "status": "Running"})
    assert not passes({"tags/name": f"{value}x", "status": "Running"})


@given(st.text(alphabet='ab()" eqnullandor/', max_size=40))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        parse_filter(text)(FIELDS)
    except Refusal as refusal:
        assert refusal.status == 400


@given(st.lists(st.one_of(st.none(), st.integers(0, 5).map(float)), max_size=12), st.integers(1, 5), st.booleans())
def test_pages_together_are_the_whole_in_order(values: list[float | None], top: int, down: bool) -> None:
    items = list(enumerate(values))
    shown: list[tuple[int, float | None]] = []
    token: str | None = ""
    while token is not None:
        order = "value desc" if down else "value asc"
        some, token = page(
            items, lambda item: {"value": item[1]}, order=order, top=top, token=token, key=lambda item: f"{item[0]:03}"
        )
        assert len(some) <= top
        shown += some
    ranked = sorted(items, key=lambda item: (-1.0 if item[1] is None else item[1], item[0]), reverse=down)
    assert shown == ranked


def test_times_without_a_zone_are_utc() -> None:
    assert seconds("1970-01-01 00:00:10") == 10
    assert seconds("1970-01-01T01:00:10+01:00") == 10
