"""The screen and the logs, the handing over of files, and the words for how a run ended."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from launch_fakes import FakeContainers, Script, Told

from himl_container.errors import LaunchError, StorageError
from himl_container.launch import ownership
from himl_container.launch.containers import ContainerConfig, Ended
from himl_container.launch.output import RunOutput
from himl_container.launch.verdict import why


def test_a_screen_that_is_gone_does_not_end_the_logs(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", buffering=0) as screen:
        output = RunOutput({0: tmp_path / "log"}, {"stdout": screen})
        output.write(0, "stdout", b"one\n")
        output.write(0, "stdout", b"two\n")
        assert output.close() is None
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        RunOutput({0: tmp_path / "a", 1: tmp_path / "no" / "b"}, {})


def test_what_comes_after_the_end_is_dropped(tmp_path: Path) -> None:
    screen = io.BytesIO()
    output = RunOutput({0: tmp_path / "a"}, {"stdout": screen})
    output.write(0, "stdout", b"one")
    output.close()
    output.write(0, "stdout", b"two")
    assert (tmp_path / "a").read_bytes() == screen.getvalue() == b"one"


def test_half_a_line_is_shown_when_its_node_ends(tmp_path: Path) -> None:
    screen = io.BytesIO()
    output = RunOutput({0: tmp_path / "a", 1: tmp_path / "b"}, {"stdout": screen, "stderr": screen})
    output.write(0, "stdout", b"no end")
    output.write(1, "stderr", b"whole\n")
    assert screen.getvalue() == b"[1] whole\n"
    output.end(0)
    assert screen.getvalue() == b"[1] whole\n[0] no end\n"


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        (Ended(3), ""),
        (Ended(137), "SIGKILL"),
        (Ended(143), "SIGTERM"),
        (Ended(1, oom_killed=True), "memory"),
        (Ended(127), "not found"),
        (Ended(255), ""),
    ],
)
def test_why_a_script_ended(ended: Ended, text: str) -> None:
    assert text in why(ended) if text else why(ended) == ""


def test_behind_sudo_the_files_are_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert ownership.calling_user({"SUDO_UID": "1000", "SUDO_GID": "1001"}) == (1000, 1001)
    assert ownership.calling_user({"SUDO_UID": "x"})[0] == 0
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ownership.calling_user({"SUDO_UID": "0", "SUDO_GID": "0"})[0] == 1000


def hand_over(
    folder: Path, user: tuple[int, int], containers: FakeContainers, told: Told, *, shared: bool = False
) -> None:
    ownership.hand_over(
        [] if shared else [folder],
        [folder] if shared else [],
        user,
        containers=containers,
        image="image",
        name="helper",
        warn=told.warn,
    )


def test_no_container_is_started_when_all_files_are_the_users(tmp_path: Path, told: Told) -> None:
    containers = FakeContainers()
    hand_over(tmp_path, (os.getuid(), os.getgid()), containers, told)
    assert (containers.made, told.warnings) == ([], [])


@pytest.mark.parametrize(
    ("rootless", "shared", "words"),
    [
        (False, False, ("/bin/chown", "-R", "-h", "4242:4243", "/himl/0")),
        (False, True, ("/bin/chown", "-R", "-h", "--from=0", "4242:4243", "/himl/0")),
        (True, False, ("/bin/chown", "-R", "-h", "0:0", "/himl/0")),
    ],
)
def test_a_container_changes_what_the_user_cannot(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch, rootless: bool, shared: bool, words: tuple[str, ...]
) -> None:
    if os.getuid() != 0:
        pytest.skip("needs files of root")
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    changed: list[ContainerConfig] = []

    def change(config: ContainerConfig) -> None:
        changed.append(config)
        os.chown(tmp_path, 4242, 4243)

    containers = FakeContainers(Script(first=change), rootless=rootless)
    hand_over(tmp_path, (4242, 4243), containers, told, shared=shared)
    assert changed[0].command == words
    assert (changed[0].network, changed[0].host_users) == ("none", not rootless)
    assert (containers.alive, told.warnings) == ({}, [])


def test_files_that_could_not_be_handed_over_are_told(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid() != 0:
        pytest.skip("needs files of root")
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    containers = FakeContainers()
    containers.faults["start"] = LaunchError("the image has no such command")
    hand_over(tmp_path, (4242, 4243), containers, told)
    assert containers.alive == {}
    assert "no such command" in told.warnings[0]
    assert str(tmp_path) in told.warnings[1]


def test_root_hands_over_itself_links_as_links(tmp_path: Path, told: Told) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root")
    run, precious = tmp_path / "run", tmp_path / "precious"
    run.mkdir()
    precious.touch()
    (run / "link").symlink_to(precious)
    hand_over(run, (4242, 4243), FakeContainers(), told)
    assert os.lstat(run / "link").st_uid == 4242
    assert precious.stat().st_uid == 0
