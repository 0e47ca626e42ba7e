"""Datasets and outputs as they are written: the flag's notation, and the table of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.errors import InputError
from himl_container.launch.data_choice import DataChoice, choice_of, parse_choice

BASE = Path("/base")


def dataset(text: str) -> DataChoice:
    return parse_choice(text, "dataset", where="--dataset", base=BASE)


def test_a_folder() -> None:
    assert dataset("iris=data/iris") == DataChoice("iris", BASE / "data/iris", "iris", where="--dataset")


def test_a_dataset_of_the_workspace() -> None:
    assert dataset("iris") == DataChoice("iris", None, "iris", where="--dataset")
    assert dataset("iris=datastore=blobs,version=2").version == 2
    assert dataset("iris=version=latest").version is None


def test_everything() -> None:
    text = "iris=./iris,name=flowers/iris,datastore=blobs,version=12,mode=download,target=/data/iris"
    assert dataset(text) == DataChoice(
        "iris", BASE / "iris", "flowers/iris", "blobs", 12, "download", "/data/iris", "--dataset"
    )


def test_an_output() -> None:
    choice = parse_choice("model=./out,mode=upload", "output", where="--output", base=BASE)
    assert (choice.local, choice.mode) == (BASE / "out", "upload")


@pytest.mark.parametrize("folder", ["a,b", "a=b", "a,b=c", "a b", "target/x", "./version=3", "versions=3"])
def test_folders_of_any_name(folder: str) -> None:
    assert dataset(f"iris={folder}").local == BASE / folder
    assert dataset(f"iris={folder},version=3").local == BASE / folder


def test_a_folder_whose_name_looks_like_a_key() -> None:
    assert dataset("iris=local=version=3").local == BASE / "version=3"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("iris=", "nothing after"),
        ("=x", "cannot be the name"),
        ("a/b=/data", "cannot be the name"),
        ("../x=/data", "cannot be the name"),
        ("-a=/d", "cannot be the name"),
        ("a\n=/d", "cannot be the name"),
        ("iris=version=0", "not a version"),
        ("iris=version=-1", "not a version"),
        ("iris=version=two", "not a version"),
        ("iris=mode=upload", "not a mode"),
        ("iris=datastore=", "empty"),
        ("iris=a,local=b", "a folder twice"),
        ("iris=mode=mount,mode=download", "twice"),
        ("iris=name=../x", "cannot be the name"),
        ("iris=name=//", "cannot be the name"),
        ("iris=name=a\nb", "cannot be the name"),
        ("iris=a\0b", "empty, or no text"),
    ],
)
def test_what_cannot_be(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        dataset(text)
    assert caught.value.where == "--dataset"


def test_an_output_has_no_version() -> None:
    # "version=2" is then no key, and so a folder's name
    choice = parse_choice("model=version=2", "output", where="--output", base=BASE)
    assert choice.local == BASE / "version=2"
    with pytest.raises(InputError, match="unknown key 'version'"):
        choice_of("model", {"version": 2}, "output", where="x", base=BASE)


def test_a_table_says_the_same_as_the_flag() -> None:
    table = {"local": "iris", "name": "flowers/iris", "datastore": "blobs", "version": 2, "target": "/data"}
    text = "iris,name=flowers/iris,datastore=blobs,version=2,target=/data"
    from_table = choice_of("iris", table, "dataset", where="x", base=BASE)
    assert from_table == choice_of("iris", text, "dataset", where="x", base=BASE)
    assert from_table == parse_choice(f"iris={text}", "dataset", where="x", base=BASE)


@pytest.mark.parametrize("value", [3, True, ["a"], {"folder": "x"}, {"version": True}, {"version": 1.5}, {"local": ""}])
def test_a_table_that_cannot_be(value: object) -> None:
    with pytest.raises(InputError):
        choice_of("iris", value, "dataset", where="x", base=BASE)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        choice = dataset(text)
    except InputError:
        return
    assert text.startswith(choice.name)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0,"), min_size=1, max_size=30))
def test_any_folder_can_be_written(folder: str) -> None:
    if folder.strip() and not folder.startswith("~"):
        assert dataset(f"iris=local={folder}").local == BASE / folder
