from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.emulator.data.dataflow import parse_dataflow
from himl_container.emulator.data.transformations import transformations_of
from himl_container.emulator.http import DEEPEST, Refusal, Request, parse_json
from himl_container.errors import InputError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_json_is_what_python_reads(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


def nested(depth: int, opening: str = "[", closing: str = "]", inside: str = "") -> str:
    return opening * depth + inside + closing * depth


def test_values_are_nested_so_deep_and_no_deeper() -> None:
    for words in ((), ('{"a":', "}", "1"), ('[0,{"a":[],"b":', "}]", "{}")):
        levels = DEEPEST + 1 if words[:1] != ('[0,{"a":[],"b":',) else DEEPEST // 2
        parse_json(nested(levels, *words))
        with pytest.raises(ValueError, match="nested"):
            parse_json(nested(levels + 1, *words))


@pytest.mark.parametrize("depth", [DEEPEST + 2, 5_000, 1_000_000])
def test_a_body_that_is_nested_too_deep_is_refused(depth: int) -> None:
    for body in (nested(depth), '{"a":' * depth, '{"a":[' * depth):
        with pytest.raises(Refusal) as caught:
            Request("POST", "h", "/", body=body.encode()).json()
        assert caught.value.status == 400


@pytest.mark.parametrize("depth", [DEEPEST + 2, 200_000])
def test_a_definition_that_is_nested_too_deep_is_refused(depth: int) -> None:
    """The native reader of YAML would end the process."""
    for text in (
        f"paths: {nested(depth)}",
        f"paths: {nested(depth, '{a: ', '}')}",
        "paths:\n" + "- " * depth + "a",
        json.dumps({"meta": {"RsDataflow": f"paths: {nested(depth)}"}}),
        '{"blocks": ' + nested(depth) + "}",
    ):
        with pytest.raises(InputError):
            parse_dataflow(text)
    with pytest.raises(InputError):
        transformations_of('{"blocks": ' + nested(depth) + "}")
