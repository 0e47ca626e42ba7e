from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from unit.emulator.memory_blobs import MemoryBlobs

from himl_container.emulator.blobs import RUNS_CONTAINER
from himl_container.emulator.compute.files import RunFiles
from himl_container.emulator.compute.folder import JobFolder
from himl_container.emulator.compute.logs import LONGEST, SHORTEST, JobLogs, interval
from himl_container.emulator.state.artifacts import Artifacts
from himl_container.emulator.state.database import Database
from himl_container.errors import InputError, StorageError


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def artifacts(blobs: MemoryBlobs) -> Artifacts:
    return Artifacts(Database(":memory:"), blobs, time.time)


def test_files_go_up_once_and_come_back(artifacts: Artifacts, blobs: MemoryBlobs, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    (outputs / "a" / "b").mkdir(parents=True)
    (outputs / "a" / "b" / "ü 1").write_bytes(b"x" * 3_000_000)
    (outputs / "empty").touch()
    files = RunFiles(artifacts, "r1")
    assert files.save(outputs, "outputs") == []
    blobs.content.clear()
    (outputs / "new").write_text("n")
    assert files.save(outputs, "outputs") == []
    assert list(blobs.content[RUNS_CONTAINER]) == [
        "ExperimentRun/dcid.r1/outputs/new"
    ]  # what has not changed is not sent
    RunFiles(artifacts, "r1").save(outputs, "outputs")
    back = tmp_path / "back"
    assert RunFiles(artifacts, "r1").restore("outputs", back) == 3
    assert (back / "outputs" / "a" / "b" / "ü 1").read_bytes() == b"x" * 3_000_000


def test_nothing_of_this_machine_goes_up_by_a_trick(artifacts: Artifacts, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    (outputs / "link").symlink_to(secret / "key")
    (outputs / "folder").symlink_to(secret)
    os.mkfifo(outputs / "pipe")
    (outputs / "back\\slash").touch()
    (outputs / "new\nline").touch()
    (Path(os.fsdecode(bytes(outputs) + b"/\xff"))).touch()
    (outputs / "fine").touch()
    problems = RunFiles(artifacts, "r1").save(outputs, "outputs")
    assert len(problems) == 5
    assert all("\n" not in problem and problem.isascii() for problem in problems)
    assert [artifact.path for artifact in artifacts.list("r1")] == ["outputs/fine"]


def test_a_folder_that_became_a_link_is_not_read(artifacts: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("secret")
    (tmp_path / "outputs").symlink_to(tmp_path / "secret")
    assert RunFiles(artifacts, "r1").save(tmp_path / "outputs", "outputs") == []
    assert artifacts.list("r1") == []


def test_storage_that_fails_is_told(artifacts: Artifacts, blobs: MemoryBlobs, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the storage is full")

    blobs.put = fail  # type: ignore[method-assign]
    (tmp_path / "x").write_text("1")
    assert RunFiles(artifacts, "r1").save(tmp_path, "outputs") == ["'outputs/x' is not uploaded: the storage is full"]


def test_logs_arrive_while_they_are_written_and_whole(artifacts: Artifacts) -> None:
    logs = JobLogs(artifacts, "r1")
    logs.open("user_logs/std_log.txt")
    logs.write("user_logs/std_log.txt", b"first\n")
    begin = time.monotonic()
    while "r1" and not artifacts.list("r1"):  # the writer has its own pace
        assert time.monotonic() - begin < 60
    threads = [
        threading.Thread(target=lambda: [logs.write("user_logs/std_log.txt", b"x" * 999 + b"\n") for _ in range(300)])
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert logs.tail("user_logs/std_log.txt").endswith("x" * 999)
    assert len(logs.tail("user_logs/std_log.txt")) <= 4000
    assert logs.close() is None
    text = artifacts.read("r1", "user_logs/std_log.txt")
    assert text.startswith(b"first\n")
    assert len(text) == 6 + 900 * 1000


def test_a_log_is_listed_once_it_can_be_read(artifacts: Artifacts, blobs: MemoryBlobs) -> None:
    append, seen = blobs.append, []

    def late(*words: Any) -> None:
        seen.append([artifact.path for artifact in artifacts.list("r1")])
        append(*words)

    blobs.append = late  # type: ignore[method-assign]
    for data in (b"", b"one"):
        artifacts.append_log("r1", "logs/a", data)
    assert seen == [[], ["logs/a"]]
    assert artifacts.read("r1", "logs/a") == b"one"


def test_a_log_begins_again(artifacts: Artifacts) -> None:
    logs = JobLogs(artifacts, "r1")
    logs.say("one")
    assert logs.close() is None
    logs = JobLogs(artifacts, "r1")
    logs.restart("system_logs/lifecycler/execution-wrapper.log")
    logs.restart("user_logs/never")
    logs.say("two")
    assert logs.close() is None
    assert artifacts.read("r1", "system_logs/lifecycler/execution-wrapper.log") == b"two\n"


def test_storage_that_fails_does_not_hold_the_job(artifacts: Artifacts, blobs: MemoryBlobs) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the storage is gone")

    blobs.append = fail  # type: ignore[method-assign]
    logs = JobLogs(artifacts, "r1")
    for _ in range(20):
        logs.write("user_logs/std_log.txt", b"x" * (1 << 20))
    assert isinstance(logs.close(), StorageError)


def test_a_week_of_log_fits_into_an_append_blob() -> None:
    elapsed, pieces = 0.0, 0
    while elapsed < 7 * 24 * 3600:
        elapsed += interval(elapsed)
        pieces += 1
    assert pieces < 25_000
    assert (interval(0), interval(10**9)) == (SHORTEST, LONGEST)


def test_the_folder_of_a_job(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "jobs", "r/../1")
    assert folder.path.parent == tmp_path / "jobs"
    folder.make(2, ["mounted", "uploaded"])
    for name in ("mounted", "uploaded"):
        (folder.output(name) / "x").touch()
    (folder.node(1) / "train.py").touch()
    folder.make(2, ["mounted", "uploaded"], ["mounted"])
    assert [list(folder.output(name).iterdir()) != [] for name in ("mounted", "uploaded")] == [True, False]
    assert list(folder.node(1).iterdir()) == []
    folder.note_image("sha256:1")
    assert folder.image == "sha256:1"
    folder.remove()
    assert folder.image == ""


def test_a_snapshot_with_a_link_where_the_outputs_belong(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "jobs", "r1")
    folder.make(1, [])
    (folder.node(0) / "outputs").symlink_to("/etc")
    with pytest.raises(InputError, match="outputs"):
        folder.make_mount_points(1)
