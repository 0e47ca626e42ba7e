"""Wheels: what they give in the environment, and the bad ones."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from assembly import Member, Told, build, lock_of, locked, make_wheel, members, record_hash, settings_of
from fault_server import served
from hypothesis import given
from hypothesis import strategies as st

from himl_container.environment.model import Lock, LockedWheel, PipIndexes
from himl_container.errors import ArtifactError
from himl_container.image.layers import build_layers
from himl_container.image.plan import plan_layers
from himl_container.image.wheel_checks import check_tags, is_inside
from himl_container.settings import Settings

pytestmark = pytest.mark.usefixtures("package_caches")

Wheel = tuple[LockedWheel, Path]


@pytest.fixture(scope="module")
def base(channel: Path, package_caches: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lock, Settings]:
    """A lock of Python alone, and settings whose cache holds its interpreter."""
    return lock_of(locked(channel, "python")), settings_of(channel, tmp_path_factory.mktemp("wheels"))


def unpacked(base: tuple[Lock, Settings], *wheels: Wheel, reporter: Told | None = None) -> dict[str, Member]:
    """Build the layers of private wheels, and return what they give."""
    lock = dataclasses.replace(base[0], wheels=tuple(wheel for wheel, _ in wheels))
    paths = {wheel.sha256: path for wheel, path in wheels}
    plans = [plan for plan in plan_layers(lock) if plan.wheels]
    from himl_container.cache import Cache

    layers = build_layers(
        plans,
        lock,
        wheel_paths=paths,
        cache=Cache(base[1].cache_dir),
        settings=base[1],
        reporter=reporter or Told(),
        indexes=PipIndexes(),
    )
    return members(layers)


def site(base: tuple[Lock, Settings]) -> str:
    return f"lib/python{'.'.join(base[0].python_version.split('.')[:2])}/site-packages"


def test_what_a_wheel_gives(base: tuple[Lock, Settings], tmp_path: Path) -> None:
    files = {
        "good/__init__.py": b"x = 1\n",
        "good/data.txt": b"data",
        "good-1.0.data/scripts/good-script": b"#!python\nprint(1)\n",
        "good-1.0.data/scripts/good-shell": b"#!/bin/sh\necho 1\n",
        "good-1.0.data/data/share/good.txt": b"shared",
        "good-1.0.data/headers/good.h": b"// header\n",
    }
    entry_points = "[console_scripts]\ngood = good:main\n[gui_scripts]\ngood-gui = good:main\n"

    found = unpacked(base, make_wheel(tmp_path, "good", files, entry_points=entry_points))

    place = site(base)
    assert found[f"{place}/good/data.txt"].data == b"data"
    assert found["share/good.txt"].data == b"shared"
    assert [path for path in found if path.startswith("include/") and path.endswith("/good.h")]
    assert found["bin/good-shell"].data == b"#!/bin/sh\necho 1\n"
    for script in ("good", "good-gui", "good-script"):
        assert found[f"bin/{script}"].data.startswith(b"#!/opt/himl/bin/python\n")
        assert found[f"bin/{script}"].mode == 0o755
    assert [path for path in found if path.endswith(".pyc")] == [path for path in found if "__init__.cpython-3" in path]
    info = f"{place}/good-1.0.dist-info"
    assert {path.rpartition("/")[2] for path in found if path.startswith(f"{info}/")} == {
        *("METADATA", "WHEEL", "RECORD", "INSTALLER", "entry_points.txt")
    }
    assert found[f"{info}/INSTALLER"].data == b"himl-container\n"


def test_the_record_is_true(base: tuple[Lock, Settings], tmp_path: Path) -> None:
    files = {"rec/__init__.py": b"x = 1\n", "rec/größe, x.txt": b"1", "rec-1.0.data/scripts/rec-s": b"#!python\n"}
    found = unpacked(base, make_wheel(tmp_path, "rec", files, entry_points="[console_scripts]\nrec = rec:main\n"))

    place = site(base)
    rows = list(csv.reader(io.StringIO(found[f"{place}/rec-1.0.dist-info/RECORD"].data.decode())))
    recorded = set()
    for path, digest, size in rows:
        full = path.removeprefix("../../../") if path.startswith("../../../") else f"{place}/{path}"
        recorded.add(full)
        if not path.endswith("RECORD"):
            data = found[full].data
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={expected}", len(data)), path
    files_there = {p for p, m in found.items() if m.kind == tarfile.REGTYPE and not p.endswith(".pyc")}
    assert recorded == files_there


def test_nothing_of_this_machine_is_in_a_wheel_s_layer(
    base: tuple[Lock, Settings], tmp_path: Path, channel: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    deep = tmp_path_factory.mktemp("a folder with spaces " + "and a long name " * 8)  # uv's scripts are others then
    settings = settings_of(channel, deep)
    files = {"odd/__init__.py": b"", "odd-1.0.data/scripts/odd-script": b"#!python\nprint(1)\n"}
    wheel = make_wheel(tmp_path, "odd", files, entry_points="[console_scripts]\nodd = odd:main\n")

    found = unpacked((base[0], settings), wheel)
    usual = unpacked(base, wheel)

    assert found == usual
    for path, member in found.items():
        assert str(tmp_path).encode() not in member.data, path
        assert str(deep).encode() not in member.data, path


HOSTILE = {
    "up": {"up/__init__.py": b"", "../../../evil.txt": b"x"},
    "absolute": {"absolute/__init__.py": b"", "/tmp/himl-evil.txt": b"x"},
    "data": {"data/__init__.py": b"", "data-1.0.data/data/../../../../../../evil.txt": b"x"},
    "backslash": {"backslash/__init__.py": b"", "..\\..\\evil.txt": b"x"},
    "drive": {"drive/__init__.py": b"", "C:/evil.txt": b"x"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_wheel_that_reaches_outside_is_refused(base: tuple[Lock, Settings], tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError) as raised:
        unpacked(base, make_wheel(tmp_path, name, HOSTILE[name]))

    assert raised.value.where == f"{name}-1.0-py3-none-any.whl"
    assert "outside" in raised.value.what
    assert not Path("/tmp/himl-evil.txt").exists()
    assert not list(base[1].root.rglob("evil.txt"))
    assert not list((base[1].cache_dir / "tmp").iterdir())


@pytest.mark.parametrize("name", ["up", "absolute", "data"])
def test_a_fetched_wheel_does_not_reach_outside(base: tuple[Lock, Settings], tmp_path: Path, name: str) -> None:
    """uv unpacks a fetched wheel without such a path, and takes it off the wheel's list of files."""
    wheel, path = make_wheel(tmp_path, name, HOSTILE[name])
    with served(tmp_path) as host:
        found = unpacked(base, (dataclasses.replace(wheel, private=False, url=f"http://{host}/{path.name}"), path))

    assert f"{site(base)}/{name}/__init__.py" in found
    assert not [place for place in found if "evil" in place]
    assert b"evil" not in found[f"{site(base)}/{name}-1.0.dist-info/RECORD"].data
    assert not Path("/tmp/himl-evil.txt").exists()
    assert not list(base[1].root.rglob("evil.txt"))


