"""Names, durations and recovery ids."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.azureml.names import (
    azure_experiment_name,
    create_run_recovery_id,
    run_duration_string_to_seconds,
    split_recovery_id,
    to_azure_friendly_string,
)
from himl_container.errors import InputError


@pytest.mark.parametrize(
    ("text", "friendly"),
    [
        ("", ""),
        ("plain_Text9", "plain_Text9"),
        ("main/branch-1", "main_branch_1"),
        ("a  b__c_-_d", "a_b_c_d"),
        (" edges! ", "_edges_"),
        ("größe_ß", "größe_ß"),
        (None, None),
    ],
)
def test_friendly_strings(text: str | None, friendly: str | None) -> None:
    assert to_azure_friendly_string(text) == friendly


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("train", "train"),
        ("a-b c", "a_b_c"),
        ("größe", "gr_e"),
        ("__main__", "main_"),
        ("日本", "experiment"),
        ("", "experiment"),
        ("a" * 300, "a" * 255),
    ],
)
def test_what_azureml_takes_for_an_experiment(text: str, name: str) -> None:
    assert azure_experiment_name(text) == name


@given(st.text())
def test_any_text_becomes_an_experiment_that_azureml_takes(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,254}", azure_experiment_name(text))


@given(st.text())
def test_friendly_strings_have_no_other_characters(text: str) -> None:
    friendly = to_azure_friendly_string(text)
    assert friendly is not None
    assert all(letter == "_" or letter.isalnum() for letter in friendly)
    assert "__" not in friendly
    assert to_azure_friendly_string(friendly) == friendly


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("  ", None),
        ("10s", 10),
        (" 2.5m ", 150),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("0.0166667m", 1),
        ("1e3s", 1000),
        ("-5s", -5),
    ],
)
def test_durations(text: str, seconds: int | None) -> None:
    assert run_duration_string_to_seconds(text) == seconds


@pytest.mark.parametrize("text", ["10", "h", "10H", "10 hours", "ten s", "nans", "infd", "1,5h", "5w", "1e400s"])
def test_malformed_durations(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid duration") as caught:
        run_duration_string_to_seconds(text)
    assert isinstance(caught.value, InputError)
    assert text in str(caught.value)


@given(st.text(max_size=20))
def test_durations_are_understood_or_refused(text: str) -> None:
    try:
        seconds = run_duration_string_to_seconds(text)
    except ValueError as error:
        assert "1.5h" in str(error)
    else:
        assert (seconds is None) == (not text.strip())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("experiment:run", ("experiment", "run")),
        (" experiment:HD_4f5e-1a \n", ("experiment", "HD_4f5e-1a")),
        (":", ("", "")),
        ("name_1612345678_1a2b3c4d", ("name", "name_1612345678_1a2b3c4d")),
        ("a_name_12_34_abc", ("a_name_12", "a_name_12_34_abc")),
        ("name_1612345678", ("name", "name_1612345678")),
        ("größe_1_a", ("größe", "größe_1_a")),
    ],
)
def test_recovery_ids(text: str, parts: tuple[str, str]) -> None:
    assert split_recovery_id(text) == parts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:b:c", "recovery_id must be in the format: 'experiment_name:run_id', but got: a:b:c"),
        ("plain", "The recovery ID was not in the expected format: plain"),
        ("", "The recovery ID was not in the expected format: "),
        ("HD_4f5e-1a", "The recovery ID was not in the expected format: HD_4f5e-1a"),
        ("name_1612345678_xyz", "The recovery ID was not in the expected format: name_1612345678_xyz"),
    ],
)
def test_malformed_recovery_ids(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"recovery.ID|recovery_id") as caught:
        split_recovery_id(text)
    assert said in str(caught.value)


def test_made_recovery_ids_are_split_again() -> None:
    run = SimpleNamespace(id="HD_12-3", experiment=SimpleNamespace(name="exp"))
    assert create_run_recovery_id(run) == "exp:HD_12-3"
    assert split_recovery_id(create_run_recovery_id(run)) == ("exp", "HD_12-3")
