"""Which libraries an environment needs from its base: read from ELF files, in layers and in folders."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import elf_files
import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.cache import Cache
from himl_container.errors import BuildError
from himl_container.image import elf, tar_scan
from himl_container.image.inside import loader
from himl_container.image.libraries import needs_from_base
from image import plans

SITE = "/opt/himl/lib/python3.11/site-packages"


def read(data: bytes) -> elf.Elf | None:
    return elf.read_elf(data, 0, len(data))


def outside(files: dict[str, bytes], links: dict[str, str] | None = None) -> dict[str, list[str]]:
    found = {path: read(data) for path, data in files.items()}
    return elf.outside({path: one for path, one in found.items() if one}, links or {}, "/opt/himl")


def test_what_the_loader_reads() -> None:
    data = elf_files.shared_library(["libc.so.6", "libz.so.1"], rpath="$ORIGIN/../lib:/usr/lib", program=True)
    assert read(data) == elf.Elf(["libc.so.6", "libz.so.1"], ["$ORIGIN/../lib", "/usr/lib"], [], True)
    shifted = b"x" * 512 + data
    assert elf.read_elf(shifted, 512, len(data)) == read(data)


def test_this_machines_own_files() -> None:
    modules = sorted(Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so"))
    files = [Path(sys.executable).resolve(), *modules[:5]]
    found = [read(path.read_bytes()) for path in files]
    assert found[0] is not None and found[0].program
    needed = {name for one in found if one is not None for name in one.needed}
    assert None not in found
    assert any(name.startswith("libc.so") for name in needed)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_damaged_files_are_no_elf_files(noise: bytes, cut: int) -> None:
    data = elf_files.shared_library(["libc.so.6"], runpath="/x")
    for damaged in (noise, elf.MAGIC + noise, data[:cut], data[: cut // 2] + noise + data[cut // 2 :]):
        found = read(damaged)
        assert found is None or isinstance(found, elf.Elf)


def test_libraries_of_the_environment_are_found_through_origin_and_links() -> None:
    files = {
        "/opt/himl/bin/tool": elf_files.shared_library(["libfoo.so.1"], rpath="$ORIGIN/../lib", program=True),
        "/opt/himl/lib/libfoo.so.1.2": elf_files.shared_library(["libbar.so", "libm.so.6"], runpath="${ORIGIN}"),
        "/opt/himl/lib/libbar.so": elf_files.shared_library(["libGL.so.1"]),
    }
    found = outside(files, {"/opt/himl/lib/libfoo.so.1": "/opt/himl/lib/libfoo.so.1.2"})
    assert found == {"libGL.so.1": ["program:/opt/himl/bin/tool"], "libm.so.6": ["program:/opt/himl/bin/tool"]}


def test_a_library_that_nothing_loads_does_not_count() -> None:
    assert outside({"/opt/himl/lib/plugin.so": elf_files.shared_library(["libnothing.so"])}) == {}


def test_extension_modules_count_for_their_top_level_module() -> None:
    module = elf_files.shared_library(["libstdc++.so.6", "libcuda.so.1"])
    found = outside({f"{SITE}/cv2/cv2.abi3.so": module, f"{SITE}/_fast.cpython-311-x86_64-linux-gnu.so": module})
    assert found == {name: ["module:_fast", "module:cv2"] for name in ("libcuda.so.1", "libstdc++.so.6")}


@pytest.mark.parametrize(("runpath", "from_base"), [("", False), ("/elsewhere", True)])
def test_the_interpreters_rpath_serves_modules_without_a_runpath(runpath: str, from_base: bool) -> None:
    files = {
        "/opt/himl/bin/python3.11": elf_files.shared_library(rpath="$ORIGIN/../lib", program=True),
        "/opt/himl/lib/libstdc++.so.6": elf_files.shared_library(),
        f"{SITE}/a/b.so": elf_files.shared_library(["libstdc++.so.6"], runpath=runpath),
    }
    assert ("libstdc++.so.6" in outside(files)) is from_base


def test_layers_are_read_once_and_merged(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    low = plans.stored_layer(
        cache,
        "conda:a",
        {"/opt/himl/lib/libfoo.so.1.2": elf_files.shared_library(["libold.so"]), "/opt/himl/share/text": "x" * 100},
        {"/opt/himl/lib/libfoo.so.1": "libfoo.so.1.2"},
    )
    high = plans.stored_layer(
        cache,
        "pip:b",
        {f"{SITE}/b/_b.so": elf_files.shared_library(["libfoo.so.1", "libc.so.6"], runpath="$ORIGIN/../../..")},
    )
    digests = ("sha256:" + "00" * 32, low.digest, high.digest)
    expected = {"libc.so.6": ["module:b"], "libold.so": ["module:b"]}
    assert needs_from_base(digests, cache) == expected
    before = {path: path.read_bytes() for path in (tmp_path / "memo").rglob("*.json")}
    assert len(before) == 2
    low.path.write_bytes(b"not a tar")  # not read again
    assert needs_from_base(digests, cache) == expected


def test_an_image_without_our_layers_has_to_be_asked(tmp_path: Path) -> None:
    assert needs_from_base(("sha256:" + "00" * 32,), Cache(tmp_path)) is None


def test_long_names_and_links_are_read_back(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    long = "/opt/himl/" + "folder-of-thirty-characters-12/" * 9 + "é" * 60 + ".txt"
    layer = plans.stored_layer(cache, "x", {long: "content", "/a": b""}, {"/b": "t" * 150})
    with tar_scan.opened(layer.path) as data:
        found = {member.path: member for member in tar_scan.members(data)}
        content = found[long[1:]]
        assert data[content.offset : content.offset + content.size] == b"content"
    assert found["b"].kind == "link" and found["b"].target == "t" * 150
    assert found["a"].size == 0 and found["opt/himl"].kind == "folder"


@pytest.mark.parametrize("damage", [b"", b"garbage" * 200])
def test_a_damaged_layer_is_an_error(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "x").write_bytes(damage)
    with pytest.raises(BuildError, match="cannot be read"), tar_scan.opened(tmp_path / "x") as data:
        list(tar_scan.members(data))


def test_a_layer_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    layer = plans.stored_layer(Cache(tmp_path), "x", {"/a": "x" * 5000})
    with pytest.raises(BuildError, match="cut off"):
        list(tar_scan.members(layer.path.read_bytes()[:2000]))


def test_the_base_has_its_c_library_and_not_another() -> None:
    assert loader.missing_in_base(["libc.so.6", "libno-such-thing.so.1"]) == ["libno-such-thing.so.1"]
