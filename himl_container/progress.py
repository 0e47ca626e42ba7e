"""How work in progress is told: one small Protocol, so that no stage knows whether it talks to a terminal.

A stage calls :meth:`Reporter.step` for each thing that takes time and :meth:`Task.advance` while it lasts.
The implementations (terminal, plain lines, JSON lines, nothing) live in :mod:`himl_container.cli.output`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol


class Task(AbstractContextManager["Task"], Protocol):
    """A step under way. Leaving the context ends it; leaving with an exception marks it as failed."""

    def advance(self, amount: int, *, total: int | None = None) -> None:
        """Add ``amount`` (in the step's unit) to what is done; ``total`` corrects the total."""

    def note(self, text: str) -> None:
        """Say what the step is busy with now (a package name, a layer)."""


class Reporter(Protocol):
    """Where progress goes."""

    def step(self, verb: str, subject: str = "", *, total: int | None = None, unit: str = "items") -> Task:
        """Begin a step, for example ``step("download", "8 packages", total=123456, unit="bytes")``."""

    def info(self, text: str) -> None:
        """One line for the reader."""

    def warn(self, text: str) -> None:
        """One line that the reader should act on."""


class _SilentTask:
    def advance(self, amount: int, *, total: int | None = None) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""

    def __enter__(self) -> _SilentTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class SilentReporter:
    """The default of the Python API: says nothing."""

    def step(self, verb: str, subject: str = "", *, total: int | None = None, unit: str = "items") -> _SilentTask:
        """Return a task that says nothing."""
        return _SilentTask()

    def info(self, text: str) -> None:
        """Ignore."""

    def warn(self, text: str) -> None:
        """Ignore."""
