"""The example scripts, run as a reader would run them."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from kit import ROOT
from packaging.utils import parse_wheel_filename

EXAMPLES = ROOT / "examples"


SUBMITTED = ("2", "3", "4", "6", "7", "8", "9", "tensorboard")
"""Those that go to AzureML by hi-ml's functions; they share one environment."""


def run(script: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, script, *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("number", ["1", "2"])
@pytest.mark.parametrize(
    ("target", "expected"),
    [("103", "101"), ("3", "2"), ("4", "2, 3"), ("25", "2, 3, 5, 7, 11, 13, 17, 19, 23"), ("2", ""), ("-7", "")],
)
def test_primes_up_to_but_not_including_the_target(tmp_path: Path, number: str, target: str, expected: str) -> None:
    printed = run(EXAMPLES / number / "sample.py", "-n", target, cwd=tmp_path).strip()
    assert printed == expected or (target == "103" and printed.endswith(f", {expected}"))


def test_primes_written_to_outputs_are_those_that_are_printed(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "1" / "sample.py", "-n", "200", cwd=tmp_path).strip()
    run(EXAMPLES / "3" / "sample.py", "-n", "200", "-o", "mine.txt", cwd=tmp_path)
    assert (tmp_path / "outputs" / "mine.txt").read_text().split() == printed.split(", ")


def test_primes_of_an_output_dataset_are_in_a_folder_here(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "4" / "sample.py", "-n", "30", cwd=tmp_path)
    primes = (tmp_path / "outputs" / "himl_sample4_output" / "primes.txt").read_text()
    assert primes.split() == ["2", "3", "5", "7", "11", "13", "17", "19", "23", "29"]
    assert "10 primes below 30 are in primes.txt" in printed


@pytest.mark.parametrize(("number", "inputs"), [("6", []), ("7", ["--no-upload"]), ("8", [])])
def test_flowers_are_recognised(tmp_path: Path, number: str, inputs: list[str]) -> None:
    assert "150 flowers" in run(EXAMPLES / number / "inputs.py", *inputs, cwd=tmp_path)
    lines = (tmp_path / "dataset" / "X.csv").read_text().splitlines()
    assert (len(lines), lines[0]) == (151, "sepal_length,sepal_width,petal_length,petal_width")

    printed = run(EXAMPLES / number / "sample.py", "--kernel", "rbf", "--penalty", "1.5", cwd=tmp_path)
    words, _, accuracy = printed.strip().rpartition(" ")
    assert words == "kernel rbf, penalty 1.5: accuracy"
    assert 0.9 < float(accuracy) <= 1
    assert (tmp_path / "outputs" / "model.joblib").exists() == (number != "8")


def test_the_training_that_another_script_submits_runs_here_too(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "9", tmp_path / "9")
    assert "3 epochs, loss 0.6703" in run(Path("sample.py"), "--epochs", "3", cwd=tmp_path / "9")
    assert [step for step, _ in scalars(tmp_path / "9" / "outputs" / "tensorboard", "loss")] == [0, 1, 2]


def test_the_curve_that_tensorboard_shows(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "tensorboard" / "sample.py", "--points", "4", "--pause", "0", cwd=tmp_path)
    assert "4 points are in logs" in printed
    points = scalars(tmp_path / "logs", "wave")
    assert [step for step, _ in points] == [0, 1, 2, 3]
    assert points[3][1] == pytest.approx(0.29552)


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Return steps and values of one curve, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(one.step, one.value) for one in events.Scalars(tag)]


def test_every_example_has_what_the_documentation_says() -> None:
    for name in ("1", "5", *SUBMITTED):
        folder = EXAMPLES / name
        assert {"environment.yml", "sample.py", "README.md"} <= {path.name for path in folder.iterdir()}, name
    for name in ("2", "3", "4", "8", "9"):
        assert (EXAMPLES / name / "results.py").is_file(), name
    for name in ("5", "6", "7", "8"):
        assert (EXAMPLES / name / "inputs.py").is_file(), name


def test_the_examples_for_azureml_have_one_environment() -> None:
    for name in ("environment.yml", "pyproject.toml"):
        assert len({(EXAMPLES / number / name).read_bytes() for number in SUBMITTED}) == 1, name


def test_private_wheel_is_valid_and_the_same_every_time(tmp_path: Path) -> None:
    wheels = []
    for name, clock in (("first", 1_000_000_000), ("second", time.time())):
        folder = tmp_path / name
        shutil.copytree(EXAMPLES / "5", folder, ignore=shutil.ignore_patterns("wheels"))
        for path in folder.rglob("*"):
            os.utime(path, (clock, clock))
        wheels.append(Path(run(folder / "make_wheel.py", cwd=tmp_path).strip()))
    assert wheels[0].read_bytes() == wheels[1].read_bytes()

    name, version, _, _ = parse_wheel_filename(wheels[0].name)
    with zipfile.ZipFile(wheels[0]) as archive:
        assert archive.testzip() is None
        record = archive.read(f"{name}-{version}.dist-info/RECORD").decode().splitlines()
        listed = dict(line.split(",", 1) for line in record)
        assert set(listed) == set(archive.namelist())
        for member in set(listed) - {f"{name}-{version}.dist-info/RECORD"}:
            data = archive.read(member)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert listed[member] == f"sha256={digest},{len(data)}"


@pytest.mark.parametrize(("script", "number"), [("examples/5/make_wheel.py", "5"), ("scripts/job_wheel.py", "2")])
def test_private_wheel_is_where_the_settings_of_the_example_look_for_it(script: str, number: str) -> None:
    from himl_container.settings import load_settings

    run(ROOT / script, cwd=ROOT)
    settings = load_settings({}, cwd=EXAMPLES / number, environ={})
    assert [wheel.is_file() for wheel in settings.wheels] == [True]
