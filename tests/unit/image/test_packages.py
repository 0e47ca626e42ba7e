"""Fetching Conda packages, and the faults of it; link scripts and clashing paths."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from assembly import FORGE, Told, build, lock_of, locked, make_channel, members, settings_of
from channel.package import Entry, Package
from fault_server import served

from himl_container.cache import Cache
from himl_container.environment.model import Lock, LockedConda
from himl_container.errors import ArtifactError, BuildError, HimlError
from himl_container.image.clobber import excluded_paths
from himl_container.image.interpreter import ensure_interpreter, python_closure
from himl_container.image.packages import Installation
from himl_container.progress import SilentReporter


@pytest.fixture(autouse=True)
def own_cache(package_caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "rattler"))


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Lock]:
    """A channel of one package, and its lock."""
    folder = make_channel(tmp_path / "small", Package("small", "1.0", [Entry("share/small", b"x" * 3000)]))
    return folder, lock_of(locked(folder, "small"))


def fails(lock: Lock, channel: Path | str, tmp_path: Path) -> HimlError:
    with pytest.raises(HimlError) as raised:
        build(lock, settings_of(channel, tmp_path))
    assert not list((tmp_path / "cache" / "tmp").iterdir()), "nothing half-made is left"
    assert not (tmp_path / "cache" / "layers").exists()
    return raised.value


def with_hash(lock: Lock, sha256: str) -> Lock:
    return dataclasses.replace(lock, conda=tuple(dataclasses.replace(p, sha256=sha256) for p in lock.conda))


@pytest.mark.parametrize("how", ["file", "http"])
def test_another_package_than_the_locked_one(small: tuple[Path, Lock], tmp_path: Path, how: str) -> None:
    folder, lock = small
    wrong = with_hash(lock, "1" * 64)

    with served(folder) as host:
        error = fails(wrong, folder if how == "file" else f"http://{host}", tmp_path)

    assert isinstance(error, ArtifactError)
    assert error.where == "small-1.0-0.conda"
    assert "1" * 64 in error.what
    assert lock.conda[0].sha256 in error.what
    assert "lock --upgrade small" in error.hint


def test_a_wrong_package_in_a_folder_never_enters_the_shared_cache(small: tuple[Path, Lock], tmp_path: Path) -> None:
    folder, lock = small
    fails(with_hash(lock, "1" * 64), folder, tmp_path)

    archive = next(folder.rglob("*.conda"))
    other = make_channel(tmp_path / "other", Package("small", "1.0", [Entry("share/small", b"evil")]))
    good = archive.read_bytes()
    shutil.copy(next(other.rglob("*.conda")), archive)
    fails(lock, folder, tmp_path)
    archive.write_bytes(good)

    found = members(build(lock, settings_of(folder, tmp_path)))
    assert found["share/small"].data == b"x" * 3000


def test_a_package_that_is_cut_short(small: tuple[Path, Lock], tmp_path: Path) -> None:
    folder, lock = small
    archive = next(folder.rglob("*.conda"))
    archive.write_bytes(archive.read_bytes()[:-100])

    error = fails(lock, folder, tmp_path)

    assert isinstance(error, ArtifactError)
    assert error.where == "small-1.0-0.conda"


@pytest.mark.slow
def test_a_download_that_is_cut_short(small: tuple[Path, Lock], tmp_path: Path) -> None:
    folder, lock = small
    with served(folder, cut=True) as host:
        error = fails(lock, f"http://{host}", tmp_path)

    assert isinstance(error, ArtifactError)
    assert "small-1.0-0.conda" in str(error)


@pytest.mark.parametrize("how", ["file", "http"])
def test_a_package_that_the_channel_lacks(small: tuple[Path, Lock], tmp_path: Path, how: str) -> None:
    folder, lock = small
    next(folder.rglob("*.conda")).unlink()

    with served(folder) as host:
        error = fails(lock, folder if how == "file" else f"http://{host}", tmp_path)

    assert isinstance(error, ArtifactError)
    assert "small-1.0-0.conda" in error.what
    assert ("404" in error.what) is (how == "http")
    assert "complete" in error.hint


def test_a_server_that_does_not_answer(small: tuple[Path, Lock], tmp_path: Path) -> None:
    with served(tmp_path) as host:
        pass  # the port was free a moment ago, and is again

    error = fails(small[1], f"http://{host}", tmp_path)

    assert isinstance(error, ArtifactError)
    assert "cannot be reached" in error.what
    assert "channel-mirrors" in error.hint


def test_credentials_of_a_mirror_are_used_and_never_shown(small: tuple[Path, Lock], tmp_path: Path) -> None:
    folder, lock = small
    with served(folder, login="user:canary") as host:
        error = fails(lock, f"http://user:wrong-canary@{host}", tmp_path)
        assert "canary" not in str(error)
        assert "user" not in str(error).replace("Use", "")
        assert "RATTLER_AUTH_FILE" in error.hint

        layers = build(lock, settings_of(f"http://user:canary@{host}", tmp_path))

    found = members(layers)
    assert found["share/small"].data == b"x" * 3000
    assert not [path for path, member in found.items() if b"canary" in member.data or host.encode() in member.data]
    kept = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and b"canary" in p.read_bytes()]
    assert not kept


def test_no_layer_is_made_of_a_package_with_a_post_link_script(channel: Path, tmp_path: Path) -> None:
    lock = lock_of(locked(channel, "post-link"))

    error = fails(lock, channel, tmp_path)

    assert isinstance(error, BuildError)
    assert error.where == "post-link-1.0-0.conda"
    assert 'skip-post-link = ["post-link"]' in error.hint
    # and the same when its paths are known already
    assert str(fails(lock, channel, tmp_path)) == str(error)


def test_a_post_link_script_that_is_knowingly_left_out(channel: Path, tmp_path: Path) -> None:
    settings = settings_of(channel, tmp_path, skip_post_link=("post-link",))

    found = members(build(lock_of(locked(channel, "post-link")), settings))

    assert found["share/post-link/file.txt"].data == b"file\n"
    assert "share/post-link-ran.txt" not in found


def clashing(folder: Path, *contents: bytes) -> Lock:
    packages = [
        Package(f"p{n}", "1.0", [Entry("share/same", content), Entry(f"share/own{n}", b"own")])
        for n, content in enumerate(contents)
    ]
    make_channel(folder, *packages)
    return lock_of(locked(folder, *(package.name for package in packages)))


@pytest.mark.parametrize(
    ("contents", "lost", "warnings"),
    [
        ([b"1", b"1"], {}, 0),
        ([b"1", b"2"], {"p0": ("share/same",)}, 1),
        ([b"1", b"2", b"1"], {"p1": ("share/same",)}, 1),
        ([b"1", b"2", b"3"], {"p0": ("share/same",), "p1": ("share/same",)}, 2),
    ],
)
def test_who_loses_a_path(
    contents: list[bytes], lost: dict[str, tuple[str, ...]], warnings: int, tmp_path: Path
) -> None:
    lock = clashing(tmp_path / "clashing", *contents)
    settings = settings_of(tmp_path / "clashing", tmp_path)
    cache = Cache(settings.cache_dir)
    told = Told()

    assert excluded_paths(lock, cache=cache, settings=settings, reporter=told) == lost
    assert len(told.warnings) == warnings
    shutil.rmtree(cache.root / "memo" / "paths")
    again = Told()
    assert excluded_paths(lock, cache=cache, settings=settings, reporter=again, fetch=False) == lost, "of all together"
    assert again.warnings == told.warnings

    found = members(build(lock, settings))
    assert found["share/same"].data == contents[-1]
    assert all(found[f"share/own{n}"].data == b"own" for n in range(len(contents)))


def test_the_lock_s_order_decides_a_clash_and_not_the_names(tmp_path: Path) -> None:
    lock = clashing(tmp_path / "clashing", b"1", b"2")
    reverse = dataclasses.replace(lock, conda=lock.conda[::-1])

    found = members(build(reverse, settings_of(tmp_path / "clashing", tmp_path)))

    assert found["share/same"].data == b"1"


def test_hostile_names_of_paths(tmp_path: Path) -> None:
    names = ["$(touch x)", "`id`", "a\nRUN evil", "quote'\"", "-rf", "#comment", " space ", "ünïcode", "back\\slash"]
    folder = make_channel(
        tmp_path / "odd", Package("odd", "1.0", [Entry(f"share/{name}", name.encode()) for name in names])
    )

    found = members(build(lock_of(locked(folder, "odd")), settings_of(folder, tmp_path)))

    assert {path.removeprefix("share/") for path in found if path.startswith("share/")} == set(names)
    assert all(found[f"share/{name}"].data == name.encode() for name in names)


@pytest.mark.parametrize("path", ["../outside", "share/../../outside", "/tmp/outside-of-everything"])
def test_a_package_that_reaches_outside(path: str, tmp_path: Path) -> None:
    folder = make_channel(tmp_path / "evil", Package("evil", "1.0", [Entry(path, b"evil"), Entry("share/good", b"1")]))

    try:
        found = members(build(lock_of(locked(folder, "evil")), settings_of(folder, tmp_path)))
    except HimlError:
        found = {}

    assert not [name for name in found if "outside" in name]
    assert not list(tmp_path.rglob("outside"))
    assert not Path("/tmp/outside-of-everything").exists()


def test_the_interpreter_s_packages() -> None:
    def package(name: str, *depends: str) -> LockedConda:
        return LockedConda(name, "1", "0", 0, "linux-64", f"{FORGE}/{name}", FORGE, name, 1, depends=depends)

    conda = [
        package("zlib", "__glibc >=2.17"),
        package("pip", "python"),
        package("openssl", "zlib >=1"),
        package("python", "openssl >=3,<4", "pip"),
        package("numpy", "python"),
    ]

    assert [p.name for p in python_closure(conda)] == ["zlib", "pip", "openssl", "python"]
    with pytest.raises(BuildError):
        python_closure(conda[:1])


def test_a_damaged_interpreter_is_laid_out_again(channel: Path, tmp_path: Path) -> None:
    conda = locked(channel, "python")
    mirrors = settings_of(channel, tmp_path).channel_mirrors
    cache = Cache(tmp_path / "cache")
    prefix = ensure_interpreter(conda, cache=cache, mirrors=mirrors, reporter=Told())
    (prefix / "bin/python").unlink()

    again = ensure_interpreter(conda, cache=cache, mirrors=mirrors, reporter=Told())

    assert again == prefix
    assert (prefix / "bin/python").exists()
    assert not list((tmp_path / "cache" / "tmp").iterdir())


def test_work_that_ends_before_its_job_is_read_is_no_error_of_its_own(
    small: tuple[Path, Lock], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Ctrl-C, or when rattler crashes: a closed pipe would end the command as if nobody read its output."""
    began = threading.Event()
    job = Installation._job

    def deaf(_installation: Installation) -> subprocess.Popen[bytes]:
        code = "import os, time; os.close(0); os.write(1, b'.'); time.sleep(600)"
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        return process

    def told(installation: Installation, *words: object) -> object:
        began.set()
        return job(installation, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(Installation, "_start", deaf)
    monkeypatch.setattr(Installation, "_job", told)
    work = Installation([small[1].conda], tmp_path, prefix="/x", mirrors=(), reporter=SilentReporter())
    with work:
        assert began.wait(60)
