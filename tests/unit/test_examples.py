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


def run(script: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, script, *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("target", "expected"),
    [("103", "101"), ("3", "2"), ("4", "2, 3"), ("25", "2, 3, 5, 7, 11, 13, 17, 19, 23"), ("2", ""), ("-7", "")],
)
def test_primes_up_to_but_not_including_the_target(tmp_path: Path, target: str, expected: str) -> None:
    printed = run(EXAMPLES / "1" / "sample.py", "-n", target, cwd=tmp_path).strip()
    assert printed == expected or (target == "103" and printed.endswith(f", {expected}"))


def test_primes_written_to_outputs_are_those_that_are_printed(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "1" / "sample.py", "-n", "200", cwd=tmp_path).strip()
    run(EXAMPLES / "3" / "sample.py", "-n", "200", "-o", "mine.txt", cwd=tmp_path)
    assert (tmp_path / "outputs" / "mine.txt").read_text().split() == printed.split(", ")


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
        for path in set(listed) - {f"{name}-{version}.dist-info/RECORD"}:
            data = archive.read(path)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert listed[path] == f"sha256={digest},{len(data)}"


def test_private_wheel_is_where_the_settings_of_the_example_look_for_it() -> None:
    from himl_container.settings import load_settings

    run(EXAMPLES / "5" / "make_wheel.py", cwd=ROOT)
    settings = load_settings({}, cwd=EXAMPLES / "5", environ={})
    assert [wheel.is_file() for wheel in settings.wheels] == [True]
