from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from assembly import GENERIC, SAMPLES, Told, build, lock_of, locked, members, settings_of
from channel.samples import LONG_FOLDER, LONG_NAME

from himl_container.cache import Cache
from himl_container.environment.model import Lock
from himl_container.image.clobber import excluded_paths
from himl_container.image.layers import build_layers
from himl_container.image.model import Layer
from himl_container.image.plan import plan_layers
from himl_container.image.staging import Staging
from himl_container.image.store import LayerStore
from himl_container.settings import Settings

Assembled = tuple[Lock, Settings, tuple[Layer, ...], list[str]]

pytestmark = pytest.mark.usefixtures("package_caches")

# Builds the layers of the lock of test channel argv[1] in folder argv[2], names argv[3]; prints name and digest.
PROGRAM = """
import sys
from pathlib import Path
from assembly import build, lock_of, locked, settings_of
channel, root, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split()
print("begin", flush=True)
for layer in build(lock_of(locked(channel, *names)), settings_of(channel, root)):
    print(layer.name, layer.digest)
sys.stdout.flush()
"""


def start(
    channel: Path,
    root: Path,
    names: Sequence[str],
    environ: Mapping[str, str] | None = None,
    *,
    umask: int = 0o022,
    new_group: bool = False,
) -> subprocess.Popen[str]:
    root.mkdir(parents=True, exist_ok=True)
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3] / "scripts")]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, channel, root, " ".join(names)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environ or {})},
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL if new_group else None,
        umask=umask,
        start_new_session=new_group,
        cwd=root,
    )


def digests(process: subprocess.Popen[str]) -> dict[str, str]:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert "himl sha256:" in out
    return dict(line.split(" ") for line in out.splitlines() if "sha256:" in line)


def test_every_file_of_the_packages_is_there(assembled: Assembled) -> None:
    found = members(assembled[2])

    assert found["share/tinydata/größe-日本.txt"].data == "Größe\n".encode()
    assert found["share/tinydata/with space.txt"].data == b"space\n"
    assert found[f"{LONG_FOLDER}/file.txt"].data == b"deep\n"
    assert found[f"share/long-paths/{LONG_NAME}"].data == b"long name\n"
    assert found["share/tinydata/empty"].data == b""


def test_modes_are_normalised(assembled: Assembled) -> None:
    found = members(assembled[2])

    assert found["share/tinydata/private.txt"].mode == 0o644
    assert found["bin/prefix-text"].mode == 0o755
    assert {m.mode for m in found.values() if m.kind == tarfile.DIRTYPE} == {0o755}


def test_links_stay_as_they_are(assembled: Assembled) -> None:
    found = members(assembled[2])

    links = {path: m.target for path, m in found.items() if m.kind == tarfile.SYMTYPE and "link" in path}
    assert links == {
        "lib/liblinks.so.1": "liblinks.so.1.0",
        "lib/liblinks.so": "liblinks.so.1",
        "share/links/to-folder": "folder",
        "share/links/up": "../../lib/liblinks.so",
        "share/links/dangling": "no-such-file",
        "share/long-paths/link": f"{LONG_FOLDER.removeprefix('share/long-paths/')}/file.txt",
    }


def test_prefix_in_text_and_in_binary_files(assembled: Assembled) -> None:
    found = members(assembled[2])

    assert found["bin/prefix-text"].data.startswith(b"#!/opt/himl/bin/python\n")
    assert found["etc/prefix-text.conf"].data == b"root=/opt/himl\nshare=/opt/himl/share\n"
    binary = found["lib/prefix-binary.bin"].data
    assert binary.startswith(b"\x7fBIN\0/opt/himl/share/prefix-binary\0")
    assert binary.endswith(b"the next string\0" + bytes(range(256)))


def test_entry_points_of_noarch_packages(assembled: Assembled) -> None:
    script = members(assembled[2])["bin/tinytool"]

    assert script.mode == 0o755
    assert script.data.startswith(b"#!/opt/himl/bin/python3.")
    assert b"from tinytool.cli import main" in script.data


def test_of_two_contents_of_a_path_the_later_package_has_the_say(assembled: Assembled) -> None:
    found = members(assembled[2])

    assert found["share/clash/different.txt"].data == b"from clash-b\n"
    assert found["share/clash/same.txt"].data == b"the same\n"
    assert any("clash-a" in text and "clash-b" in text and "different.txt" in text for text in assembled[3])
    assert len(assembled[3]) == 1
    holders = [layer.name for layer in assembled[2] if "share/clash/different.txt" in members([layer])]
    assert len(holders) == 1
    record = json.loads(found["conda-meta/clash-a-1.0-0.json"].data)
    assert record["files"] == ["share/clash/a.txt", "share/clash/same.txt"]


