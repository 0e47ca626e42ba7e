"""Reading layers of anybody's: what is in them, whose it is, and what is refused."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_images import PREFIX, conda_files, pack, tar, wheel_files

from himl_container.errors import RegistryError
from himl_container.publish.listing import Listing, Package, list_layer
from himl_container.registry.model import sha256_of


def chunks(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


LAYER = tar(
    {
        **conda_files("numpy-base", "1.26.4", {"lib/a.so": b"abc", "lib/b-1": b""}),
        **wheel_files("typing_extensions", "4.0", {"typing_extensions.py": b"x = 1\n", "../../../bin/tool": b"#!"}),
        "etc/link": "/target",
        "var/lib/dpkg/info/libc6:amd64.list": b"/.\n/usr/lib/libc.so\n",
        "usr/lib/libc.so": b"libc",
        "usr/lib/nobodys": b"?",
    }
)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_layer_says_what_is_in_it_and_whose(compression: str) -> None:
    found = list_layer(chunks(pack(LAYER, compression)), diff_id=sha256_of(LAYER))
    assert found.size == len(LAYER)
    assert found.digest == sha256_of(LAYER)
    fact = found.facts[f"{PREFIX}/lib/a.so"]
    assert (fact.kind, fact.size, fact.content.hex()) == ("file", 3, sha256_of(b"abc")[7:])
    assert (found.facts["etc/link"].kind, found.facts["etc/link"].target) == ("link", "/target")
    assert found.owners[f"{PREFIX}/lib/b-1"] == Package("conda", "numpy-base")
    assert found.owners[f"{PREFIX}/lib/python3.11/site-packages/typing_extensions.py"] == Package(
        "pip", "typing-extensions"
    )
    assert found.owners[f"{PREFIX}/bin/tool"] == Package("pip", "typing-extensions")
    assert found.owners["usr/lib/libc.so"] == Package("deb", "libc6")
    assert "usr/lib/nobodys" not in found.owners
    assert found.versions[Package("conda", "numpy-base")] == "1.26.4 h1_0"
    assert found.versions[Package("pip", "typing-extensions")] == "4.0"


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_archive_is_read_as_python_reads_it(layout: int) -> None:
    long = "d/" * 40 + "n" * (90 if layout == tarfile.USTAR_FORMAT else 250)
    names = {long: b"1", "plain": b"22", "./dotted/../x": b"333"}
    names |= {} if layout == tarfile.USTAR_FORMAT else {"ümlaut-" + "é" * 120: b"4444"}
    data = tar(names, format=layout)
    found = list_layer([data])
    assert {fact.size for fact in found.facts.values()} == set(range(1, len(names) + 1))
    assert long in found.facts
    assert "x" in found.facts


def test_large_numbers_and_hard_links() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("file")
        info.uid, info.gid, info.mode = 3_000_000_000, 5, 0o4755
        archive.addfile(info)
        hard = tarfile.TarInfo("hard")
        hard.type, hard.linkname, hard.size = tarfile.LNKTYPE, "file", 0
        archive.addfile(hard)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    facts = list_layer([out.getvalue()]).facts
    assert (facts["file"].uid, facts["file"].gid, facts["file"].mode) == (3_000_000_000, 5, 0o4755)
    assert (facts["hard"].kind, facts["hard"].target) == ("hardlink", "file")
    assert facts["folder"].kind == "folder"


def test_whiteouts_take_away_what_lies_below() -> None:
    total = Listing()
    lower = {"a/one": b"1", "a/two": b"2", "b/deep/three": b"3", "c/four": b"4", "ab": b"5"}
    total.put(list_layer([tar(lower)]))
    total.put(list_layer([tar({"a/.wh..wh..opq": b"", "a/new": b"n", ".wh.b": b"", "c/.wh.four": b""})]))
    present = {path for path, fact in total.facts.items() if fact.kind == "file"}
    assert present == {"a/new", "ab"}
    assert {path for path, fact in total.facts.items() if fact.kind == "whiteout"} == {"b", "c/four"}


def test_records_that_cannot_be_read_own_nothing() -> None:
    odd = {
        f"{PREFIX}/conda-meta/a-1-0.json": b"[" * 100_000,
        f"{PREFIX}/conda-meta/b-1-0.json": b'{"files": [1, null, "../../../../etc/passwd", "/abs"]}',
        f"{PREFIX}/conda-meta/c-1-0.json": b"[]",
        f"{PREFIX}/lib/d-1.dist-info/RECORD": b'"\x00,,\n\n"a\nb",,\n',
    }
    found = list_layer([tar({**odd, "etc/passwd": b"root"})])
    assert found.versions.keys() == {Package("conda", name) for name in "abc"} | {Package("pip", "d")}
    assert found.owners["etc/passwd"] == Package("conda", "b")  # it says so, and only the count goes by it


@pytest.mark.parametrize("records", [b"xx a=b\n", b"0 a=b\n", b"1 a=b\n", b"-9 a=b\n", b"9" * 19 + b" a=b\n"])
def test_extended_headers_that_lead_nowhere_end(records: bytes) -> None:
    """A line that says to have no length would be read again and again."""
    header = bytearray(tarfile.TarInfo("pax").tobuf())
    header[156:157] = tarfile.XHDTYPE
    header[124:136] = b"%011o\0" % len(records)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    found = list_layer([bytes(header) + records.ljust(512, b"\0") + tar({"a": b"content"})])
    assert found.facts.keys() == {"a"}


def test_a_bomb_is_given_up_where_it_is_larger_than_a_layer_may_be() -> None:
    info = tarfile.TarInfo("zeros")
    info.size = 8 << 20
    packed = pack(info.tobuf() + bytes(info.size) + bytes(1024), "zstd")
    assert list_layer([packed], limit=9 << 20).size > info.size
    with pytest.raises(RegistryError, match=f"more than {1 << 20} bytes"):
        list_layer([packed], limit=1 << 20)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(cut(LAYER), id="cut archive"),
        pytest.param(cut(pack(LAYER)), id="cut gzip"),
        pytest.param(cut(pack(random.Random(1).randbytes(300_000), "zstd")), id="cut zstd"),
        pytest.param(b'{"not": "a layer"}' * 100, id="no archive"),
        pytest.param(b"\x1f\x8b" + bytes(100), id="no gzip"),
        pytest.param(b"\x28\xb5\x2f\xfd" + b"\xff" * 100, id="no zstd"),
    ],
)
def test_damage_is_an_error_that_names_the_layer(data: bytes) -> None:
    with pytest.raises(RegistryError) as caught:
        list_layer(chunks(data), where="conda:numpy of x")
    assert caught.value.where == "conda:numpy of x"


def test_another_layer_is_an_error() -> None:
    with pytest.raises(RegistryError, match="not the one"):
        list_layer([pack(LAYER)], diff_id=sha256_of(b"another"))


def test_a_name_of_a_gigabyte_is_refused_without_reading_it() -> None:
    header = bytearray(tarfile.TarInfo("././@LongLink").tobuf())
    header[156:157] = b"L"
    header[124:136] = b"%011o\0" % (1 << 30)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield bytes(header)
        while True:
            taken += 1
            yield bytes(1 << 20)

    with pytest.raises(RegistryError, match="more than a megabyte"):
        list_layer(endless())
    assert taken <= 2


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_bomb_takes_no_memory(compression: str) -> None:
    """80 MB of zeros in one file, some kilobytes on the way: read in pieces."""
    import tracemalloc

    info = tarfile.TarInfo("zeros")
    info.size = 80 << 20
    packed = pack(info.tobuf() + bytes(info.size) + bytes(1024), compression)
    assert len(packed) < 1 << 20
    tracemalloc.start()
    try:
        found = list_layer([packed])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.facts["zeros"].size == 80 << 20
    assert peak < 30 << 20


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_an_error_or_a_listing_and_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(LAYER)
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(LAYER) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = list_layer([bytes(whole)])
    except RegistryError:
        return
    assert all(not path.startswith(("/", "../")) for path in found.facts)
