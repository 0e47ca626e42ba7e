"""Uploads in blocks: continued, never half there, and nothing replaced that is to stay."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from himl_container.azureml import uploads
from himl_container.azureml.crew import Crew
from himl_container.azureml.failures import WrongType, WrongValue
from himl_container.azureml.transfers import upload_to_datastore
from himl_container.azureml.uploads import Uploaded, upload_all
from himl_container.errors import AzureMLError

pytest.importorskip("azure.storage.blob")

BLOCK = 1000
LARGE = random.Random(2).randbytes(5 * BLOCK + 7)


class Container:
    """A container in memory, as far as an upload looks."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.md5: dict[str, bytes] = {}
        self.blocks: dict[str, dict[str, bytes]] = {}
        self.staged: list[int] = []
        self.fails: Any = lambda what, name: None
        self.lock = threading.Lock()

    def get_blob_client(self, name: str) -> Any:
        return SimpleNamespace(
            upload_blob=lambda data, **words: self._put(name, data, words),
            get_block_list=lambda kind: ([], self._uncommitted(name)),
            stage_block=lambda block, data, **words: self._stage(name, block, data, words),
            commit_block_list=lambda blocks, **words: self._commit(name, blocks, words),
        )

    def _put(self, name: str, data: bytes, words: dict[str, Any]) -> None:
        self.fails("put", name)
        if name in self.blobs and not words["overwrite"]:
            raise refused(409)
        self.blobs[name], self.md5[name] = data, bytes(words["content_settings"].content_md5)

    def _uncommitted(self, name: str) -> list[Any]:
        if name not in self.blocks:
            raise refused(404)
        return [SimpleNamespace(id=base64.b64encode(block.encode()).decode()) for block in self.blocks[name]]

    def _stage(self, name: str, block: str, data: bytes, words: dict[str, Any]) -> None:
        self.fails("stage", block)
        assert words["validate_content"] and len(data) == words["length"]
        with self.lock:
            self.staged.append(len(data))
            self.blocks.setdefault(name, {})[block] = data

    def _commit(self, name: str, blocks: list[Any], words: dict[str, Any]) -> None:
        self.fails("commit", name)
        if name in self.blobs and "match_condition" in words:
            raise refused(412)
        found = self.blocks.pop(name)
        self.blobs[name] = b"".join(found[block.id] for block in blocks)
        self.md5[name] = bytes(words["content_settings"].content_md5)


def refused(status: int) -> Exception:
    error = Exception("refused")
    error.status_code = status  # type: ignore[attr-defined]
    return error


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crew, "pause", lambda self, seconds: self.check())
    monkeypatch.setattr(uploads, "BLOCK", BLOCK)


@pytest.fixture
def container() -> Container:
    return Container()


def write(folder: Path, **files: bytes) -> list[tuple[Path, str]]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [(folder / name, f"remote/{name}") for name in files]


def send(files: list[tuple[Path, str]], container: Container, *, overwrite: bool = False) -> Uploaded:
    return upload_all(files, container, overwrite=overwrite)  # type: ignore[arg-type]


def test_every_size(container: Container, tmp_path: Path) -> None:
    data = {"empty": b"", "small": b"few", "block": LARGE[:BLOCK], "large": LARGE}
    assert send(write(tmp_path, **data), container) == Uploaded(4, 0, sum(map(len, data.values())))
    for name, content in data.items():
        assert container.blobs[f"remote/{name}"] == content
        assert container.md5[f"remote/{name}"] == hashlib.md5(content).digest()
    assert container.staged.count(BLOCK) == 5 and container.staged.count(7) == 1


def test_continued_with_the_blocks_that_are_there(container: Container, tmp_path: Path) -> None:
    files = write(tmp_path, large=LARGE)

    def fail(what: str, name: str) -> None:
        if what == "stage" and name.startswith("000004"):
            raise refused(403)

    container.fails = fail
    with pytest.raises(Exception, match="refused"):
        upload_all(files, container, overwrite=False, workers=1)  # type: ignore[arg-type]
    assert container.blobs == {}
    there = sum(container.staged)
    assert there == 4 * BLOCK
    container.fails, container.staged = lambda what, name: None, []
    send(files, container)
    assert container.blobs["remote/large"] == LARGE
    assert sum(container.staged) == len(LARGE) - there


def test_blocks_of_another_content_are_not_used(container: Container, tmp_path: Path) -> None:
    container.blocks["remote/large"] = {f"00000{index}-{'0' * 32}": b"other" for index in range(6)}
    send(write(tmp_path, large=LARGE), container)
    assert container.blobs["remote/large"] == LARGE


@pytest.mark.parametrize("name", ["small", "large"])
def test_what_is_there_stays_unless_it_is_to_be_replaced(container: Container, tmp_path: Path, name: str) -> None:
    files = write(tmp_path, **{name: LARGE if name == "large" else b"few"})
    container.blobs[f"remote/{name}"] = b"theirs"  # came after the list of names was made
    assert send(files, container).kept == 1
    assert container.blobs[f"remote/{name}"] == b"theirs"
    known = frozenset(container.blobs)
    container.fails = lambda what, name: pytest.fail("nothing is sent that is known to be there")
    done = upload_all(files, container, overwrite=False, there=known)  # type: ignore[arg-type]
    assert done == Uploaded(0, 1, 0)
    container.fails = lambda what, name: None
    assert send(files, container, overwrite=True).files == 1
    assert container.blobs[f"remote/{name}"] == files[0][0].read_bytes()


def test_transient_failures(container: Container, tmp_path: Path) -> None:
    failed: set[tuple[str, str]] = set()

    def once(what: str, name: str) -> None:
        if (what, name) not in failed:
            failed.add((what, name))
            raise refused(503)

    container.fails = once
    send(write(tmp_path, small=b"few", large=LARGE), container)
    assert container.blobs["remote/large"] == LARGE
    assert container.blobs["remote/small"] == b"few"


def test_a_file_that_changes_is_not_uploaded(container: Container, tmp_path: Path) -> None:
    files = write(tmp_path, large=LARGE)
    os.utime(files[0][0], (1, 1))  # the clock of files may not move while it is sent

    def change(what: str, name: str) -> None:
        if what == "stage" and name.startswith("000003"):
            files[0][0].write_bytes(bytes(len(LARGE)))

    container.fails = change
    with pytest.raises(AzureMLError, match="changed while it was being uploaded"):
        send(files, container)
    assert container.blobs == {}


def test_what_is_no_file(container: Container, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WrongValue, match="only files"):
        send([(tmp_path / "pipe", "pipe")], container)
    with pytest.raises(WrongValue, match="cannot be read"):
        send([(tmp_path / "absent", "absent")], container)


def test_only_folders_are_uploaded(tmp_path: Path) -> None:
    """Said before a workspace is looked for."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "absent"):
        with pytest.raises(WrongType, match="local_path must be a directory") as error:
            upload_to_datastore("store", path, Path("x"))
        assert isinstance(error.value, TypeError)
    with pytest.raises(WrongValue, match="not a path below a folder"):
        upload_to_datastore("store", tmp_path, Path("../x"))


@pytest.mark.parametrize("name", [b"a\\b", b"line\nbreak", b"not utf-8 \xff"])
def test_names_that_no_download_would_take(tmp_path: Path, name: bytes) -> None:
    (tmp_path / "good").write_bytes(b"1")
    (tmp_path / os.fsdecode(name)).write_bytes(b"1")
    # No workspace is asked for: nothing is sent.
    with pytest.raises(WrongValue, match="not a path below a folder"):
        upload_to_datastore("store", tmp_path, Path("remote"))