def test_conda_knows_the_environment(assembled: Assembled) -> None:
    lock, found = assembled[0], members(assembled[2])

    assert b"+https://conda.anaconda.org/conda-forge/noarch::tinytool-1.0-pyh0_0\n" in found["conda-meta/history"].data
    for package in lock.conda:
        record = json.loads(found[f"conda-meta/{package.name}-{package.version}-{package.build}.json"].data)
        assert record["url"] == package.url
        assert record["sha256"] == package.sha256
        assert [entry["_path"] for entry in record["paths_data"]["paths"]] == record["files"]
        assert set(record["files"]) <= found.keys()
        assert not record.keys() & {"extracted_package_dir", "package_tarball_full_path", "link"}


def test_variables_of_the_environment_are_where_conda_keeps_them(channel: Path, tmp_path: Path) -> None:
    lock = dataclasses.replace(lock_of(locked(channel, "links")), variables=(("A", 'b "c"'),))

    found = members(build(lock, settings_of(channel, tmp_path)))

    assert json.loads(found["conda-meta/state"].data) == {"env_vars": {"A": 'b "c"'}}


def test_every_module_has_bytecode(assembled: Assembled) -> None:
    found = members(assembled[2])

    version = ".".join(assembled[0].python_version.split(".")[:2])
    sources = [p for p in found if p.startswith(f"lib/python{version}/") and p.endswith(".py")]
    compiled = [p for p in found if p.endswith(".pyc")]
    assert len(sources) > 400
    assert len(compiled) > 0.97 * len(sources), "a few sources are not Python on purpose"
    assert {found[p].data[4:8] for p in compiled} == {b"\1\0\0\0"}, "hash-based, never checked (PEP 552)"


def test_nothing_of_this_machine_is_in_a_layer(assembled: Assembled, channel: Path, package_caches: Path) -> None:
    settings = assembled[1]
    places = [str(path).encode() for path in (settings.cache_dir, channel, package_caches)]

    for path, member in members(assembled[2]).items():
        assert not [place for place in places if place in member.data or place in member.target.encode()], path


