"""Where the output of a run goes: as it is into each node's log, and onto the screen as it comes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from himl_container.errors import StorageError
from himl_container.launch.containers import Channel


class RunOutput:
    """Writes each piece of output to the log of its node and to the screen.

    With several nodes, each line on the screen begins with its rank. A screen that is gone (``| head``) or a log that
    cannot be written does not end the run; :meth:`close` tells of the latter.

    :param logs: the log file of each rank; opened here, for appending.
    :raises StorageError: a log cannot be opened.
    """

    def __init__(self, logs: Mapping[int, Path], screen: Mapping[Channel, BinaryIO]) -> None:
        self._screen = dict(screen)
        self._prefixes = {rank: f"[{rank}] ".encode() for rank in logs} if len(logs) > 1 else {}
        self._partial: dict[tuple[int, Channel], bytes] = {}
        self._lock = threading.Lock()
        self._problem: StorageError | None = None
        self._logs: dict[int, BinaryIO] = {}
        for rank, path in logs.items():
            try:
                self._logs[rank] = path.open("ab", buffering=0)
            except OSError as error:  # noqa: PERF203 - a handful of files
                self.close()
                raise _cannot_write(path, error) from error

    def write(self, rank: int, channel: Channel, data: bytes) -> None:
        """Take a piece of output of a node."""
        log = self._logs.get(rank)
        if log is None:  # closed: a stopped run does not wait for a screen that stands still (a pager)
            return
        try:
            log.write(data)
        except ValueError:  # closed just now
            return
        except OSError as error:
            self._problem = self._problem or _cannot_write(Path(log.name), error)
        if rank not in self._prefixes:
            self._show(channel, data)
            return
        # Whole lines only: nodes that write at the same time must not end up in one line.
        lines = (self._partial.pop((rank, channel), b"") + data).split(b"\n")
        self._partial[rank, channel] = lines.pop()
        self._show(channel, b"".join(self._prefixes[rank] + line + b"\n" for line in lines))

    def end(self, rank: int) -> None:
        """Show what is left of a node's last line."""
        for channel in ("stdout", "stderr"):
            rest = self._partial.pop((rank, channel), b"")
            if rest:
                self._show(channel, self._prefixes[rank] + rest + b"\n")

    def close(self) -> StorageError | None:
        """Close the logs; returns why output was lost, where it was."""
        for log in self._logs.values():
            log.close()
        self._logs.clear()
        return self._problem

    def _show(self, channel: Channel, data: bytes) -> None:
        if not data:
            return
        with self._lock:
            screen = self._screen.get(channel)
            if screen is None:
                return
            try:
                screen.write(data)
                screen.flush()
            except (OSError, ValueError):  # nobody reads it any more
                del self._screen[channel]


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"the log cannot be written, some of the output is lost: {error.strerror or error}",
        where=str(path),
        hint="Free some space, or choose another place with --runs-dir.",
    )
