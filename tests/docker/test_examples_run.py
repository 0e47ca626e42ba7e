"""Every example in a container on this machine: ``himl-container run --local``, all with one image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from example_folders import SHARED, Examples

pytestmark = [pytest.mark.docker, pytest.mark.network, pytest.mark.slow]


@pytest.fixture(scope="session")
def in_container(built_examples: Examples) -> Examples:
    return built_examples


def outputs(examples: Examples, number: str) -> Path:
    return examples.folder / number / "runs" / "latest" / "outputs"


def test_equal_environments_are_one_image(in_container: Examples) -> None:
    assert len({tag_of(number, in_container) for number in SHARED}) == 1


def test_a_script_that_knows_nothing_of_us(in_container: Examples) -> None:
    # Python alone: any image with it will do.
    image = tag_of("2", in_container)
    assert in_container.himl("1", "run", "--local", "--image", image, "sample.py", "-n", "103").endswith("97, 101\n")


def test_primes(in_container: Examples) -> None:
    assert in_container.himl("2", "run", "--local", "sample.py", "-n", "103").endswith("97, 101\n")


def test_primes_in_an_output_file(in_container: Examples) -> None:
    in_container.himl("3", "run", "--local", "sample.py", "-n", "20", "-o", "mine.txt")
    assert (outputs(in_container, "3") / "mine.txt").read_text().split() == ["2", "3", "5", "7", "11", "13", "17", "19"]


def test_primes_in_a_folder_that_is_mounted_as_the_output_dataset(in_container: Examples, tmp_path: Path) -> None:
    in_container.himl("4", "run", "--local", "--output", f"OUTPUT_0={tmp_path}", "sample.py", "-n", "10")
    assert (tmp_path / "primes.txt").read_text().split() == ["2", "3", "5", "7"]
    in_container.himl("4", "run", "--local", "sample.py", "-n", "6")
    there = outputs(in_container, "4") / "himl_sample4_output" / "primes.txt"
    assert there.read_text().split() == ["2", "3", "5"]


def test_flowers_from_a_dataset_that_another_run_wrote(in_container: Examples, tmp_path: Path) -> None:
    written = in_container.himl("6", "run", "--local", "--output", f"OUTPUT_0={tmp_path}", "inputs.py")
    assert "150 flowers" in written
    printed = in_container.himl("6", "run", "--local", "--dataset", f"INPUT_0={tmp_path}", "sample.py", "--kernel=rbf")
    assert "kernel rbf, penalty 1: accuracy 0.9" in printed
    assert (outputs(in_container, "6") / "model.joblib").stat().st_size > 1000


@pytest.mark.parametrize(("number", "inputs"), [("7", ["--no-upload"]), ("8", [])])
def test_flowers_that_travel_in_the_snapshot(in_container: Examples, number: str, inputs: list[str]) -> None:
    in_container.himl(number, "run", "--local", "--live", "inputs.py", *inputs)
    assert "accuracy 0.9" in in_container.himl(number, "run", "--local", "sample.py", "--kernel", "poly")


@pytest.mark.parametrize(
    ("number", "words", "folder"),
    [
        ("9", ["training.py", "--epochs=2"], "outputs"),
        ("tensorboard", ["sample.py", "--points=2", "--pause=0"], "logs"),
    ],
)
def test_what_tensorboard_shows(in_container: Examples, number: str, words: list[str], folder: str) -> None:
    in_container.himl(number, "run", "--local", *words)
    (events,) = (outputs(in_container, number).parent / folder).rglob("events.out.tfevents.*")
    assert events.stat().st_size > 0


def tag_of(number: str, examples: Examples) -> str:
    """Return the name of an example's image, which is there."""
    return str(json.loads(examples.himl(number, "build", "--json").splitlines()[-1])["tag"])