@pytest.mark.slow
def test_the_same_lock_gives_the_same_bytes_anywhere(assembled: Assembled, channel: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another folder, $HOME & 'quotes' é"
    environ = {
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "C",
        "LANG": "C",
        "PYTHONHASHSEED": "12345",
        "SOURCE_DATE_EPOCH": "1",
        "PYTHONOPTIMIZE": "2",
        "RATTLER_CACHE_DIR": str(tmp_path / "cold rattler"),
    }

    there = digests(start(channel, elsewhere, SAMPLES, environ, umask=0o077))

    assert there == {layer.name: layer.digest for layer in assembled[2]}


def test_layers_made_one_by_one_in_any_order_are_the_same(assembled: Assembled, channel: Path, tmp_path: Path) -> None:
    lock = lock_of(locked(channel, *GENERIC))
    settings = settings_of(channel, tmp_path / "alone")
    cache = Cache(settings.cache_dir)
    excluded = excluded_paths(lock, cache=cache, settings=settings, reporter=Told())
    alone = {}
    for plan in reversed(plan_layers(lock, excluded=excluded)):
        (layer,) = build_layers([plan], lock, wheel_paths={}, cache=cache, settings=settings, reporter=Told())
        alone[layer.name] = layer.digest

    together = build(lock, settings_of(channel, tmp_path / "together"))

    assert alone == {layer.name: layer.digest for layer in together}


def test_what_is_there_is_not_made_again(assembled: Assembled, tmp_path: Path) -> None:
    lock, settings, layers, _ = assembled
    unreachable = dataclasses.replace(settings, channel_mirrors=(("conda-forge", tmp_path.as_uri()),))

    assert build(lock, unreachable) == layers


def test_layers_are_announced_in_order_as_they_come(channel: Path, tmp_path: Path) -> None:
    lock = lock_of(locked(channel, *GENERIC))
    settings = settings_of(channel, tmp_path)
    cache = Cache(settings.cache_dir)
    told: list[Layer] = []

    layers = build_layers(
        plan_layers(lock), lock, wheel_paths={}, cache=cache, settings=settings, reporter=Told(), on_layer=told.append
    )

    assert tuple(told) == layers
    assert [layer.name for layer in layers] == [plan.name for plan in plan_layers(lock)]


def test_two_builds_at_once_give_the_same_layers_and_leave_nothing_else(channel: Path, tmp_path: Path) -> None:
    both = [start(channel, tmp_path, GENERIC) for _ in range(2)]

    one, two = (digests(process) for process in both)

    assert one == two
    assert not list((tmp_path / "cache" / "tmp").iterdir())
    blobs = {path.name for path in (tmp_path / "cache" / "blobs" / "sha256").iterdir()}
    assert blobs == {digest.removeprefix("sha256:") for digest in one.values()}


def test_a_build_that_is_killed_twice_is_made_up_for(assembled: Assembled, channel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for moment in ("conda", "blobs/sha256"):  # while packages are laid out; while layers are written
        process = start(channel, tmp_path, SAMPLES)
        deadline = time.monotonic() + 120
        while not _reached(cache, moment) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        assert not LayerStore(Cache(cache)).verify(), "what is in the store is whole"

    again = build(assembled[0], settings_of(channel, tmp_path))

    assert [layer.digest for layer in again] == [layer.digest for layer in assembled[2]]


@pytest.mark.parametrize("moment", ["conda", "blobs/sha256"])
def test_ctrl_c_ends_a_build_and_leaves_nothing_half_made(channel: Path, tmp_path: Path, moment: str) -> None:
    for number in range(5):  # on a busy machine, a build may be done before we have looked
        cache = tmp_path / str(number) / "cache"
        process = start(channel, cache.parent, SAMPLES, new_group=True)
        deadline = time.monotonic() + 120
        while not _reached(cache, moment) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):  # it is done
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everyone in the foreground
        out, _ = process.communicate(timeout=120)
        if "himl sha256:" not in out:
            break

    assert "himl sha256:" not in out, "the signal came in time"
    assert process.returncode != 0
    assert not list((cache / "tmp").iterdir())
    assert not LayerStore(Cache(cache)).verify()


def _reached(cache: Path, moment: str) -> bool:
    if moment == "conda":
        return any(cache.glob("tmp/*/conda/linked/prefix-*"))
    return any(cache.glob(f"{moment}/*"))


def test_ctrl_c_when_all_layers_are_there_leaves_no_work_in_progress(
    channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Staging.close

    def interrupted(staging: Staging) -> None:
        close(staging)
        raise KeyboardInterrupt

    monkeypatch.setattr(Staging, "close", interrupted)
    settings = settings_of(channel, tmp_path)
    with pytest.raises(KeyboardInterrupt) as raised:
        build(lock_of(locked(channel, "tinydata")), settings)
    assert not list((settings.cache_dir / "tmp").iterdir())
    assert raised.tb  # held up to here, as by the command line: what nobody holds is tidied up by Python itself


def test_a_damaged_blob_is_made_again(channel: Path, tmp_path: Path) -> None:
    lock, settings = lock_of(locked(channel, "links", "tinydata")), settings_of(channel, tmp_path)
    layers = build(lock, settings)
    for layer in layers:
        layer.path.write_bytes(b"\0" * layer.size)
        os.utime(layer.path, (1, 1))  # the clock of files may not have moved since it was made

    again = build(lock, settings)

    assert again == layers
    assert not LayerStore(Cache(settings.cache_dir)).verify()


@pytest.mark.parametrize("damage", [b"XXXXXX", b"longer than before", b"", None])
def test_a_package_that_was_changed_in_the_shared_cache_is_fetched_again(
    channel: Path, tmp_path: Path, damage: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "rattler"))
    lock = lock_of(locked(channel, "tinydata", "links"))
    good = build(lock, settings_of(channel, tmp_path / "good"))
    (file,) = (tmp_path / "rattler").rglob("with space.txt")
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    told = Told()

    again = build(lock, settings_of(channel, tmp_path / "again"), reporter=told)

    assert [layer.digest for layer in again] == [layer.digest for layer in good]
    assert any("cache" in text and "again" in text for text in told.warnings)


def test_without_the_right_to_write_it_is_a_storage_error(channel: Path, tmp_path: Path) -> None:
    from himl_container.errors import StorageError

    (tmp_path / "cache").write_text("a file where the cache should be")

    with pytest.raises(StorageError):
        build(lock_of(locked(channel, "links")), settings_of(channel, tmp_path))
