from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.errors import InputError
from himl_container.launch import parse


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("1.5h", 5400), ("2m", 120), (" 1d ", 86400), (".5s", 0.5), ("3. m", 180)]
)
def test_durations_as_hi_ml_writes_them(text: str, seconds: float) -> None:
    assert parse.parse_duration(text, "--max-duration") == seconds


@pytest.mark.parametrize("text", ["", "s", "10", "1H", "-1s", "0s", "1e3s", "nans", "1s\n2s", "\u0661s", "1.2.3h"])
def test_what_is_no_duration_names_the_flag(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse.parse_duration(text, "--max-duration")
    assert caught.value.where == "--max-duration"


@given(st.text())
def test_any_text_is_a_duration_or_an_input_error(text: str) -> None:
    with contextlib.suppress(InputError):
        assert parse.parse_duration(text, "x") > 0


def test_a_list_of_durations() -> None:
    assert parse.parse_durations("30s, 1m", "--preempt") == (30, 60)
    with pytest.raises(InputError):
        parse.parse_durations("30s,", "--preempt")


@pytest.mark.parametrize(
    ("text", "size"), [("2g", 2 << 30), ("512m", 512 << 20), ("1.5G", 3 << 29), ("65536", 65536), ("2GiB", 2 << 30)]
)
def test_sizes_as_docker_writes_them(text: str, size: int) -> None:
    assert parse.parse_size(text, "--shm-size") == size


@pytest.mark.parametrize("text", ["", "g", "-1g", "1x", "1 2g", "0", "1k", "2ggg"])
def test_what_is_no_usable_size(text: str) -> None:
    with pytest.raises(InputError):
        parse.parse_size(text, "--shm-size")


@pytest.mark.parametrize(
    ("text", "value"), [("auto", "auto"), ("ALL", "all"), ("none", "none"), ("0", "none"), ("02", "2")]
)
def test_gpus(text: str, value: str) -> None:
    assert parse.parse_gpus(text, "--gpus") == value


@pytest.mark.parametrize("text", ["", "-1", "two", "1.5", "9999"])
def test_what_is_no_number_of_gpus(text: str) -> None:
    with pytest.raises(InputError):
        parse.parse_gpus(text, "--gpus")


@given(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True),
    st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
def test_a_variable_keeps_every_character_of_its_value(name: str, value: str) -> None:
    assert parse.parse_variable(f"{name}={value}", "--env") == (name, value)


@pytest.mark.parametrize("text", ["=x", "A B=x", "1A=x", "A-B=x", "A\n=x", "Ä=x", "A$(id)=x"])
def test_a_variable_needs_a_name(text: str) -> None:
    with pytest.raises(InputError):
        parse.parse_variable(text, "--env")


@pytest.mark.parametrize("value", ["s3cret\0", "s3cret\udcff"])
def test_the_value_of_a_refused_variable_is_not_told(value: str) -> None:
    with pytest.raises(InputError) as caught:
        parse.parse_variable(f"TOKEN={value}", "--env")
    assert "s3cret" not in str(caught.value)
