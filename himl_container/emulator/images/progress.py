"""Progress of a build or pull, as lines for the log of a run."""

from __future__ import annotations

import time
from types import TracebackType

from himl_container.emulator.compute.model import Say


class SayReporter:
    """Tells the beginning and the end of each step, and what is said in between; one line each.

    :param notes: also what a step is busy with: the output of a Dockerfile's steps, the names of packages.
    """

    def __init__(self, say: Say, *, notes: bool = True) -> None:
        self._say, self._notes = say, notes

    def step(self, verb: str, subject: str = "", *, total: int | None = None, unit: str = "items") -> _Task:
        """Begin a step."""
        return _Task(self._say, f"{verb} {subject}".strip(), notes=self._notes)

    def info(self, text: str) -> None:
        """Say a line."""
        self._say(text)

    def warn(self, text: str) -> None:
        """Say a line that the reader should act on."""
        self._say(f"Warning: {text}")


class _Task:
    def __init__(self, say: Say, name: str, *, notes: bool) -> None:
        self._say, self._name, self._notes, self._began = say, name, notes, time.monotonic()

    def advance(self, amount: int, *, total: int | None = None) -> None:
        """Ignore: a log has no bars."""

    def note(self, text: str) -> None:
        """Say what is being done, where that is wanted."""
        if self._notes and text.strip():
            self._say(f"  {text}")

    def __enter__(self) -> _Task:
        self._say(f"{self._name} ...")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self._began
        self._say(f"{self._name}: {'done' if kind is None else 'failed'} ({seconds:.1f} s)")
