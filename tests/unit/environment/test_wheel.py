"""A private wheel is untrusted input."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himl_container.environment.model import Origin, PrivateWheel
from himl_container.environment.wheel import check_tags, inspect_wheel
from himl_container.errors import InputError

from .wheels import write_wheel

NAME = "mylib-1.0-py3-none-any.whl"


def inspect(path: Path) -> PrivateWheel:
    return inspect_wheel(path, origin=Origin("--wheel"))


def test_a_good_wheel(tmp_path: Path) -> None:
    entries = {"mylib-1.0.data/scripts/tool": b"#!python", "mylib/data/x y.txt": b"", "mylib/ünïcode.py": b""}
    path = write_wheel(tmp_path / NAME, entries=entries)
    found = inspect(path)
    assert (found.name, found.version, found.filename) == ("mylib", "1.0", NAME)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.size == path.stat().st_size


def test_names_are_compared_as_pypi_does(tmp_path: Path) -> None:
    path = write_wheel(tmp_path / "My_Lib-1.0.0-py3-none-any.whl", name="My.Lib", version="1.0")
    assert inspect(path).name == "my-lib"


@pytest.mark.parametrize(
    "entry",
    [
        "../evil.py",
        "mylib/../../evil.py",
        "/etc/evil",
        "C:/evil",
        "mylib\\evil.py",
        "mylib//evil.py",
        "./evil.py",
        "mylib-1.0.data/data/../../../evil",
        "mylib-1.0.data//etc/evil",
        "mylib-1.0.data/other/evil",
        "a\nb.py",
        "a\x7fb.py",
    ],
)
def test_an_entry_that_would_leave_its_place(tmp_path: Path, entry: str) -> None:
    path = write_wheel(tmp_path / NAME, entries={entry: b""})
    with pytest.raises(InputError) as caught:
        inspect(path)
    assert caught.value.where == str(path)
    assert repr(entry)[1:-1] in caught.value.what


def test_a_nul_hides_the_rest_of_a_name(tmp_path: Path) -> None:
    path = write_wheel(tmp_path / NAME, entries={"mylib/aXb.py": b""})
    path.write_bytes(path.read_bytes().replace(b"aXb.py", b"a\0b.py"))
    with pytest.raises(InputError, match="control characters"):
        inspect(path)


@pytest.mark.parametrize(
    ("mode", "message"), [(stat.S_IFLNK | 0o777, "symbolic link"), (stat.S_IFIFO | 0o644, "special file")]
)
def test_special_entries(tmp_path: Path, mode: int, message: str) -> None:
    info = zipfile.ZipInfo("mylib/link")
    info.external_attr = mode << 16
    with pytest.raises(InputError, match=message):
        inspect(write_wheel(tmp_path / NAME, infos=[info]))


def test_an_entry_twice(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_wheel(tmp_path / NAME, infos=[zipfile.ZipInfo("mylib.py")])
    with pytest.raises(InputError, match="twice"):
        inspect(path)


@pytest.mark.parametrize("part", ["METADATA", "WHEEL", "RECORD"])
def test_a_part_is_missing(tmp_path: Path, part: str) -> None:
    with pytest.raises(InputError, match=f"has no mylib-1.0.dist-info/{part}"):
        inspect(write_wheel(tmp_path / NAME, leave_out=part))


def test_it_is_not_what_its_name_says(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"should have one \.dist-info folder"):
        inspect(write_wheel(tmp_path / NAME, name="other"))
    with pytest.raises(InputError, match=r"should have one \.dist-info folder"):
        inspect(write_wheel(tmp_path / NAME, entries={"other-1.dist-info/METADATA": b""}))
    wrong = {"mylib-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\n"}
    with pytest.raises(InputError, match=r"its METADATA says 'other 1.0'"):
        inspect(write_wheel(tmp_path / NAME, entries=wrong))


def test_files_that_are_no_wheels(tmp_path: Path) -> None:
    whole = write_wheel(tmp_path / NAME).read_bytes()
    for content in (b"", b"PK\x03\x04 but not really", whole[: len(whole) // 2], whole[:-10]):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(InputError, match="not a whole wheel"):
            inspect(tmp_path / NAME)
    with pytest.raises(InputError, match="no such wheel"):
        inspect(tmp_path / "gone-1-py3-none-any.whl")
    with pytest.raises(InputError, match="not the name of a wheel"):
        inspect(write_wheel(tmp_path / "mylib.whl"))
    folder = tmp_path / "folder-1-py3-none-any.whl"
    folder.mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        inspect(folder)
    fifo = tmp_path / "fifo-1-py3-none-any.whl"
    os.mkfifo(fifo)
    with pytest.raises(InputError, match="not a regular file"):
        inspect(fifo)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_never_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = write_wheel(tmp_path_factory.getbasetemp() / NAME)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        found = inspect(path)
    except InputError:
        return
    assert found.sha256 == hashlib.sha256(bytes(content)).hexdigest()


@pytest.mark.parametrize(
    "filename",
    [
        "x-1-py3-none-any.whl",
        "x-1-py2.py3-none-any.whl",
        "x-1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "x-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "x-1-cp311-cp311-manylinux1_x86_64.whl",
        "x-1-cp311-cp311-linux_x86_64.whl",
        "x-1-cp39-abi3-manylinux2014_x86_64.whl",
        "x-1-py3-none-manylinux2010_x86_64.whl",
    ],
)
def test_wheels_that_fit(filename: str) -> None:
    check_tags(filename, "3.11.7", "linux-64", "2.28")


@pytest.mark.parametrize(
    ("filename", "message"),
    [
        ("x-1-cp310-cp310-linux_x86_64.whl", "was built for cp310-cp310; the environment has Python 3.11.7"),
        ("x-1-cp312-abi3-linux_x86_64.whl", "was built for cp312-abi3"),
        ("x-1-cp311-cp311-win_amd64.whl", "was built for win_amd64; the image is linux-64 with glibc 2.28"),
        ("x-1-cp311-cp311-macosx_11_0_arm64.whl", "was built for macosx_11_0_arm64"),
        ("x-1-cp311-cp311-musllinux_1_2_x86_64.whl", "was built for musllinux_1_2_x86_64"),
        ("x-1-cp311-cp311-manylinux_2_35_x86_64.whl", "was built for manylinux_2_35_x86_64"),
        ("x-1-cp311-cp311-linux_aarch64.whl", "was built for linux_aarch64"),
        ("x-1-py2-none-any.whl", "was built for py2-none"),
        ("x.whl", "not the name of a wheel"),
    ],
)
def test_wheels_that_do_not_fit(filename: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_tags(filename, "3.11.7", "linux-64", "2.28", where="/w/x.whl")
    assert message in caught.value.what
    assert caught.value.where == "/w/x.whl"
