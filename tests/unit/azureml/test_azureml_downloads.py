"""Downloads in parts: continued, compared, never half under the final name, and never outside of the folder."""

from __future__ import annotations

import fcntl
import functools
import gzip
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blob_server import SIGNATURE, Asked, Blob, BlobServer, Fault, blob_server
from hypothesis import given
from hypothesis import strategies as st

from himl_container.azureml import download_work
from himl_container.azureml.crew import Crew
from himl_container.azureml.downloads import Downloaded, DownloadOptions, download_all
from himl_container.azureml.failures import WrongValue
from himl_container.azureml.partial_file import partial_path
from himl_container.azureml.remote_files import RemoteFile, check_tree, local_path
from himl_container.errors import AzureMLError, HimlError, StorageError

PART = 64 << 10
LARGE = random.Random(1).randbytes(3 * PART + 12345)
CHECK = DownloadOptions(check=True)
PAUSE = Crew.pause


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses, and smaller parts, so that several of them are made in no time."""
    monkeypatch.setattr(Crew, "pause", lambda self, seconds: self.check())
    monkeypatch.setattr(download_work, "PART", PART)
    monkeypatch.setattr(download_work, "LARGEST_CHECKED", PART // 2)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with blob_server(small=b"few", empty=b"", large=LARGE) as running:
        yield running


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name.startswith("."))


@pytest.mark.parametrize("options", [DownloadOptions(), CHECK])
def test_every_size(server: BlobServer, tmp_path: Path, options: DownloadOptions) -> None:
    server.blobs["a/b/c d%41"] = Blob(b"deep")
    done = download_all(server.files(), tmp_path / "new", options)
    for name, blob in server.blobs.items():
        assert (tmp_path / "new" / name).read_bytes() == blob.data
    assert done == Downloaded(4, 0, sum(len(blob.data) for blob in server.blobs.values()))
    assert left_over(tmp_path) == []
    assert (tmp_path / "new/large").stat().st_mtime == server.blobs["large"].modified
    umask = os.umask(0)
    os.umask(umask)
    assert {(tmp_path / "new" / name).stat().st_mode & 0o777 for name in ("small", "large")} == {0o666 & ~umask}


@pytest.mark.parametrize("options", [DownloadOptions(), CHECK])
def test_what_was_stored_packed_stays_packed(server: BlobServer, tmp_path: Path, options: DownloadOptions) -> None:
    """The encoding is a property that whoever uploaded a file may have set; it says nothing about the way."""
    for name, data in (("small", gzip.compress(b"text")), ("large", LARGE), ("no.gz", b"no gzip at all")):
        server.blobs[name] = Blob(data, encoding="gzip")
    download_all(server.files(), tmp_path, options)
    for name, blob in server.blobs.items():
        assert (tmp_path / name).read_bytes() == blob.data


def test_continued_where_it_was_cut(server: BlobServer, tmp_path: Path) -> None:
    """Parts that arrived before a failure are not sent again; until the last is there, the name is not."""
    server.fault = lambda asked: Fault(status=403) if asked.first == 2 * PART else None
    with pytest.raises(AzureMLError, match="large: the storage answered 403"):
        download_all([server.file("large")], tmp_path, DownloadOptions(workers=1))
    assert not (tmp_path / "large").exists()
    assert partial_path(tmp_path / "large").exists()
    assert [asked.first for asked in server.asked] == [0, PART, 2 * PART]
    server.fault, server.asked = lambda asked: None, []
    done = download_all([server.file("large")], tmp_path)
    assert (tmp_path / "large").read_bytes() == LARGE
    assert done.size == len(LARGE) - 2 * PART
    assert sorted(asked.first for asked in server.asked) == [0, 2 * PART, 3 * PART]  # the first asks for one byte
    assert left_over(tmp_path) == []


def test_another_content_is_begun_anew(server: BlobServer, tmp_path: Path) -> None:
    server.fault = lambda asked: Fault(status=403) if asked.first == 2 * PART else None
    with pytest.raises(AzureMLError):
        download_all([server.file("large")], tmp_path, DownloadOptions(workers=1))
    server.fault = lambda asked: None
    server.blobs["large"] = Blob(bytes(reversed(LARGE)))
    assert download_all([server.file("large")], tmp_path).size == len(LARGE)
    assert (tmp_path / "large").read_bytes() == bytes(reversed(LARGE))


@pytest.mark.parametrize("other", [bytes(reversed(LARGE)), LARGE + b"more", b"short"])
def test_content_that_changes_in_between(server: BlobServer, tmp_path: Path, other: bytes) -> None:
    def change() -> None:
        server.blobs["large"] = Blob(other)

    server.fault = lambda asked: Fault(before=change) if asked.first == PART else None
    download_all([server.file("large")], tmp_path)
    assert (tmp_path / "large").read_bytes() == other
    assert left_over(tmp_path) == []


def test_content_that_never_stays(server: BlobServer, tmp_path: Path) -> None:
    def change() -> None:
        server.blobs["large"] = Blob(os.urandom(16) + LARGE)

    server.fault = lambda asked: Fault(before=change) if asked.first == PART else None
    with pytest.raises(AzureMLError, match="changes again and again"):
        download_all([server.file("large")], tmp_path)
    assert not (tmp_path / "large").exists()


@pytest.mark.parametrize("name", ["small", "large"])
@pytest.mark.parametrize("fault", [Fault(cut=2), Fault(status=503), Fault(status=429)])
def test_transient_failures(server: BlobServer, tmp_path: Path, name: str, fault: Fault) -> None:
    hit: set[int] = set()

    def once(asked: Asked) -> Fault | None:
        if asked.first in hit:
            return None
        hit.add(asked.first)
        return fault

    server.fault = once
    assert download_all([server.file(name)], tmp_path).size == len(server.blobs[name].data)
    assert (tmp_path / name).read_bytes() == server.blobs[name].data
    assert left_over(tmp_path) == []


def test_damage_on_the_way(server: BlobServer, tmp_path: Path) -> None:
    """Compared with checksums, damaged bytes are fetched again; without, nobody notices."""
    seen: set[tuple[str, int]] = set()

    def once(asked: Asked) -> Fault:
        key = (asked.name, asked.first)
        damage = key not in seen
        seen.add(key)
        return Fault(damage=damage)

    server.fault = once
    download_all([server.file("small"), server.file("large")], tmp_path, CHECK)
    assert (tmp_path / "small").read_bytes() == b"few"
    assert (tmp_path / "large").read_bytes() == LARGE
    server.fault = lambda asked: Fault(damage=True)
    with pytest.raises(ConnectionError, match="do not agree with their MD5"):
        download_all([server.file("small")], tmp_path / "never", CHECK)
    assert list((tmp_path / "never").iterdir()) == []
    download_all([server.file("small")], tmp_path / "unseen")
    assert (tmp_path / "unseen/small").read_bytes() != b"few"


def test_files_that_are_there(server: BlobServer, tmp_path: Path) -> None:
    files = [server.file("small"), server.file("large")]
    download_all(files, tmp_path)
    server.asked = []
    assert download_all(files, tmp_path) == Downloaded(0, 2, 0)
    assert [(asked.first, asked.last) for asked in server.asked] == [(0, 0), (0, 0)]
    (tmp_path / "small").write_text("mine")
    assert download_all(files, tmp_path, DownloadOptions(overwrite=False)) == Downloaded(0, 2, 0)
    assert (tmp_path / "small").read_text() == "mine"
    (tmp_path / "small").write_text("sam")  # the same size, another time
    assert download_all(files, tmp_path) == Downloaded(1, 1, 3)
    assert (tmp_path / "small").read_text() == "few"


def test_checksums_decide_about_files_that_are_there(server: BlobServer, tmp_path: Path) -> None:
    """With checks, time and size do not suffice; where the storage knows no checksum, the file is fetched again."""
    target = tmp_path / "small"
    download_all([server.file("small")], tmp_path)
    target.write_text("bad")
    os.utime(target, (server.blobs["small"].modified,) * 2)
    assert download_all([server.file("small")], tmp_path) == Downloaded(0, 1, 0)
    assert download_all([server.file("small")], tmp_path, CHECK) == Downloaded(1, 0, 3)
    assert target.read_text() == "few"
    assert download_all([server.file("small")], tmp_path, CHECK) == Downloaded(0, 1, 0)
    server.blobs["small"].has_md5 = False
    assert download_all([server.file("small")], tmp_path, CHECK) == Downloaded(1, 0, 3)


def test_an_expired_signature_is_renewed(server: BlobServer, tmp_path: Path) -> None:
    done = download_all([server.file("large", signature="sig=old", renewable=True)], tmp_path)
    assert done.size == len(LARGE)
    with pytest.raises(AzureMLError, match="403"):
        download_all([server.file("small", signature="sig=old")], tmp_path)


def test_no_error_shows_an_address(server: BlobServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unreachable = RemoteFile("x", f"http://127.0.0.1:1/container/x?{SIGNATURE}")
    with pytest.raises(ConnectionError) as error:
        download_all([unreachable], tmp_path)
    seen: list[BaseException | None] = [error.value]
    while seen[-1] is not None and not seen[-1].__suppress_context__:
        seen.append(seen[-1].__cause__ or seen[-1].__context__)
    text = " ".join(map(repr, seen)) + caplog.text + repr(unreachable)
    assert "x: no answer" in text
    assert "very-secret" not in text


def test_another_process_at_the_same_file(server: BlobServer, tmp_path: Path) -> None:
    """Whoever holds the parts keeps them; the other fetches its own, and both end with the whole file."""
    partial_path(tmp_path / "large").write_bytes(b"theirs")
    with partial_path(tmp_path / "large").open("rb+") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        download_all([server.file("large")], tmp_path)
        assert theirs.read() == b"theirs"
    assert (tmp_path / "large").read_bytes() == LARGE
    assert left_over(tmp_path) == [partial_path(tmp_path / "large").name]


def test_many_at_once_from_several_threads(server: BlobServer, tmp_path: Path) -> None:
    for index in range(50):
        server.blobs[f"many/{index}"] = Blob(str(index).encode())
    threads = [threading.Thread(target=functools.partial(download_all, server.files(), tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, blob in server.blobs.items():
        assert (tmp_path / name).read_bytes() == blob.data
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    "note", [b"", b"himl-container partial file 1\n{}\n1111", b"himl-container partial file 1\n" + b"1" * 300]
)
def test_damaged_leftovers(server: BlobServer, tmp_path: Path, note: bytes) -> None:
    with partial_path(tmp_path / "large").open("wb") as file:
        file.seek(len(LARGE))
        file.write(note)
    download_all([server.file("large")], tmp_path)
    assert (tmp_path / "large").read_bytes() == LARGE


def test_places_that_cannot_be_written(server: BlobServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        download_all([server.file("small")], tmp_path / "file")
    (tmp_path / "small").mkdir()
    with pytest.raises(WrongValue, match="there is a folder of that name"):
        download_all([server.file("small")], tmp_path)


def test_nothing_is_fetched_where_one_name_is_bad(server: BlobServer, tmp_path: Path) -> None:
    with pytest.raises(WrongValue, match="not a path below a folder"):
        download_all([server.file("small"), RemoteFile("../small", server.file("small").address)], tmp_path / "o")
    assert server.asked == []
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/x",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "C:/x",
        "a\nb",
        "a\0b",
        "a\x1b[2J",
        "a\ud800",
        "..",
        ".",
    ],
)
def test_names_that_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(WrongValue):
        local_path(tmp_path, name)


@given(st.text(alphabet=st.sampled_from("ab./\\\0\n: é~"), max_size=12) | st.text(max_size=20))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    folder = Path("/somewhere/below")
    try:
        found = local_path(folder, name)
    except WrongValue:
        return
    assert Path(os.path.normpath(found)) == found
    assert found.relative_to(folder).as_posix() == name


def test_a_file_and_a_folder_of_one_name() -> None:
    check_tree(["a", "ab/c", "a.b"])
    with pytest.raises(WrongValue, match="'a/b' is a file and, because of 'a/b/c', a folder too"):
        check_tree(["a/b", "a/b/c"])


def test_the_first_failure_ends_all_work() -> None:
    crew, failed = Crew(2), threading.Event()
    done: list[int] = []

    def bad() -> list[object]:
        failed.set()
        raise HimlError("first")

    def other(index: int) -> list[object]:
        failed.wait(30)
        PAUSE(crew, 30)  # the real one: between the failure and the end of all, this thread could do many tasks
        done.append(index)
        return []

    with pytest.raises(HimlError, match="first"):
        crew.work([bad, *[functools.partial(other, index) for index in range(1000)]])
    assert done == []


def test_tasks_that_tasks_bring_come_first() -> None:
    crew, order = Crew(1), []

    def task(name: str, further: list[str]) -> list[object]:
        order.append(name)
        return [functools.partial(task, one, []) for one in further]

    crew.work([functools.partial(task, "1", ["1a", "1b"]), functools.partial(task, "2", [])])
    assert order == ["1", "1a", "1b", "2"]
