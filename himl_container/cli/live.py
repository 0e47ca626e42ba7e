"""Progress on a terminal: a bar for each step under way, a line for each that ended. Imports rich."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from himl_container.cli.output import size, summary
from himl_container.environment.urls import scrub


class LiveReporter:
    """Shows all steps under way at once; the display exists only while there is one, so that nothing is left behind."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._running = 0

    def step(self, verb: str, subject: str = "", *, total: int | None = None, unit: str = "items") -> LiveTask:
        """Begin a step and show its bar."""
        title = scrub(f"{verb} {subject}".strip())
        with self._lock:
            if self._progress is None:
                self._progress = Progress(
                    SpinnerColumn(),
                    TextColumn("{task.description}", markup=False),
                    BarColumn(bar_width=24),
                    TextColumn("{task.fields[amount]}", markup=False),
                    TimeElapsedColumn(),
                    TextColumn("{task.fields[note]}", markup=False, style="dim"),
                    console=self._console,
                    transient=True,
                )
                self._progress.start()
            self._running += 1
            return LiveTask(self, self._progress, title, total=total, unit=unit)

    def info(self, text: str) -> None:
        """Write a line above the bars."""
        self._line(text)

    def warn(self, text: str) -> None:
        """Write a line above the bars, marked as a warning."""
        self._line(f"warning: {text}", style="yellow")

    def ended(self, line: str, *, failed: bool) -> None:
        """Write a step's last line, and take the display away after the last step."""
        self._line(line, mark="✗ " if failed else "✓ ", style="red" if failed else "green")
        with self._lock:
            self._running -= 1
            if not self._running and self._progress is not None:
                self._progress.stop()
                self._progress = None

    def _line(self, text: str, *, mark: str = "", style: str = "") -> None:
        # Text, not markup: package names and paths may have square brackets in them.
        line = Text(mark, style=style) + Text(scrub(text), style="" if mark else style)
        with self._lock:
            (self._progress.console if self._progress is not None else self._console).print(line)


class LiveTask:
    """A step with a bar."""

    def __init__(self, owner: LiveReporter, progress: Progress, title: str, *, total: int | None, unit: str) -> None:
        self._owner = owner
        self._progress = progress
        self._title = title
        self._unit = unit
        self._done = 0
        self._total = total
        self._began = time.monotonic()
        self._id: TaskID = progress.add_task(title, total=total, amount="", note="")

    def advance(self, amount: int, *, total: int | None = None) -> None:
        """Move the bar."""
        self._done += amount
        self._total = self._total if total is None else total
        self._progress.update(self._id, completed=self._done, total=self._total, amount=self._amount())

    def note(self, text: str) -> None:
        """Show what the step is busy with."""
        self._progress.update(self._id, note=scrub(text)[:60])

    def _amount(self) -> str:
        if self._unit != "bytes":
            return f"{self._done}/{self._total} {self._unit}" if self._total else f"{self._done} {self._unit}"
        seconds = time.monotonic() - self._began
        of = f"/{size(self._total)}" if self._total else ""
        rate = f" {size(self._done / seconds)}/s" if seconds > 0.5 else ""
        return f"{size(self._done)}{of}{rate}"

    def __enter__(self) -> LiveTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.remove_task(self._id)
        amount = summary(self._done, self._unit, time.monotonic() - self._began)
        self._owner.ended(f"{self._title}: {'failed after ' if kind else ''}{amount}", failed=kind is not None)
