"""Timing and memory of a command, and of the daemon that works for it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_DAEMONS = ("dockerd", "containerd", "buildkitd", "docker-untar", "unpigz")


@dataclass(frozen=True)
class Measured:
    """One timed command.

    :param seconds: from start to end, as a whole process.
    :param peak_bytes: highest sum, while it ran, of the proportional set sizes of the command's processes and what the
        daemon's processes had more than before; 0 where that was not measured.
    :param sent_bytes: how much more the registry holds afterwards.
    """

    seconds: float
    peak_bytes: int = 0
    sent_bytes: int = 0

    def __add__(self, other: Measured) -> Measured:
        """One after the other."""
        peak = max(self.peak_bytes, other.peak_bytes)
        return Measured(self.seconds + other.seconds, peak, self.sent_bytes + other.sent_bytes)


def timed(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], memory: bool = False) -> Measured:
    """Run a command to its end.

    :param memory: sample the memory five times a second; off for short commands, which it would slow down.
    :raises RuntimeError: it failed; the text has its output.
    """
    sampler = _Sampler() if memory else None
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=cwd, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if sampler:
        sampler.start(process.pid)
    output, _ = process.communicate()
    seconds = time.perf_counter() - start
    peak = sampler.stop() if sampler else 0
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{output.decode(errors='replace')[-4000:]}")
    return Measured(seconds, peak)


class _Sampler:
    def __init__(self) -> None:
        self._end = threading.Event()
        self._peak = 0
        self._before = _memory(_daemon_processes())

    def start(self, pid: int) -> None:
        self._thread = threading.Thread(target=self._run, args=(pid,), daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._end.set()
        self._thread.join()
        return self._peak

    def _run(self, pid: int) -> None:
        while not self._end.wait(0.2):
            daemon = max(0, _memory(_daemon_processes()) - self._before)
            self._peak = max(self._peak, _memory(_descendants(pid)) + daemon)


def _daemon_processes() -> set[int]:
    """The daemon's processes and everything below them: the containers of a build are the build's memory."""
    parents = _parents()
    roots = {pid for pid in parents if _name(pid).startswith(_DAEMONS)}
    return {pid for pid in parents if roots & {pid, *_ancestors(pid, parents)}}


def _descendants(pid: int) -> set[int]:
    parents = _parents()
    return {child for child in parents if pid in (child, *_ancestors(child, parents))}


def _ancestors(pid: int, parents: Mapping[int, int]) -> list[int]:
    chain = []
    while pid := parents.get(pid, 0):
        chain.append(pid)
    return chain


def _parents() -> dict[int, int]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue
            found[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _memory(pids: set[int]) -> int:
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)
    return total
