"""The Conda channel that is made from this machine: a real solver and a real installer take it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rattler
from channel.package import PLACEHOLDER, archive_bytes
from channel.samples import LONG_FOLDER, LONG_NAME, sample_packages
from make_channel import make_channel
from rattler.exceptions import SolverError

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


def install(channel: Path, prefix: Path, *specs: str, pretend: str | None = None) -> list[str]:
    """Solve, lay out below ``prefix``, and return ``name-version`` of what was chosen."""

    async def work() -> list[str]:
        source = rattler.Channel(channel.as_uri())
        records = await rattler.solve([source], [rattler.MatchSpec(s) for s in specs], platforms=["linux-64", "noarch"])
        await rattler.install(
            records,
            prefix,
            cache_dir=prefix.parent / "packages",
            alternative_target_prefix=pretend,
            execute_link_scripts=False,
            show_progress=False,
        )
        return sorted(f"{record.name.normalized}-{record.version}" for record in records)

    return asyncio.run(work())


def start(program: Path, *arguments: str) -> str:
    done = subprocess.run(
        [program, *arguments], check=False, env={"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def prefix(channel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix") / "env"
    install(channel, folder, f"python {VERSION}.*", "meta", "tinynative", "prefix-binary", "links", "long-paths")
    return folder


def test_python_starts_wherever_it_lies_and_brings_its_libraries(prefix: Path, tmp_path: Path) -> None:
    moved = prefix.rename(tmp_path / "moved")
    try:
        modules = "ssl, sqlite3, ctypes, lzma, bz2, zlib, readline, uuid, hashlib, decimal, pyexpat"
        code = f"import sys, sysconfig, {modules}; print(sys.prefix, sysconfig.get_path('purelib'))"
        assert start(moved / "bin" / "python", "-c", code).split() == [
            str(moved),
            f"{moved}/lib/python{VERSION}/site-packages",
        ]
        maps = start(moved / "bin" / "python", "-c", f"import {modules}\nprint(open('/proc/self/maps').read())")
        loaded = {line.split()[-1] for line in maps.splitlines() if ".so" in line}
        outside = {Path(path).name.partition(".so")[0] for path in loaded if not path.startswith(f"{moved}/")}
        assert outside <= {"ld-linux-x86-64", "libc", "libm", "libdl", "libpthread", "librt", "libutil", "libresolv"}
    finally:
        moved.rename(prefix)


def test_packages_of_the_environment_are_found(prefix: Path) -> None:
    assert start(prefix / "bin" / "tinytool").startswith("tinytool with tinylib 2.0")
    code = "import tinynative, importlib.metadata as m; q = tinynative.SimpleQueue(); q.put(7)\n"
    assert start(prefix / "bin" / "python", "-c", f"{code}print(q.get(), m.version('tinylib'))") == "7 2.0"


def test_prefix_is_put_into_text_and_into_binaries(prefix: Path) -> None:
    assert start(prefix / "bin" / "prefix-text") == f"prefix-text {prefix}"
    data = (prefix / "lib" / "prefix-binary.bin").read_bytes()
    assert data.startswith(b"\x7fBIN\0" + os.fsencode(prefix) + b"/share/prefix-binary\0")
    assert data.endswith(b"\0the next string\0" + bytes(range(256)))
    assert len(data) == 5 + len(PLACEHOLDER) + len(b"/share/prefix-binary\0the next string\0") + 256


def test_no_folder_of_this_machine_is_named_in_the_build_variables(channel: Path, tmp_path: Path) -> None:
    install(channel, tmp_path / "env", f"python {VERSION}.*", pretend="/opt/himl")
    text = next((tmp_path / "env").glob(f"lib/python{VERSION}/_sysconfigdata*.py")).read_text()
    assert f"/opt/himl/include/python{VERSION}" in text
    assert PLACEHOLDER not in text
    assert sys.base_prefix == "/usr" or f"{sys.base_prefix}/include" not in text


def test_links_and_long_paths(prefix: Path) -> None:
    assert (prefix / "lib" / "liblinks.so").readlink() == Path("liblinks.so.1")
    assert (prefix / "share" / "links" / "to-folder" / "file.txt").read_text() == "in the folder\n"
    assert (prefix / "share" / "links" / "dangling").is_symlink()
    assert (prefix / LONG_FOLDER / "file.txt").read_text() == "deep\n"
    assert (prefix / "share" / "long-paths" / LONG_NAME).read_text() == "long name\n"


def test_versions_to_choose_from(channel: Path, tmp_path: Path) -> None:
    assert "tinylib-1.1" in install(channel, tmp_path / "a", f"python {VERSION}.*", "tinylib <2")
    with pytest.raises(SolverError, match="tinylib"):
        install(channel, tmp_path / "b", f"python {VERSION}.*", "tinyold", "tinynew")


def test_both_formats_are_there_and_the_index_describes_the_files(channel: Path) -> None:
    seen = set()
    for subdir in ("linux-64", "noarch"):
        index = json.loads((channel / subdir / "repodata.json").read_text())
        for name, record in {**index["packages"], **index["packages.conda"]}.items():
            assert (channel / subdir / name).stat().st_size == record["size"]
            seen.add(name)
        assert {path.name for path in (channel / subdir).glob("*.[ct][oa][nr]*")} <= seen
    assert {Path(name).suffix for name in seen} == {".conda", ".bz2"}


def test_same_bytes_every_time() -> None:
    assert [archive_bytes(p) for p in sample_packages()] == [archive_bytes(p) for p in sample_packages()]


def test_nothing_is_done_when_the_channel_is_up_to_date(
    channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a library has put copies of packages at the end of the search path, as setuptools does."""
    (tmp_path / "packaging-1.0.dist-info").mkdir()
    (tmp_path / "packaging-1.0.dist-info" / "METADATA").write_text("Name: packaging\nVersion: 1.0\n")
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path)])
    before = {path: path.stat().st_mtime_ns for path in channel.rglob("*")}
    assert make_channel(channel) == channel
    assert {path: path.stat().st_mtime_ns for path in channel.rglob("*")} == before


def test_a_channel_of_another_origin_is_made_again(channel: Path, tmp_path: Path) -> None:
    out = tmp_path / "channel"
    (out / "noarch").mkdir(parents=True)
    (out / "noarch" / "left-over.conda").write_bytes(b"old")
    make_channel(out)
    assert sorted(p.relative_to(out) for p in out.rglob("*")) == sorted(
        p.relative_to(channel) for p in channel.rglob("*")
    )
    for path in out.rglob("*.*"):
        assert path.is_dir() or path.read_bytes() == (channel / path.relative_to(out)).read_bytes()
