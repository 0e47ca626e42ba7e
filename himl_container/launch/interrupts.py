"""Ctrl-C and its like as events, so that they end a run in order instead of breaking into the middle of a step."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Literal

from himl_container.launch.supervise import Event, Interrupt

_MEANING: dict[signal.Signals, Literal["SIGINT", "SIGTERM"]] = {
    signal.SIGINT: "SIGINT",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGTERM",
}

_PATIENCE = 2


@contextlib.contextmanager
def interrupts() -> Iterator[queue.SimpleQueue[Event]]:
    """Yield a queue that receives an :class:`Interrupt` for each signal while the context lasts.

    The third one breaks in as KeyboardInterrupt: by then, something that should not take long does (a daemon that
    accepts requests and never answers). A signal that is ignored already (``nohup``) stays ignored. Outside of the
    main thread, where Python delivers no signals, the queue only carries what others put in.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()  # its put() is safe in a signal handler
    before: dict[signal.Signals, object] = {}

    count = 0

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        events.put(Interrupt(_MEANING[signal.Signals(number)]))
        if count > _PATIENCE:
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in _MEANING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    try:
        yield events
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
