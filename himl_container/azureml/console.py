"""Progress of a build in a script that submits itself: one line for each step, on the error output."""

from __future__ import annotations

import sys
from types import TracebackType


class _Step:
    def advance(self, amount: int, *, total: int | None = None) -> None:
        """Ignore: a log of a script is read afterwards."""

    def note(self, text: str) -> None:
        """Ignore."""

    def __enter__(self) -> _Step:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class ConsoleReporter:
    """Says what takes time when it begins, so that a script that builds an image does not seem to hang."""

    def step(self, verb: str, subject: str = "", *, total: int | None = None, unit: str = "items") -> _Step:
        """Say that a step begins."""
        self.info(f"{verb} {subject}".strip())
        return _Step()

    def info(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    def warn(self, text: str) -> None:
        """Print a line."""
        self.info(f"warning: {text}")
