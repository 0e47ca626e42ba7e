"""What goes out in a push: counted, told, stopped when it is not wanted any more; and the threads that do it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, TypeVar

from himl_container.progress import Reporter, Task

CONNECTIONS = 6
"""Requests to the registry at a time. More of them rarely make one link faster, and registries begin to refuse."""

_PATIENCE = 3.0  # seconds

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
        self._left = 0
        self.bytes_sent = 0

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._end_compressing(kind, error, trace)

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

    def will_compress(self, size: int) -> None:
        """Tell that a layer is going to be compressed."""
        with self._lock:
            self._left += 1
            self._compressing_total += size
            if self._compressing is None:
                self._compressing = self._reporter.step("compress", "layers", unit="bytes", total=size)
                self._compressing.__enter__()
            self._compressing.advance(0, total=self._compressing_total)

    def compressing(self, name: str) -> None:
        """Tell that it begins."""
        with self._lock:
            self._check()
            if self._compressing is not None:
                self._compressing.note(name)

    def compressed(self, amount: int) -> None:
        """Count bytes that were compressed."""
        with self._lock:
            self._check()
            if self._compressing is not None:
                self._compressing.advance(amount)

    def has_compressed(self) -> None:
        """Tell that a layer is compressed; the step ends with the last one, while others still travel."""
        with self._lock:
            self._left -= 1
            if not self._left:
                self._end_compressing(None, None, None)

    def _end_compressing(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._compressing is not None:
            self._compressing.__exit__(kind, error, trace)
        self._compressing, self._compressing_total = None, 0

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
        self._started: set[Future[Any]] = set()

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pools = (self._network, self._cores)
        if kind is None:
            for pool in pools:
                pool.shutdown()
            return
        self._transfer.stop()
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        # A thread whose connection hangs looks at nothing; who presses Ctrl-C does not wait for its time-out.
        going_on = [future for future in self._started if not future.cancelled()]
        wait(going_on, timeout=None if issubclass(kind, Exception) else _PATIENCE)

    def connect(self, function: Callable[..., _T], *arguments: Any, then: Callable[[_T], None]) -> None:
        """Do something over a connection, and then the other."""
        self._start(self._network.submit(function, *arguments), then)

    def work(self, function: Callable[..., _T], *arguments: Any, then: Callable[[_T], None]) -> None:
        """Do something that takes a core, and then the other."""
        self._start(self._cores.submit(function, *arguments), then)

    def _start(self, future: Future[_T], then: Callable[[_T], None]) -> None:
        self._started.add(future)
        self._then[future] = then

    def finish(self) -> None:
        """Wait until everything is done, what follows included; the first error ends it."""
        while self._then:
            done, _ = wait(self._then, return_when=FIRST_COMPLETED)
            for future in done:
                then = self._then.pop(future)
                self._started.discard(future)
                then(future.result())
