"""What a command prints: progress for a terminal, plain lines, JSON lines, or nothing; and its result.

Progress, information and warnings go to standard error, so that a result on standard output can be piped. With
``--json`` everything goes to standard output instead, one JSON object per line with a key ``event``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

from himl_container.environment.urls import scrub
from himl_container.errors import HimlError
from himl_container.progress import Reporter, SilentReporter

MODES = ("auto", "rich", "plain", "none")


class Output:
    """Where a command puts what it has to say.

    :param reporter: passed to the stages for progress.
    :param as_json: the command was asked for JSON.
    :param quiet: nothing but warnings, errors and asked-for results.
    """

    def __init__(self, reporter: Reporter, *, as_json: bool = False, quiet: bool = False) -> None:
        self.reporter = reporter
        self.as_json = as_json
        self.quiet = quiet

    def result(self, value: Mapping[str, Any], text: str) -> None:
        """Print a command's result: ``text`` for people, ``value`` (plain JSON values) for machines."""
        if self.as_json:
            write_event(sys.stdout, "result", **value)
        elif text:
            write(sys.stdout, text)

    def error(self, error: HimlError) -> None:
        """Print an error: on standard error for people, as an event for machines."""
        if self.as_json:
            write_event(
                sys.stdout,
                "error",
                family=type(error).__name__,
                what=scrub(error.what),
                where=scrub(error.where),
                hint=scrub(error.hint),
                exit_code=error.exit_code,
            )
        else:
            print_error(error)


def make_output(*, as_json: bool = False, quiet: bool = False, progress: str = "auto") -> Output:
    """Return the output for the flags: a live display only where standard error is a terminal, unless asked for."""
    if as_json:
        return Output(JsonReporter(sys.stdout), as_json=True, quiet=quiet)
    if quiet:
        return Output(QuietReporter(sys.stderr), quiet=True)
    if progress == "auto":
        progress = "rich" if sys.stderr.isatty() else "plain"
    if progress == "rich":
        from himl_container.cli.live import LiveReporter

        return Output(LiveReporter(sys.stderr))
    return Output(PlainReporter(sys.stderr) if progress == "plain" else QuietReporter(sys.stderr))


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
"""A text may hold what others wrote, a script's last words for one: none of it commands the terminal."""


def print_error(error: HimlError) -> None:
    """Print an error for people on standard error: what, where, and what to do next."""
    place = f"{error.where}: " if error.where else ""
    write(sys.stderr, f"error: {place}{error.what}")
    for line in error.hint.splitlines():
        write(sys.stderr, f"  {line}")


def write(stream: TextIO, text: str) -> None:
    """Write a line without credentials; what the stream's encoding cannot hold is escaped, and what moves a cursor."""
    safe = (
        scrub(text)
        .translate(_CONTROLS)
        .encode(stream.encoding or "utf-8", "backslashreplace")
        .decode(stream.encoding or "utf-8")
    )
    stream.write(safe + "\n")
    stream.flush()


def write_event(stream: TextIO, event: str, **fields: Any) -> None:
    """Write one JSON object on a line of its own, ASCII only."""
    stream.write(json.dumps({"event": event, **fields}, sort_keys=False) + "\n")
    stream.flush()


class QuietReporter(SilentReporter):
    """Says nothing but warnings."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def warn(self, text: str) -> None:
        """Write the warning."""
        write(self._stream, f"warning: {text}")


class PlainReporter:
    """A line for each step that ended: what was done, how much, how fast. For logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def step(self, verb: str, subject: str = "", *, total: int | None = None, unit: str = "items") -> PlainTask:
        """Begin a step."""
        return PlainTask(self._stream, f"{verb} {subject}".strip(), total=total, unit=unit)

    def info(self, text: str) -> None:
        """Write the line."""
        write(self._stream, text)

    def warn(self, text: str) -> None:
        """Write the line, marked as a warning."""
        write(self._stream, f"warning: {text}")


class PlainTask:
    """A step whose end is a line."""

    def __init__(self, stream: TextIO, title: str, *, total: int | None, unit: str) -> None:
        self._stream = stream
        self._title = title
        self._unit = unit
        self._done = 0
        self._began = time.monotonic()
        self.total = total

    def advance(self, amount: int, *, total: int | None = None) -> None:
        """Count what was done."""
        self._done += amount
        self.total = self.total if total is None else total

    def note(self, text: str) -> None:
        """Ignore: a line for each package would bury the others."""

    def __enter__(self) -> PlainTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self._began
        amount = summary(self._done, self._unit, seconds)
        write(self._stream, f"{self._title}: {'failed after ' if kind else ''}{amount}")


class JsonReporter:
    """One JSON object per line: ``step`` (with an id), ``progress`` (at most four a second for a step), ``end``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._count = 0

    def step(self, verb: str, subject: str = "", *, total: int | None = None, unit: str = "items") -> JsonTask:
        """Begin a step."""
        self._count += 1
        subject = scrub(subject)
        write_event(self._stream, "step", id=self._count, verb=verb, subject=subject, total=total, unit=unit)
        return JsonTask(self._stream, self._count, total)

    def info(self, text: str) -> None:
        """Write the event."""
        write_event(self._stream, "info", text=scrub(text))

    def warn(self, text: str) -> None:
        """Write the event."""
        write_event(self._stream, "warning", text=scrub(text))


class JsonTask:
    """A step whose progress is events."""

    _INTERVAL = 0.25

    def __init__(self, stream: TextIO, number: int, total: int | None) -> None:
        self._stream = stream
        self._id = number
        self._total = total
        self._done = 0
        self._began = self._told = time.monotonic()

    def advance(self, amount: int, *, total: int | None = None) -> None:
        """Count what was done, and tell it when the last time is long enough ago."""
        self._done += amount
        self._total = self._total if total is None else total
        if time.monotonic() - self._told >= self._INTERVAL:
            self._told = time.monotonic()
            write_event(self._stream, "progress", id=self._id, done=self._done, total=self._total)

    def note(self, text: str) -> None:
        """Ignore."""

    def __enter__(self) -> JsonTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        write_event(self._stream, "end", id=self._id, ok=kind is None, done=self._done, seconds=seconds)


def size(count: float) -> str:
    """Return a number of bytes for people, in powers of ten as download sizes are given."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def summary(done: int, unit: str, seconds: float) -> str:
    """Return what a step did, for people: amount, time and rate."""
    took = f"{seconds:.1f} s"
    if not done:
        return took
    if unit == "bytes":
        rate = f", {size(done / seconds)}/s" if seconds >= 0.1 else ""
        return f"{size(done)} in {took}{rate}"
    return f"{done} {unit} in {took}"
