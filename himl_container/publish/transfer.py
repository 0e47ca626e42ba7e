"""What goes out in a push: counted, told, stopped when it is not wanted any more; and the threads that do it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from himl_container.progress import Reporter, Task

CONNECTIONS = 6
"""Requests to the registry at a time. More of them rarely make one link faster, and registries begin to refuse."""

_T = TypeVar("_T")


class Transfer:
    """What has gone out, told to the reader; and the way to make all of it stop. Used by many threads at once.

    :param task: the step that is told of the bytes.
    """

    def __init__(self, task: Task, reporter: Reporter) -> None:
        self._task = task
        self._reporter = reporter
        self._lock = threading.Lock()
        self._stopped = False
        self._total = 0
        self._compressing: Task | None = None
        self._compressing_total = 0
        self._stack = contextlib.ExitStack()
        self.bytes_sent = 0

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *details: Any) -> None:
        self._stack.__exit__(*details)

    def expect(self, name: str, size: int) -> None:
        """Tell what is about to go out."""
        with self._lock:
            self._total += size
            self._task.note(name)
            self._task.advance(0, total=self._total)

    def sent(self, amount: int) -> None:
        """Count bytes that went out; a negative number takes back progress, but what went out went out."""
        with self._lock:
            self._check()
            self.bytes_sent += max(amount, 0)
            self._task.advance(amount)

    def passed(self, _: int) -> None:
        """Let something that is not sent go on, unless all is to stop."""
        self._check()

    def compress(self, name: str, size: int) -> None:
        """Tell what is about to be compressed."""
        with self._lock:
            self._check()
            self._compressing_total += size
            if self._compressing is None:
                step = self._reporter.step("compress", "layers", unit="bytes", total=self._compressing_total)
                self._compressing = self._stack.enter_context(step)
            self._compressing.note(name)
            self._compressing.advance(0, total=self._compressing_total)

    def compressed(self, amount: int) -> None:
        """Count bytes that were compressed."""
        with self._lock:
            self._check()
            if self._compressing is not None:
                self._compressing.advance(amount)

    def inform(self, text: str) -> None:
        """One line for the reader."""
        with self._lock:
            self._reporter.info(text)

    def stop(self) -> None:
        """Make every thread end at its next piece of work."""
        self._stopped = True

    def _check(self) -> None:
        if self._stopped:
            raise StoppedError


class StoppedError(Exception):
    """Somebody else failed, or the user does not want it any more."""


class Threads:
    """Threads for the network and for compressing. What follows a piece of work happens in the caller's thread.

    Leaving the context early (an error, Ctrl-C) stops everything that is under way.
    """

    def __init__(self, transfer: Transfer, cores: int) -> None:
        self._transfer = transfer
        self._network = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="push")
        self._cores = ThreadPoolExecutor(cores, thread_name_prefix="layer")
        self._then: dict[Future[Any], Callable[[Any], None]] = {}

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._transfer.stop()
        for pool in (self._network, self._cores):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (self._network, self._cores):
            pool.shutdown(wait=True)

    def connect(self, function: Callable[..., _T], *arguments: Any, then: Callable[[_T], None]) -> None:
        """Do something over a connection, and then the other."""
        self._then[self._network.submit(function, *arguments)] = then

    def work(self, function: Callable[..., _T], *arguments: Any, then: Callable[[_T], None]) -> None:
        """Do something that takes a core, and then the other."""
        self._then[self._cores.submit(function, *arguments)] = then

    def finish(self) -> None:
        """Wait until everything is done, what follows included; the first error ends it."""
        while self._then:
            done, _ = wait(self._then, return_when=FIRST_COMPLETED)
            for future in done:
                self._then.pop(future)(future.result())
