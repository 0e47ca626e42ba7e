from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himl_container.environment.lock_reader import read_lock_text
from himl_container.environment.lockfile import lock_text, read_lock, write_lock
from himl_container.environment.model import Lock
from himl_container.errors import HimlError, InputError, StaleLockError, StorageError

from . import locks

SMALL = locks.lock(
    variables=(("LEVEL", 'a "quoted"\nline \\ é'),),
    conda=(locks.conda("zlib", depends=("libgcc >=13", "__glibc >=2.17,<3.0.a0")), locks.conda("python", "3.11.7")),
    wheels=(
        locks.wheel("built", url="", sdist_url="https://files.example/built-1.0.tar.gz", sdist_sha256="d" * 64),
        locks.wheel("mylib", url="", private=True),
        locks.wheel("six", "1.16.0"),
    ),
)


@given(locks.locks)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_what_is_read(lock: Lock) -> None:
    text = lock_text(lock)
    read = read_lock_text(text, where="lock")
    assert read == lock
    assert lock_text(read) == text


@given(locks.locks)
@settings(max_examples=40, deadline=None)
def test_the_file_is_a_valid_pylock(lock: Lock) -> None:
    pylock = pytest.importorskip("packaging.pylock")
    if sys.version_info < (3, 11):
        import tomli as tomllib
    else:
        import tomllib
    parsed = pylock.Pylock.from_dict(tomllib.loads(lock_text(lock)))
    assert [package.name for package in parsed.packages] == [wheel.name for wheel in lock.wheels]


def test_the_text_is_as_in_the_golden_file() -> None:
    golden = Path(__file__).parents[2] / "golden" / "pylock.himl.toml"
    assert lock_text(SMALL) == golden.read_text(encoding="utf-8")


def test_the_order_in_which_a_lock_was_put_together_does_not_show() -> None:
    assert lock_text(dataclasses.replace(SMALL, wheels=tuple(reversed(SMALL.wheels)))) == lock_text(SMALL)


def test_one_more_package_is_one_more_block_in_the_difference() -> None:
    before = lock_text(locks.lock(conda_count=5)).splitlines()
    after = lock_text(locks.lock(conda_count=6)).splitlines()
    assert after[: len(before)] == before


def test_uv_reads_the_wheels(tmp_path: Path) -> None:
    from uv import find_uv_bin

    path = tmp_path / "pylock.toml"
    path.write_text(lock_text(locks.lock(wheels=())))
    environment = tmp_path / "env"
    subprocess.run([find_uv_bin(), "venv", "--quiet", "--offline", environment], check=True)
    done = subprocess.run(
        [find_uv_bin(), "pip", "install", "--dry-run", "--offline", "--python", environment, "-r", path],
        capture_output=True,
        text=True,
        check=False,
    )
    # Another Python than the lock's is refused with reference to requires-python: that too was read from our file.
    assert done.returncode == 0 or "requires-python" in done.stderr.replace("`", ""), done.stderr


def test_a_missing_lock_is_a_stale_lock(tmp_path: Path) -> None:
    with pytest.raises(StaleLockError) as caught:
        read_lock(tmp_path / "none.toml")
    assert "himl-container lock" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('sha256 = "' + "a" * 64, 'sha256 = "' + "a" * 63, "sha256"),
        ("/linux-64/zlib-1.0-h1_0.conda", "/linux-64/..%2f..%2fzlib", "archive"),
        ("https://conda.anaconda.org/conda-forge/linux-64/zlib", "ftp://conda.anaconda.org/zlib", "address"),
        ("https://conda.anaconda.org/conda-forge/linux-64/zlib", "https://user:secret@host/zlib", "address"),
        ('name = "zlib"', 'name = "../zlib"', "name"),
        ('name = "zlib"', 'name = "z\\nlib"', "name"),
        ('name = "zlib"', 'name = "python"', "twice"),
        ('name = "zlib"', "name = 3", "string"),
        ("build-number = 0", "build-number = -1", "number"),
        ("build-number = 0", "build-number = true", "number"),
        ('name = "six-1.16.0-py3-none-any.whl"', 'name = "../six-1.16.0-py3-none-any.whl"', "file name"),
        ('name = "six-1.16.0-py3-none-any.whl"', 'name = "ten-1.16.0-py3-none-any.whl"', "another package"),
        ('name = "six-1.16.0-py3-none-any.whl"', 'name = "six.exe"', "no wheel"),
        ('digest = "sha256:cc', 'digest = "cc', "digest"),
        ('reference = "ubuntu:22.04"', 'reference = "ubuntu:22.04\\nRUN sh"', "image reference"),
        ('"libgcc >=13"', "13", "strings"),
        ('"LEVEL"', "LEVEL = LEVEL", "TOML"),
        ("LEVEL =", '"A=B" =', "A=B"),
        ("format = 1", "format = 2", "newer"),
        ('lock-version = "1.0"', 'lock-version = "2.0"', "newer"),
        ('lock-version = "1.0"', "", "not a lock"),
        ("format = 1", "", "format"),
        ('subdir = "linux-64"', 'subdir = "../.."', "Conda folder"),
    ],
)
def test_a_damaged_lock_is_an_error_that_says_where(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = lock_text(SMALL)
    if old == '"LEVEL"':
        old = "LEVEL ="
        new = "LEVEL = LEVEL ="
    assert old in text
    path = tmp_path / "pylock.himl.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_lock(path)
    assert says in caught.value.what
    assert caught.value.where.startswith(str(path))
    assert "secret" not in str(caught.value)


def test_the_error_names_the_line(tmp_path: Path) -> None:
    lines = lock_text(SMALL).splitlines()
    second = [number for number, line in enumerate(lines, 1) if line == "[[tool.himl-container.conda]]"][1]
    path = tmp_path / "lock.toml"
    path.write_text("\n".join(lines).replace('name = "python"', 'name = "PYTHON"'))
    with pytest.raises(InputError) as caught:
        read_lock(path)
    assert caught.value.where == f"{path}:{second}"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_lock_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    with pytest.raises(HimlError):
        read_lock(path)


@given(st.integers(0, 10_000), st.sampled_from(['"', "\n", "=", "[", "x", "\0", "é"]))
@settings(max_examples=150, deadline=None)
def test_a_lock_with_a_character_changed_is_a_lock_or_an_error(place: int, character: str) -> None:
    text = lock_text(SMALL)
    place %= len(text)
    try:
        lock = read_lock_text(text[:place] + character + text[place + 1 :], where="lock")
    except InputError:
        return
    assert read_lock_text(lock_text(lock), where="lock") == lock


def test_writing_keeps_an_equal_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "pylock.himl.toml"
    write_lock(SMALL, path)
    os.utime(path, (1, 1))
    write_lock(SMALL, path)
    assert path.stat().st_mtime == 1
    write_lock(locks.lock(), path)
    assert read_lock(path) == locks.lock()
    assert [entry.name for entry in path.parent.iterdir()] == ["pylock.himl.toml"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_symbolic_link_is_not_written_through_and_not_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "lock.toml"
    target.write_text("precious")
    link.symlink_to(target)
    with pytest.raises(InputError, match="symbolic link"):
        write_lock(SMALL, link)
    assert target.read_text() == "precious"
    assert link.is_symlink()


def test_a_failed_write_leaves_the_old_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock.toml"
    write_lock(SMALL, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_lock(locks.lock(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
