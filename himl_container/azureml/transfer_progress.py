"""A progress bar on the terminal, for transfers that are asked to show one."""

from __future__ import annotations

import importlib.util
import sys
from types import TracebackType
from typing import TYPE_CHECKING

from himl_container.progress import Reporter, SilentReporter, Task

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def progress_of(show: bool) -> Reporter:
    """Return what shows progress: a bar where it is wanted and standard error is a terminal, else nothing.

    The wheel for jobs does without rich, and jobs without terminals.
    """
    wanted = show and sys.stderr.isatty() and importlib.util.find_spec("rich") is not None
    return BarReporter() if wanted else SilentReporter()


class BarReporter(SilentReporter):
    """Shows each step as a bar, with bytes, speed and the time that is left."""

    def step(  # type: ignore[override]
        self, verb: str, subject: str = "", *, total: int | None = None, unit: str = "items"
    ) -> Task:
        """Begin a bar."""
        return _Bar(f"{verb} {subject}".strip())


class _Bar:
    def __init__(self, text: str) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
        self._progress: Progress = Progress(*columns, console=Console(stderr=True))
        self._task: TaskID = self._progress.add_task(escape(text), total=None)

    def advance(self, amount: int, *, total: int | None = None) -> None:
        if total is not None:
            self._progress.update(self._task, total=total)
        self._progress.advance(self._task, amount)

    def note(self, text: str) -> None:
        """Names of files would only flicker."""

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
