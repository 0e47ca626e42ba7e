"""How long is waited, and that waiting can be ended."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_client import Told

from himl_container.errors import RegistryError
from himl_container.registry.retries import Failure, Patience, RetryableError


@given(st.integers(1, 100), st.floats(0, 1))
def test_pauses_grow_with_jitter_and_have_an_end(attempt: int, chance: float) -> None:
    pause = Patience(chance=lambda: chance).pause(Failure("x"), attempt)
    longest = min(0.5 * 2.0 ** (attempt - 1), 30.0)
    assert longest / 2 <= pause <= longest


@given(st.floats(0, 1e12))
def test_what_the_registry_asks_for_is_waited_up_to_two_minutes(seconds: float) -> None:
    assert Patience().pause(Failure("x", 429, seconds), 1) == min(seconds, 120.0)


def test_a_failure_is_told_in_one_line() -> None:
    told = Told()
    told.patience.again("Look-up", "host", Failure("line\nbreak \x1b[2J"), 1)
    assert told.lines == ["host: Look-up failed (line break [2J); trying again in 0.5 s, try 2 of 6"]


def test_success_after_failures() -> None:
    told, left = Told(), [1, 2]

    def act() -> str:
        if left:
            raise RetryableError(Failure(f"failure {left.pop(0)}"))
        return "done"

    assert told.patience.tried("x", "host", act) == "done"
    assert told.pauses == [0.5, 1.0]


def test_a_wait_is_ended_by_stop() -> None:
    waiting = threading.Event()

    class Reporter(Told):
        def info(self, text: str) -> None:
            waiting.set()

    patience = Patience(Reporter())
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            patience.again("x", "host", Failure("x", 429, 100.0), 1)
        except RegistryError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(60)
    patience.stop()
    thread.join(60)
    assert len(ended) == 1
    with pytest.raises(RegistryError, match="Stopped"):
        patience.check()
