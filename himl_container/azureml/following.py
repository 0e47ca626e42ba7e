"""The log of a run as it is written, and how the run ended.

The SDK's own stream shows one node's log and looks for news less and less often, up to once a minute. Here each look
is two requests for a run with one node, and asks the storage only for the bytes that are new.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from himl_container.azureml.retry import retried
from himl_container.environment.urls import scrub

if TYPE_CHECKING:
    from azureml.core import Run

STD_LOG = re.compile(r"user_logs/std_log(?:_process_0*(\d+))?\.txt")
OLD_LOG = re.compile(r"azureml-logs/70_driver_log(?:_0*(\d+))?\.txt")
"""What the log was called until 2021; old runs have it still."""
SEARCH_LOG = re.compile(r"azureml-logs/(?:hyperdrive)()\.txt")
"""What a search says of its own runs."""

ENDED = ("Completed", "Failed", "Canceled", "NotResponding")
SHORTEST, LONGEST = 0.5, 5.0
"""Seconds between two looks: often at first, and when there was news; rarely while nothing comes."""
_SLOWER = 1.5
_PIECE = 1 << 20
_TIMEOUT = 60.0
_NO_MORE, _NOT_THERE, _PARTIAL = 416, 404, 206


class Piece(NamedTuple):
    """Some bytes of a log.

    :param data: empty where there are no more. :param made: when the log was begun, in the storage's words; empty where
        it is not there (any more).
    """

    data: bytes
    made: str = ""


class Fetch(Protocol):
    """Gets the bytes of an address from a place on."""

    def __call__(self, address: str, start: int, /) -> Piece:
        """Return at most a piece of what is there from ``start`` on."""


class RunEnd(NamedTuple):
    """How a run stands.

    :param status: AzureML's word. :param reason: what AzureML says of a failure; empty where it says nothing.
    """

    run: str
    status: str
    reason: str = ""

    @property
    def completed(self) -> bool:
        """Whether it did what it should."""
        return self.status == "Completed"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in ENDED


class Log:
    """What has been read of one log.

    :param tag: what each of its lines begins with; empty for a run with a single log.
    """

    def __init__(self, tag: str) -> None:
        self.tag, self.start, self._rest, self._made = tag, 0, b"", ""

    def is_new(self, piece: Piece) -> bool:
        """Whether the log was begun again, as that of a run that was preempted is; what was read is forgotten then."""
        if not piece.made:
            return False
        again = bool(self._made) and piece.made != self._made
        self._made = piece.made
        if again:
            self.start, self._rest = 0, b""
        return again

    def take(self, data: bytes, show: Callable[[bytes], None]) -> None:
        """Show new bytes: as they come where there is one log, line by line where there are several."""
        self.start += len(data)
        if not self.tag:
            show(data)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            show(self.tag.encode() + line + b"\n")

    def finish(self, show: Callable[[bytes], None]) -> None:
        """Show a last line without an end."""
        if self._rest:
            show(self.tag.encode() + self._rest + b"\n")
            self._rest = b""


class Follower:
    """Reads the logs of a run.

    :param show: gets the bytes in order. :param tell: is told when the run's status is another one.
    :param sleep: how to wait, in seconds.
    """

    def __init__(
        self,
        run: Run,
        show: Callable[[bytes], None],
        *,
        fetch: Fetch | None = None,
        tell: Callable[[str], object] = lambda _: None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._run, self._show, self._tell, self._sleep = run, show, tell, sleep
        self._status = ""
        self._fetch = fetch or fetch_range
        self._logs: dict[str, Log] = {}

    def look(self) -> tuple[RunEnd, bool]:
        """Show what is new; return how the run stands, and whether there was anything."""
        details: dict[str, Any] = retried(f"asking for run {self._run.id}", self._run.get_details)
        end = end_of(self._run.id, details)
        if end.status != self._status and not end.ended:
            self._tell(f"run {end.run}: {end.status}")
        self._status = end.status
        files = log_files(details.get("logFiles") or {})
        news = False
        for path, rank in files:
            address = details["logFiles"][path]
            if path not in self._logs:
                # Its lines can only be told apart where there is more than one log.
                self._logs[path] = Log(f"[{rank}] " if len(files) > 1 else "")
            log = self._logs[path]
            news = self._read(path, address, log) or news
        return end, news

    def _read(self, path: str, address: str, log: Log) -> bool:
        news = False
        while True:
            piece = retried(f"reading {path}", lambda: self._fetch(address, log.start))
            if log.is_new(piece):
                continue
            if not piece.data:
                return news
            news = True
            log.take(piece.data, self._show)

    def follow(self, *, until_end: bool = True) -> RunEnd:
        """Show the log until the run has ended, or what there is of it now.

        :raises HimlError: AzureML does not answer any more.
        """
        pause = SHORTEST
        while True:
            end, news = self.look()
            if end.ended or not until_end:
                break
            pause = SHORTEST if news else min(LONGEST, pause * _SLOWER)
            self._sleep(pause)
        for log in self._logs.values():
            log.finish(self._show)
        return end


def log_files(paths: Mapping[str, object]) -> list[tuple[str, int]]:
    """Return the logs of a run's own output with the number of their process, in this order."""
    for pattern in (STD_LOG, OLD_LOG, SEARCH_LOG):
        found = [(path, int(match[1] or 0)) for path in paths if (match := pattern.fullmatch(path))]
        if found:
            return sorted(found, key=lambda item: item[1])
    return []


def end_of(run_id: str, details: Mapping[str, Any]) -> RunEnd:
    """Return how a run stands, from its details."""
    error = details.get("error") or {}
    inner = error.get("error", error) if isinstance(error, Mapping) else error
    message = inner.get("message", "") if isinstance(inner, Mapping) else str(inner)
    warnings = [str(item.get("message") or "") for item in details.get("warnings") or () if isinstance(item, Mapping)]
    return RunEnd(run_id, str(details.get("status", "")), scrub(message or "; ".join(filter(None, warnings))))


def fetch_range(address: str, start: int) -> Piece:
    """Return at most a mebibyte of a blob from a place on.

    :raises requests.RequestException: the storage does not answer or refuses.
    """
    import requests

    header = {"Range": f"bytes={start}-{start + _PIECE - 1}"}
    answer = requests.get(address, headers=header, timeout=_TIMEOUT)
    if answer.status_code == _NO_MORE:
        answer = requests.head(address, timeout=_TIMEOUT)
    if answer.status_code == _NOT_THERE:  # it was taken away to be begun again
        return Piece(b"")
    answer.raise_for_status()
    made = answer.headers.get("x-ms-creation-time", "")
    whole = answer.status_code != _PARTIAL
    return Piece(answer.content[start : start + _PIECE] if whole else answer.content, made)
