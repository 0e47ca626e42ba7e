"""The user's terminal, lent to a container: keys go in as they are typed, the size follows the window."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from himl_container.errors import HimlError, InputError
from himl_container.launch.containers import Session

SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec sh")
"""The shell of a run without a script: bash where the image has it."""
_READ_SIZE = 4096


def check_terminal(descriptors: tuple[int, ...] = (0, 1)) -> None:
    """Make sure that a person sits at the other end.

    :raises InputError: input or output is not a terminal.
    """
    for descriptor, name in zip(descriptors, ("input", "output"), strict=False):
        if not os.isatty(descriptor):
            raise InputError(f"the {name} is not a terminal", where="--interactive", hint="Run it from a terminal.")


@contextlib.contextmanager
def lend_terminal(session: Session, resize: Callable[[int, int], None], descriptor: int = 0) -> Iterator[None]:
    """Connect the terminal to a running container while the context lasts; restored afterwards on every path.

    Only in the main thread, because the size of the window arrives as a signal.

    :param resize: tells the container its rows and columns.
    """
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    reading, wake = os.pipe()

    def tell_size(_signal: int = 0, _frame: FrameType | None = None) -> None:
        with contextlib.suppress(OSError, HimlError):
            size = os.get_terminal_size(descriptor)
            resize(size.lines, size.columns)

    keys = threading.Thread(target=_carry_keys, args=(session, descriptor, reading), name="keys", daemon=True)
    old_handler = signal.signal(signal.SIGWINCH, tell_size)
    try:
        tty.setraw(descriptor, termios.TCSANOW)  # keeps what was typed ahead; the default would throw it away
        tell_size()
        keys.start()
        yield
    finally:
        os.write(wake, b"x")
        if keys.ident is not None:
            keys.join()
        signal.signal(signal.SIGWINCH, old_handler)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        os.close(reading)
        os.close(wake)


def _carry_keys(session: Session, descriptor: int, stop: int) -> None:
    while True:
        ready, _, _ = select.select([descriptor, stop], [], [])
        if stop in ready:
            return
        try:
            data = os.read(descriptor, _READ_SIZE)
            if not data:
                return
            session.send(data)
        except OSError:  # the container or the terminal is gone
            return
