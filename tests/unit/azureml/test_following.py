"""Logs that are read while they are written, and how a run ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from himl_container.azureml.following import Follower, Piece, end_of, log_files


@dataclass
class Story:
    """A run as it goes on: at each look one chapter further.

    :param chapters: status and the logs' content at each look; the last one stays.
    """

    chapters: list[tuple[str, dict[str, bytes]]]
    id: str = "run_1"
    asked: int = -1
    slept: list[float] = field(default_factory=list)
    begun: dict[str, str] = field(default_factory=dict)

    def get_details(self) -> dict[str, Any]:
        self.asked = min(self.asked + 1, len(self.chapters) - 1)
        status, logs = self.chapters[self.asked]
        return {"status": status, "logFiles": {path: f"https://x/{path}" for path in logs}}

    def fetch(self, address: str, start: int) -> Piece:
        logs = self.chapters[self.asked][1]
        path = address.removeprefix("https://x/")
        return Piece(logs[path][start : start + 4], self.begun.get(path, "monday"))

    def follow(self, **options: Any) -> tuple[str, list[str], str]:
        shown: list[bytes] = []
        told: list[str] = []
        follower = Follower(
            self,  # type: ignore[arg-type]  # as much of a run as is used
            shown.append,
            fetch=self.fetch,
            tell=told.append,
            sleep=self.slept.append,
        )
        end = follower.follow(**options)
        return b"".join(shown).decode(), told, end.status


LOG = "user_logs/std_log.txt"


def test_one_log_is_shown_as_it_grows_and_nothing_twice() -> None:
    story = Story(
        [
            ("Queued", {}),
            ("Running", {LOG: b""}),
            ("Running", {LOG: b"one\ntw"}),
            ("Running", {LOG: b"one\ntwo\nthree"}),
            ("Completed", {LOG: b"one\ntwo\nthree\n"}),
        ]
    )
    assert story.follow() == ("one\ntwo\nthree\n", ["run run_1: Queued", "run run_1: Running"], "Completed")


def test_looks_become_rarer_while_nothing_comes_and_often_again_with_news() -> None:
    quiet: list[tuple[str, dict[str, bytes]]] = [("Running", {LOG: b""})] * 8
    story = Story([*quiet, ("Running", {LOG: b"x"}), ("Completed", {LOG: b"x"})])
    story.follow()
    assert story.slept[:3] == [0.75, 1.125, 1.6875]
    assert max(story.slept) == 5.0
    assert story.slept[-1] == 0.5


def test_only_what_is_there_now() -> None:
    story = Story([("Running", {LOG: b"one\n"}), ("Completed", {LOG: b"one\ntwo\n"})])
    assert story.follow(until_end=False) == ("one\n", ["run run_1: Running"], "Running")
    assert story.slept == []


def test_lines_of_several_logs_have_the_number_of_their_process() -> None:
    first, second = "user_logs/std_log_process_00.txt", "user_logs/std_log_process_10.txt"
    story = Story(
        [
            ("Running", {second: b"b1\n", first: b"a1\na2"}),
            ("Failed", {second: b"b1\nb2", first: b"a1\na2 goes on\n"}),
        ]
    )
    assert story.follow()[0] == "[0] a1\n[10] b1\n[0] a2 goes on\n[10] b2\n"


def test_a_log_that_was_begun_again_is_shown_from_its_beginning() -> None:
    first, second = b"first start\n", b"second start, longer than the first\n"
    story = Story([("Running", {LOG: first}), ("Completed", {LOG: second})])
    look = story.get_details

    def preempted() -> dict[str, Any]:
        details = look()
        story.begun[LOG] = f"day {story.asked}"
        return details

    story.get_details = preempted  # type: ignore[method-assign]
    assert story.follow()[0] == (first + second).decode()


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["user_logs/std_log.txt", "system_logs/x.log"], [("user_logs/std_log.txt", 0)]),
        (["azureml-logs/70_driver_log.txt"], [("azureml-logs/70_driver_log.txt", 0)]),
        (["azureml-logs/hyperdrive.txt"], [("azureml-logs/hyperdrive.txt", 0)]),
        (["azureml-logs/20_image_build_log.txt", "logs/user_logs/std_log.txt"], []),
        (
            ["user_logs/std_log_process_1.txt", "user_logs/std_log_process_0.txt", "azureml-logs/70_driver_log.txt"],
            [("user_logs/std_log_process_0.txt", 0), ("user_logs/std_log_process_1.txt", 1)],
        ),
    ],
)
def test_which_files_are_logs(paths: list[str], expected: list[tuple[str, int]]) -> None:
    assert log_files(dict.fromkeys(paths)) == expected


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"status": "Failed", "error": {"error": {"message": "no luck"}}}, "no luck"),
        ({"status": "Failed", "error": {"message": "no luck"}}, "no luck"),
        ({"status": "Failed", "error": "no luck"}, "no luck"),
        ({"status": "Canceled", "error": None, "warnings": [{"message": "too long"}, {"message": None}]}, "too long"),
        ({"status": "Failed"}, ""),
        ({"status": "Failed", "error": {"message": "see https://u:p@host/x"}}, "see https://host/x"),
    ],
)
def test_why_a_run_did_not_complete(details: dict[str, Any], reason: str) -> None:
    assert end_of("r", details).reason == reason


def test_states() -> None:
    states: list[tuple[str, bool, bool]] = [
        ("Queued", False, False),
        ("Running", False, False),
        ("Completed", True, True),
        ("Failed", True, False),
        ("Canceled", True, False),
    ]
    check: Callable[[str], tuple[bool, bool]] = lambda word: (  # noqa: E731
        end_of("r", {"status": word}).ended,
        end_of("r", {"status": word}).completed,
    )
    assert [(word, *check(word)) for word, _, _ in states] == states
