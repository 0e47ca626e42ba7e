"""The logs of a job, written to append blobs while it runs, so that the SDK's stream shows them.

An append blob takes at most 50,000 pieces, and each is a request: what comes is collected for half a second at first,
and for longer the longer the job runs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from himl_container.emulator.http import Refusal
from himl_container.emulator.state.artifacts import RUN_ORIGIN, Artifacts, container_of
from himl_container.launch.containers import Channel

STD_LOG = "user_logs/std_log.txt"
BUILD_LOG = "azureml-logs/20_image_build_log.txt"
SYSTEM_LOG = "system_logs/lifecycler/execution-wrapper.log"

SHORTEST, LONGEST = 0.5, 30.0
"""Seconds between two pieces."""
_FULL = 1 << 20
_TOO_MUCH = 8 << 20
_PIECE = 4 << 20
_TAIL = 4000


def rank_log(rank: int, processes: int) -> str:
    """Return the path of a process's log, in AzureML's names."""
    return STD_LOG if processes == 1 else f"user_logs/std_log_process_{rank:02d}.txt"


def interval(elapsed: float) -> float:
    """Return how long to collect, ``elapsed`` seconds after the start: about 5,000 pieces in a week."""
    return min(LONGEST, max(SHORTEST, elapsed / 600))


class JobLogs:
    """The logs of one start of a job. May be used by several threads; a thread of its own writes them.

    Storage that fails ends neither the job nor the writing: :meth:`close` says what was lost.

    :param files: of all runs.
    """

    def __init__(self, files: Artifacts, run_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._files, self._run_id, self._clock = files, run_id, clock
        self._pending: dict[str, bytearray] = {}
        self._tails: dict[str, deque[bytes]] = {}
        self._condition = threading.Condition()
        self._waiting = 0
        self._closed = False
        self._problem: Exception | None = None
        self._begin = clock()
        self._thread = threading.Thread(target=self._work, name="job logs", daemon=True)
        self._thread.start()

    def open(self, path: str) -> None:
        """Let a log be seen although nothing was written to it."""
        with self._condition:
            self._pending.setdefault(path, bytearray())
            self._condition.notify_all()

    def write(self, path: str, data: bytes) -> None:
        """Add to a log; waits while the storage is far behind."""
        if not data:
            return
        with self._condition:
            self._condition.wait_for(lambda: self._waiting < _TOO_MUCH or self._closed)
            self._pending.setdefault(path, bytearray()).extend(data)
            self._waiting += len(data)
            tail = self._tails.setdefault(path, deque())
            tail.append(data[-_TAIL:])
            while sum(map(len, tail)) - len(tail[0]) >= _TAIL:
                tail.popleft()
            self._condition.notify_all()

    def say(self, line: str, path: str = SYSTEM_LOG) -> None:
        """Add one line."""
        self.write(path, line.encode(errors="replace") + b"\n")

    def tail(self, path: str) -> str:
        """Return the last lines of a log, at most 4,000 bytes."""
        with self._condition:
            text = b"".join(self._tails.get(path, ()))[-_TAIL:]
        return text.decode(errors="replace").strip("\n")

    def restart(self, path: str) -> None:
        """Begin a log again, as AzureML does where a job was preempted."""
        with self._condition:
            self._pending.pop(path, None)
            self._tails.pop(path, None)
        with contextlib.suppress(Refusal):  # there was none
            self._files.delete(self._files.find(RUN_ORIGIN, container_of(self._run_id), path))

    def close(self) -> Exception | None:
        """Write what is left; returns why something was lost, where it was."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()
        return self._problem

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._pending or self._closed)
                if not self._closed:  # collect, but not without end
                    wait = interval(self._clock() - self._begin)
                    self._condition.wait_for(lambda: self._waiting >= _FULL or self._closed, timeout=wait)
                pending, self._pending, self._waiting = self._pending, {}, 0
                last = self._closed
                self._condition.notify_all()
            for path, data in pending.items():
                self._send(path, bytes(data))
            if last:
                return

    def _send(self, path: str, data: bytes) -> None:
        try:
            for start in range(0, max(1, len(data)), _PIECE):
                self._files.append_log(self._run_id, path, data[start : start + _PIECE])
        except Exception as error:  # noqa: BLE001 - a thread that dies here would let the job wait for ever
            self._problem = self._problem or error


class RankLogs:
    """What the containers write, for :class:`himl_container.launch.supervise.Supervisor`.

    :param paths: the log of each rank.
    """

    def __init__(self, logs: JobLogs, paths: Mapping[int, str]) -> None:
        self._logs, self._paths = logs, paths

    def write(self, rank: int, channel: Channel, data: bytes) -> None:
        """Take a piece of output; AzureML's log has both channels."""
        self._logs.write(self._paths[rank], data)

    def end(self, rank: int) -> None:
        """Nothing is held back until the end of a line."""
