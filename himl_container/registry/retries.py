"""What is worth asking again, how long to wait before, and what is said about it.

The tries of one request: the pause doubles from half a second, with jitter so that many clients do not come back at
once, or is what ``Retry-After`` asks for (up to two minutes). Clock, pause and chance are passed in.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from himl_container.errors import RegistryError
from himl_container.progress import Reporter, SilentReporter
from himl_container.registry.headers import printable

T = TypeVar("T")
ATTEMPTS = 6
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that another try may change."""
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_LONGEST_RETRY_AFTER = 120.0


@dataclass(frozen=True)
class Failure:
    """Why a try failed, in words that hold no secret.

    :param status: of the answer; 0 where there was none.
    :param retry_after: seconds that the registry asks to wait for, where it does.
    """

    text: str
    status: int = 0
    retry_after: float | None = None
    hint: str = ""


class RetryableError(Exception):
    """A try failed in a way that another may not; never leaves the registry's room."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class BrokenAnswerError(RegistryError):
    """A registry answered 500 to each try: it reads something of its own that is damaged, or is broken altogether."""


@dataclass(frozen=True)
class Patience:
    """Decides about another try, says so, and waits. Shared by all requests of a connection.

    :param clock: seconds since 1970, for ``Retry-After`` dates.
    :param sleep: waits; None waits so that :meth:`stop` ends it.
    :param chance: a number from 0 to 1, for the jitter.
    """

    reporter: Reporter = field(default_factory=SilentReporter)
    attempts: int = ATTEMPTS
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] | None = None
    chance: Callable[[], float] = random.random
    _stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """End every wait, and let no further try begin: another thread failed, or the user wants to stop."""
        self._stopped.set()

    def check(self) -> None:
        """Raise when :meth:`stop` was called.

        :raises RegistryError: it was.
        """
        if self._stopped.is_set():
            raise RegistryError("Stopped before the request was sent")

    def tried(self, what: str, where: str, action: Callable[[], T]) -> T:
        """Do something until it succeeds, with pauses between the tries; as :meth:`again` otherwise."""
        attempt = 1
        while True:
            try:
                return action()
            except RetryableError as error:  # noqa: PERF203
                self.again(what, where, error.failure, attempt)
                attempt += 1

    def again(self, what: str, where: str, failure: Failure, attempt: int) -> None:
        """Say that a try failed, and wait before the next one.

        :param what: the request, for the reader (``GET manifest 3.11``).
        :param where: the registry or repository.
        :param attempt: number of the try that failed, from 1.
        :raises RegistryError: it was the last.
        """
        if attempt >= self.attempts:
            raise final(what, where, failure, attempt)
        pause = self.pause(failure, attempt)
        self.reporter.info(
            f"{where}: {what} failed ({printable(failure.text)}); trying again in {pause:.1f} s, "
            f"try {attempt + 1} of {self.attempts}"
        )
        if self.sleep is not None:
            self.sleep(pause)
        else:
            self._stopped.wait(pause)
        self.check()

    def pause(self, failure: Failure, attempt: int) -> float:
        """Return the seconds to wait after the try with this number failed."""
        if failure.retry_after is not None:
            return min(failure.retry_after, _LONGEST_RETRY_AFTER)
        longest = min(_FIRST_PAUSE * 2.0 ** (attempt - 1), _LONGEST_PAUSE)
        return longest * (0.5 + 0.5 * self.chance())


def final(what: str, where: str, failure: Failure, attempts: int) -> RegistryError:
    """Return the error after the last try."""
    times = "once" if attempts == 1 else f"{attempts} times"
    hint = failure.hint or (
        "The registry is overloaded or limits requests; try again later."
        if failure.status == 429
        else "Check the network, the proxy settings (HTTPS_PROXY, NO_PROXY) and the registry's state, then try again; "
        "what has arrived in the registry is not sent again."
    )
    kind = BrokenAnswerError if failure.status == 500 else RegistryError
    return kind(f"{what} failed, tried {times}: {printable(failure.text)}", where=where, hint=hint)
