"""Source distributions are not trusted, and the wheels made of them do not depend on who made them."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himl_container.errors import BuildError
from himl_container.image.inside import build_wheel
from himl_container.image.sdist_source import BuildSystem, build_system, unpack
from himl_container.image.wheel_pack import repack


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def test_a_source_is_unpacked(tmp_path: Path) -> None:
    sdist = tar(tmp_path / "a-1.tar.gz", (member("a-1/setup.py", mode=0o4755), b"x"))
    (tmp_path / "out").mkdir()
    source = unpack(sdist, tmp_path / "out")
    assert source == tmp_path / "out" / "a-1"
    assert (source / "setup.py").read_bytes() == b"x"
    assert (source / "setup.py").stat().st_mode & 0o7000 == 0


@pytest.mark.parametrize(
    "bad",
    [
        member("../evil"),
        member("/tmp/evil"),
        member("a-1/../../evil"),
        member("a-1/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("a-1/link", tarfile.SYMTYPE, "../../outside"),
        member("a-1/hard", tarfile.LNKTYPE, "../../outside"),
        member("a-1/device", tarfile.CHRTYPE),
        member("a-1/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type!r}",
)
def test_nothing_leaves_the_folder(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    sdist = tar(tmp_path / "a-1.tar.gz", (member("a-1/setup.py"), b""), (bad, b""))
    out = tmp_path / "deep" / "er" / "out"
    out.mkdir(parents=True)
    try:
        source = unpack(sdist, out)
    except BuildError as error:
        assert error.where == "a-1.tar.gz"
    else:  # the filter strips a leading slash; what is left stays inside
        assert source == out / "a-1"
    outside = [path for path in (tmp_path / "deep").rglob("*") if out not in path.parents and path != out]
    assert outside == [tmp_path / "deep" / "er"]
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("name", ["../evil", "/evil", "a-1\\..\\..\\evil"])
def test_a_zip_does_not_leave_the_folder_either(tmp_path: Path, name: str) -> None:
    sdist = tmp_path / "a-1.zip"
    with zipfile.ZipFile(sdist, "w") as archive:
        archive.writestr("a-1/setup.py", "")
        archive.writestr(name, "")
    (tmp_path / "out").mkdir()
    with pytest.raises(BuildError, match="leads out"):
        unpack(sdist, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.zip", "out"]


def test_what_is_no_archive_or_absurd_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "a-1.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(BuildError, match="cannot be unpacked"):
        unpack(tmp_path / "a-1.tar.gz", tmp_path / "out")
    with pytest.raises(BuildError, match="exactly one folder"):
        unpack(tar(tmp_path / "b.tar.gz", (member("x"), b"")), tmp_path / "out")
    huge = member("a-1/huge", tarfile.DIRTYPE)
    with tarfile.open(tmp_path / "c.tar", "w") as archive:
        huge.type, huge.size = tarfile.REGTYPE, 5 << 30
        archive.fileobj.write(huge.tobuf())  # type: ignore[union-attr]
    with pytest.raises(BuildError):
        unpack(tmp_path / "c.tar", tmp_path / "out")


def test_how_a_source_wants_to_be_built(tmp_path: Path) -> None:
    assert build_system(tmp_path) == BuildSystem()
    path = tmp_path / "pyproject.toml"
    path.write_text("[project]\nname = 'x'\n")
    assert build_system(tmp_path) == BuildSystem()
    path.write_text(
        "[build-system]\nrequires = ['flit_core']\nbuild-backend = 'flit_core.buildapi'\nbackend-path=['.']"
    )
    assert build_system(tmp_path) == BuildSystem(("flit_core",), "flit_core.buildapi", (".",))


@pytest.mark.parametrize(
    "text",
    [
        "[build-system]",
        "build-system = 3",
        "[build-system]\nrequires = 'x'",
        "[build-system]\nrequires = [1]",
        "[build-system]\nrequires = []\nbuild-backend = 1",
        "[build-system",
    ],
)
def test_a_malformed_build_system_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(BuildError):
        build_system(tmp_path)


def wheel(
    files: dict[str, bytes], *, when: int = 2024, compress: int = zipfile.ZIP_DEFLATED, mode: int = 0o664
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, (when, 1, 1, 0, 0, 0))
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


FILES = {
    "a/__init__.py": b"x",
    "a-1.dist-info/METADATA": b"m",
    "a-1.dist-info/WHEEL": b"w",
    "a-1.dist-info/RECORD": b"?",
}


@given(st.permutations(list(FILES)), st.integers(1980, 2100), st.sampled_from([0, 8]), st.sampled_from([0o600, 0o664]))
@settings(max_examples=30, deadline=None)
def test_a_wheel_s_bytes_depend_on_its_content_alone(order: list[str], when: int, compress: int, mode: int) -> None:
    packed = repack(wheel({name: FILES[name] for name in order}, when=when, compress=compress, mode=mode), where="a")
    assert packed == repack(wheel(FILES), where="a")


def test_a_repacked_wheel_is_whole() -> None:
    with zipfile.ZipFile(io.BytesIO(repack(wheel(FILES, mode=0o755), where="a"))) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[-1] == "a-1.dist-info/RECORD"
        assert archive.read("a-1.dist-info/RECORD").decode().splitlines() == [
            f"a-1.dist-info/METADATA,sha256={digest(b'm')},1",
            f"a-1.dist-info/WHEEL,sha256={digest(b'w')},1",
            f"a/__init__.py,sha256={digest(b'x')},1",
            "a-1.dist-info/RECORD,,",
        ]
        assert {info.external_attr >> 16 & 0o777 for info in archive.infolist()} == {0o755, 0o644}


def digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "files",
    [
        {**FILES, "../x": b""},
        {**FILES, "/x": b""},
        {**FILES, "a\\..\\x": b""},
        {"a/x.py": b""},
        {**FILES, "b-1.dist-info/METADATA": b""},
    ],
)
def test_a_hostile_wheel_is_not_packed(files: dict[str, bytes]) -> None:
    with pytest.raises(BuildError):
        repack(wheel(files), where="a")


def test_what_is_no_wheel_is_not_packed() -> None:
    with pytest.raises(BuildError):
        repack(b"PK nothing", where="a")


def test_what_a_hook_complains_of_comes_before_the_answer_in_one_stream() -> None:
    folder = str(Path(build_wheel.__file__).parent)
    code = (
        f"import os, sys; sys.path.insert(0, {folder!r}); import build_wheel\n"
        "build_wheel.build = lambda request: os.write(2, b'careful') and {'wheel': request}\n"
        "sys.argv[1:] = ['\"x\"']; build_wheel.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, _, answer = done.stdout.rpartition("\nhiml-answer:")
    assert (before, done.stderr) == ("careful", "")
    assert base64.b64decode(answer) == b'{"wheel": "x"}'
