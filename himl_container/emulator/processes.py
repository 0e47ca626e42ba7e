"""Processes that may outlive the one that knows them: who they are, whether they live, how they end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ProcessId:
    """A process, told from a later one with the same number by when it began.

    :param began: in the machine's own notation; empty where it cannot be known.
    """

    pid: int
    began: str

    def alive(self) -> bool:
        """Whether it still runs."""
        began = _began(self.pid)
        return began is not None and began == self.began


def identify(pid: int) -> ProcessId:
    """Return the identity of a process that runs."""
    return ProcessId(pid, _began(pid) or "")


def end(process: ProcessId, patience: float) -> bool:
    """Ask a process to end, kill it after some seconds, and say whether it is gone. No other process is touched."""
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        if not process.alive():
            return True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)
        limit = time.monotonic() + seconds
        while process.alive() and time.monotonic() < limit:
            time.sleep(0.02)
    return not process.alive()


def spawn(command: list[str], *, log: Path, environ: dict[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    """Start a child that is asked to end when this process dies, however it dies (on Linux; elsewhere the next start
    of the emulator ends it). It is in a session of its own: Ctrl-C in a terminal is for us.

    :param log: takes what it writes.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    parent = os.getpid()

    def tie() -> None:
        if library is not None:
            library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=tie,  # noqa: PLW1509 - called before this process has threads
        )


def _began(pid: int) -> str | None:
    """Return when a process began; None where there is none, or only its exit code is left of it."""
    if Path("/proc/self/stat").exists():
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        # The name, in parentheses, may hold anything (proc(5)); the state follows, the start is the 22nd field.
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
