from __future__ import annotations

import hashlib
import io
import os
import posixpath
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.image.tar import ContentError, Entry, header, write_tar

part = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=130)
paths = (
    st.lists(part, min_size=1, max_size=6)
    .map("/".join)
    .filter(lambda path: posixpath.normpath(path) == path and path not in (".", "..") and not path.startswith("../"))
)


def written(*entries: Entry) -> bytes:
    buffer = io.BytesIO()
    result = write_tar(entries, buffer)
    assert result.digest == "sha256:" + hashlib.sha256(buffer.getvalue()).hexdigest()
    assert result.size == len(buffer.getvalue())
    assert result.size % 10240 == 0
    return buffer.getvalue()


def read(data: bytes) -> dict[str, tuple[bytes, int, bytes, str]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            info.name: (info.type, info.mode, archive.extractfile(info).read() if info.isreg() else b"", info.linkname)  # type: ignore[union-attr]
            for info in archive
        }


@given(paths, st.binary(max_size=2000), st.booleans())
def test_any_file_is_read_back_as_it_was_written(path: str, data: bytes, executable: bool) -> None:
    found = read(written(Entry(path, executable=executable, data=data)))

    assert found[path] == (tarfile.REGTYPE, 0o755 if executable else 0o644, data, "")
    parents = [p for p in found if p != path]
    assert all(path.startswith(parent + "/") for parent in parents)
    assert len(parents) == path.count("/")


@given(paths, st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=250))
def test_any_link_is_read_back_as_it_was_written(path: str, target: str) -> None:
    found = read(written(Entry(path, "link", target=target)))

    # tarfile, as a reader, takes slashes off the end of a target
    assert found[path][0] == tarfile.SYMTYPE
    assert found[path][3].rstrip("/") == target.rstrip("/")


@pytest.mark.parametrize("length", [99, 100, 101, 155, 156, 254, 255, 256, 257, 400])
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_names_around_the_limits_of_the_fields(length: int, pieces: int) -> None:
    piece = length // pieces
    path = "/".join(["x" * (piece - 1)] * (pieces - 1) + ["y" * (length - piece * (pieces - 1))])

    assert len(path) == length
    assert path in read(written(Entry(path, data=b"1")))
    assert path in read(written(Entry(path, "folder")))


def test_gnu_tar_reads_it_too(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    long = "d/" * 80 + "ü" * 90
    archive.write_bytes(written(Entry(long, data=b"1"), Entry("l", "link", target="t" * 150), Entry("e", "folder")))

    subprocess.run(["tar", "-xf", archive, "-C", tmp_path], check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})

    assert (tmp_path / long).read_bytes() == b"1"
    assert str((tmp_path / "l").readlink()) == "t" * 150
    assert (tmp_path / "e").is_dir()


def test_a_file_of_more_than_eight_gigabytes() -> None:
    with tarfile.open(fileobj=io.BytesIO(header(Entry("big"), 9 << 30) + bytes(1024))) as archive:
        found = archive.next()

    assert found is not None
    assert (found.name, found.size) == ("big", 9 << 30)


def test_the_order_of_the_entries_does_not_matter_and_parents_come_once() -> None:
    entries = [
        Entry("a/b/c", data=b"1"),
        Entry("a-b", data=b"2"),
        Entry("a", "folder"),
        Entry("a/b/d", "link", target="c"),
    ]

    data = written(*entries)

    assert written(*entries[::-1]) == data
    assert list(read(data)) == ["a", "a/b", "a/b/c", "a/b/d", "a-b"]


@pytest.mark.parametrize("path", ["", ".", "..", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a/."])
def test_a_path_that_leaves_the_archive_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a path inside"):
        written(Entry(path))


@pytest.mark.parametrize("second", [Entry("a"), Entry("a", "link", target="x"), Entry("a/b"), Entry("a", "folder")])
def test_two_entries_of_one_path_are_refused(second: Entry) -> None:
    with pytest.raises(ValueError, match="twice"):
        written(Entry("a"), second)


def test_a_name_that_begins_with_dots_is_no_way_out() -> None:
    assert "..a/...b" in read(written(Entry("..a/...b")))


def test_a_part_of_a_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")

    found = read(written(Entry("part", source=source, offset=2, size=3), Entry("all", source=source)))

    assert found["part"][2] == b"234"
    assert found["all"][2] == b"0123456789"


def test_content_that_is_not_what_was_announced(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"changed")
    (tmp_path / "link").symlink_to(source)
    wrong = [
        Entry("a", source=tmp_path / "gone"),
        Entry("a", source=source, size=100),
        Entry("a", source=source, sha256=hashlib.sha256(b"original").hexdigest()),
        Entry("a", source=tmp_path / "link"),
    ]
    for entry in wrong:
        with pytest.raises(ContentError):
            written(entry)
    assert written(Entry("a", source=source, sha256=hashlib.sha256(b"changed").hexdigest()))
