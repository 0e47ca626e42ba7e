"""Threads that work off tasks, each of which may bring further ones."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

Task: TypeAlias = "Callable[[], Sequence[Task]]"
"""Does something, and returns what is to be done because of it."""


class StoppedError(Exception):
    """Another task failed, or the user wants to stop; never leaves the crew."""


class Crew:
    """Does tasks with a number of threads; the first that fails ends all."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._condition = threading.Condition()
        self._stopped = threading.Event()
        self._waiting: deque[Task] = deque()
        self._busy = 0
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise where the work is to end; long tasks call it now and then.

        :raises StoppedError: it is.
        """
        if self._stopped.is_set():
            raise StoppedError

    def pause(self, seconds: float) -> None:
        """Wait, or until the work is to end.

        :raises StoppedError: it is.
        """
        self._stopped.wait(seconds)
        self.check()

    def work(self, tasks: Iterable[Task]) -> None:
        """Do the tasks and what they bring, which comes first, so that what was begun ends early.

        :raises BaseException: what the first task raised that failed. All threads have ended then.
        """
        self._waiting.extend(tasks)
        threads = [threading.Thread(target=self._run, daemon=True) for _ in range(self.workers)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(1.0)  # a wait without an end could not be interrupted everywhere
        except BaseException as error:
            self._end(error)
            for thread in threads:
                thread.join()
            raise
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (task := self._next()) is not None:
            further: Sequence[Task] = ()
            try:
                further = task()
            except BaseException as error:  # noqa: BLE001  # raised again by ``work``
                self._end(error)
            with self._condition:
                self._busy -= 1
                self._waiting.extendleft(reversed(further))
                self._condition.notify_all()

    def _next(self) -> Any:
        with self._condition:
            while not self._waiting and self._busy and not self._stopped.is_set():
                self._condition.wait()
            if self._stopped.is_set() or not self._waiting:
                return None
            self._busy += 1
            return self._waiting.popleft()

    def _end(self, error: BaseException) -> None:
        with self._condition:
            if self._error is None:
                self._error = error
            self._stopped.set()
            self._condition.notify_all()