@pytest.mark.parametrize("entry", ["../../evil", "/tmp/himl-evil", "a/../../../evil"])
def test_an_entry_point_that_reaches_outside_is_refused(
    base: tuple[Lock, Settings], tmp_path: Path, entry: str
) -> None:
    wheel = make_wheel(tmp_path, "script", {"script.py": b""}, entry_points=f"[console_scripts]\n{entry} = script:x\n")

    with pytest.raises(ArtifactError):
        unpacked(base, wheel)

    assert not Path("/tmp/himl-evil").exists()
    assert not list(base[1].root.rglob("evil"))


@given(st.text())
def test_a_name_is_inside_only_when_no_system_takes_it_elsewhere(name: str) -> None:
    parts = name.replace("\\", "/").split("/")

    if is_inside(name):
        assert ".." not in parts
        assert not name.startswith(("/", "\\"))


OUTSIDE = ["", "/", "a//b", "../a", "a/..", "./a", "a/./b", "C:/a", "c:a", "a\\..\\b", "\\a", "a\0b"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_are_not_inside(name: str) -> None:
    assert not is_inside(name)


@pytest.mark.parametrize("name", ["a", "a/b", "a/", "..a/b..", "a b/ü", "...", "lib/python3.11/x:y"])
def test_names_that_are_inside(name: str) -> None:
    assert is_inside(name)


LOCK = dataclasses.replace(lock_of([]), python_version="3.11.7", virtual_packages=("__glibc=2.28=0",))


@pytest.mark.parametrize(
    "tag",
    [
        "py3-none-any",
        "py2.py3-none-any",
        "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp311-cp311-manylinux_2_28_x86_64",
        "cp38-abi3-manylinux1_x86_64",
        "cp311-cp311-linux_x86_64",
        "py3-none-manylinux2010_x86_64",
    ],
)
def test_wheels_that_fit(tag: str) -> None:
    check_tags(LockedWheel("a", "1.0", f"a-1.0-{tag}.whl", "0" * 64, 1), LOCK)


@pytest.mark.parametrize(
    "tag",
    [
        "cp311-cp311-win_amd64",
        "cp311-cp311-macosx_11_0_arm64",
        "cp311-cp311-musllinux_1_2_x86_64",
        "cp311-cp311-manylinux_2_17_aarch64",
        "cp311-cp311-manylinux_2_31_x86_64",
        "cp312-cp312-manylinux_2_17_x86_64",
        "cp312-abi3-manylinux_2_17_x86_64",
        "cp311-cp311d-manylinux_2_17_x86_64",
        "py2-none-any",
    ],
)
def test_wheels_for_another_platform_or_python(tag: str) -> None:
    with pytest.raises(ArtifactError) as raised:
        check_tags(LockedWheel("a", "1.0", f"a-1.0-{tag}.whl", "0" * 64, 1), LOCK)

    assert "another platform or Python" in raised.value.what
    assert "3.11.7" in raised.value.what


STRANGE = ["a.whl", "b-1.0-py3-none-any.whl", "a-1.0-py3-none-any.zip", "a-1.0\n-py3-none-any.whl"]


@pytest.mark.parametrize("filename", STRANGE)
def test_names_of_files_that_are_not_the_wheel_s(filename: str) -> None:
    with pytest.raises(ArtifactError):
        check_tags(LockedWheel("a", "1.0", filename, "0" * 64, 1), LOCK)


def test_a_private_wheel_that_was_changed_after_locking(base: tuple[Lock, Settings], tmp_path: Path) -> None:
    wheel, path = make_wheel(tmp_path, "changed", {"changed.py": b"x = 1\n"})
    make_wheel(tmp_path, "changed", {"changed.py": b"x = 2\n"})

    with pytest.raises(ArtifactError) as raised:
        unpacked(base, (wheel, path))

    assert wheel.sha256 in raised.value.what
    assert "himl-container lock" in raised.value.hint


def test_a_private_wheel_that_is_gone_or_is_none(base: tuple[Lock, Settings], tmp_path: Path) -> None:
    wheel, path = make_wheel(tmp_path, "gone", {"gone.py": b""})
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        unpacked(base, (wheel, path))

    path.write_bytes(b"not a zip file")
    digest = hashlib.sha256(b"not a zip file").hexdigest()
    with pytest.raises(ArtifactError, match="not a wheel"):
        unpacked(base, (dataclasses.replace(wheel, sha256=digest), path))


def test_a_wheel_without_a_list_of_its_files(base: tuple[Lock, Settings], tmp_path: Path) -> None:
    listed = make_wheel(tmp_path, "listed", {"listed.py": b"x = 1\n"})
    unlisted = make_wheel(tmp_path, "unlisted", {"unlisted.py": b"x = 2\n"}, record=False)

    found = unpacked(base, listed, unlisted)

    place = site(base)
    assert found[f"{place}/listed.py"].data == b"x = 1\n"
    assert found[f"{place}/unlisted.py"].data == b"x = 2\n"
    record = found[f"{place}/unlisted-1.0.dist-info/RECORD"].data.decode()
    assert "unlisted.py,,6\n" in record


def test_a_wheel_whose_list_is_wrong_is_taken_as_its_archive_says(base: tuple[Lock, Settings], tmp_path: Path) -> None:
    """Its own list says another hash. That is a mistake of its maker: the archive itself has the locked hash."""
    wheel, path = make_wheel(tmp_path, "wrong", {"wrong.py": b"x = 1\n"})
    data = path.read_bytes().replace(record_hash(b"x = 1\n").encode(), record_hash(b"other").encode())
    path.write_bytes(_resealed(data))
    wheel = dataclasses.replace(wheel, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    told = Told()

    found = unpacked(base, (wheel, path), reporter=told)

    assert found[f"{site(base)}/wrong.py"].data == b"x = 1\n"


def _resealed(data: bytes) -> bytes:
    """Write a zip archive anew, with the checksums of what is in it."""
    import struct
    import zipfile
    import zlib

    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            start = info.header_offset
            name, extra = struct.unpack("<HH", data[start + 26 : start + 30])
            content = data[start + 30 + name + extra :][: info.file_size]
            assert zlib.crc32(content) == info.CRC or info.filename.endswith("RECORD")
            new.writestr(zipfile.ZipInfo(info.filename, (2020, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def test_of_two_wheels_with_one_path_the_later_name_has_the_say(base: tuple[Lock, Settings], tmp_path: Path) -> None:
    one = make_wheel(tmp_path, "first", {"first.py": b"", "shared/x.py": b"x = 'first'\n"})
    two = make_wheel(tmp_path, "second", {"second.py": b"", "shared/x.py": b"x = 'second'\n"})

    assert unpacked(base, one, two)[f"{site(base)}/shared/x.py"].data == b"x = 'second'\n"
    assert unpacked(base, two, one)[f"{site(base)}/shared/x.py"].data == b"x = 'second'\n"


def test_a_file_that_was_changed_in_uv_s_cache_is_unpacked_again(
    base: tuple[Lock, Settings], channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    wheel = make_wheel(tmp_path, "kept", {"kept/__init__.py": b"x = 1\n", "kept/data.txt": b"as it was"})
    good = unpacked((base[0], settings_of(channel, tmp_path / "one")), wheel)
    changed = list((tmp_path / "uv").rglob("data.txt"))
    assert changed
    for path in changed:
        path.write_bytes(b"as it is!")

    again = unpacked((base[0], settings_of(channel, tmp_path / "two")), wheel)

    assert again == good


def test_a_wheel_of_an_index_with_a_login(base: tuple[Lock, Settings], channel: Path, tmp_path: Path) -> None:
    private, path = make_wheel(tmp_path, "secret", {"secret.py": b"x = 1\n"})
    with served(tmp_path, login="user:canary") as host:
        wheel = dataclasses.replace(private, private=False, url=f"http://{host}/{path.name}")
        lock = dataclasses.replace(base[0], wheels=(wheel,))

        with pytest.raises(ArtifactError) as raised:
            build(lock, base[1], only="pip:")
        assert "canary" not in str(raised.value)
        assert "credentials" in raised.value.hint

        settings = dataclasses.replace(base[1], pip_index_url=f"http://user:canary@{host}/simple")
        found = members(build(lock, settings, only="pip:"))

    assert found[f"{site(base)}/secret.py"].data == b"x = 1\n"
    for name, member in found.items():
        assert b"canary" not in member.data, name
        assert host.encode() not in member.data, name


def test_a_fetched_wheel_that_is_another_one_or_missing(base: tuple[Lock, Settings], tmp_path: Path) -> None:
    private, path = make_wheel(tmp_path, "other", {"other.py": b"x = 1\n"})
    make_wheel(tmp_path, "other", {"other.py": b"x = 2\n"})
    with served(tmp_path) as host:
        wheel = dataclasses.replace(private, private=False, url=f"http://{host}/{path.name}")
        with pytest.raises(ArtifactError) as raised:
            unpacked(base, (wheel, path))
        assert raised.value.where == wheel.filename
        assert wheel.sha256 in raised.value.what

        path.unlink()
        with pytest.raises(ArtifactError) as raised:
            unpacked(base, (wheel, path))
        assert raised.value.where == wheel.filename
        assert "404" in raised.value.what


def test_an_address_in_the_lock_does_not_read_the_user_s_variables(
    base: tuple[Lock, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "canary")
    private, path = make_wheel(tmp_path, "env", {"env.py": b""})
    with served(tmp_path) as host:
        wheel = dataclasses.replace(private, private=False, url=f"http://{host}/${{MY_TOKEN}}/{path.name}")
        with pytest.raises(ArtifactError) as raised:
            unpacked(base, (wheel, path))

    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("url", ["https://x/a.whl\n--index-url https://evil", "https://x/a b.whl", "http://x/ü"])
def test_an_address_in_the_lock_that_is_more_than_an_address(
    base: tuple[Lock, Settings], tmp_path: Path, url: str
) -> None:
    private, path = make_wheel(tmp_path, "address", {"address.py": b""})

    with pytest.raises(ArtifactError, match="an address or a hash that is none"):
        unpacked(base, (dataclasses.replace(private, private=False, url=url), path))


def test_a_wheel_that_was_built_here_comes_from_the_cache(base: tuple[Lock, Settings], tmp_path: Path) -> None:
    private, path = make_wheel(tmp_path, "built", {"built.py": b"x = 1\n"})
    wheel = dataclasses.replace(private, private=False, sdist_url="https://x/built-1.0.tar.gz", sdist_sha256="0" * 64)

    with pytest.raises(ArtifactError) as raised:
        unpacked(base, (wheel, path))
    assert "himl-container lock" in raised.value.hint

    place = base[1].cache_dir / "wheels" / wheel.sha256
    place.mkdir(parents=True)
    path.rename(place / wheel.filename)
    assert unpacked(base, (wheel, path))[f"{site(base)}/built.py"].data == b"x = 1\n"
