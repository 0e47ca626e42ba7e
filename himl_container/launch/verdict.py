"""How a run ended, in one state, one exit code and one sentence."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from himl_container.launch.containers import ContainerConfig, Ended
from himl_container.launch.run_folder import NodeRecord, State
from himl_container.launch.supervise import Attempt

INTERRUPTED = 130
TERMINATED = 143
TIMED_OUT = 124
"""Exit codes of a run that was ended from outside: those of shells for a signal, and that of ``timeout``."""


_SHELL_CODES = {126: "the command cannot be executed", 127: "the command was not found"}
"""What shells, and the init process of a container, mean by these."""


@dataclass(frozen=True)
class RunResult:
    """A run that is over.

    :param exit_code: the script's own; 124, 130 or 143 where it was ended from outside.
    :param reason: one sentence where the state alone does not say what happened.
    :param seconds: from the first container's creation to the last one's removal.
    :param preemptions: how often the run was preempted.
    :param strays: files that the script wrote outside of its outputs; AzureML would not keep them.
    """

    run_id: str
    folder: Path
    state: State
    exit_code: int
    reason: str
    seconds: float
    preemptions: int = 0
    strays: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for the reader: what happened, how long it took, and where the rest is."""
        words = {"completed": "completed", "timed_out": "was stopped", "cancelled": "was cancelled", "lost": "was lost"}
        text = words.get(self.state) or f"failed with exit code {self.exit_code}"
        reason = f": {self.reason}" if self.reason else ""
        return f"run {self.run_id} {text} after {self.seconds:.1f} s{reason} ({self.folder})"


@dataclass(frozen=True)
class Verdict:
    """State, exit code and reason."""

    state: State
    exit_code: int
    reason: str = ""


def judge(attempt: Attempt, max_duration: float | None = None) -> Verdict:
    """Say how a run went whose last start went like this."""
    if attempt.error is not None:
        return Verdict("lost", attempt.error.exit_code, attempt.error.what)
    if attempt.outcome == "interrupted":
        return Verdict("cancelled", INTERRUPTED, "interrupted")
    if attempt.outcome == "terminated":
        return Verdict("cancelled", TERMINATED, "told to end by a signal")
    if attempt.outcome == "timed_out":
        limit = f" of {max_duration:g} s" if max_duration is not None else ""
        return Verdict("timed_out", TIMED_OUT, f"the maximum duration{limit} was over")
    rank = attempt.first_failure
    if rank is None:
        return Verdict("completed", 0)
    ended = attempt.ended[rank]
    reason = why(ended)
    if len(attempt.ended) > 1:
        reason = f"node {rank} failed first" + (f", {reason}" if reason else "")
    return Verdict("failed", ended.exit_code, reason)


def why(ended: Ended) -> str:
    """Explain an exit code that a script did not choose itself; empty for one that it did."""
    if ended.oom_killed:
        return "its memory ran out, and the kernel killed a process of it"
    if ended.exit_code in _SHELL_CODES:
        return _SHELL_CODES[ended.exit_code]
    number = ended.exit_code - 128
    if number == signal.SIGKILL:
        return "killed by SIGKILL; where nobody did that, the machine's memory ran out ('dmesg' tells)"
    try:
        return f"ended by {signal.Signals(number).name}" if number > 0 else ""
    except ValueError:
        return ""


class AttemptRecords:
    """The records of the nodes of one start."""

    def __init__(self, nodes: Mapping[int, ContainerConfig], attempt: int, logs: Mapping[int, str]) -> None:
        self._nodes = [NodeRecord(rank, attempt, config.name, logs[rank]) for rank, config in nodes.items()]

    def planned(self) -> Iterable[NodeRecord]:
        """Return the records before the start."""
        return self._nodes

    def started(self, time: str) -> Iterable[NodeRecord]:
        """Return the records after the start."""
        self._nodes = [replace(node, started=time) for node in self._nodes]
        return self._nodes

    def ended(self, attempt: Attempt, time: str) -> Iterable[NodeRecord]:
        """Return the records after the end."""
        for node in self._nodes:
            end = attempt.ended.get(node.rank)
            yield replace(
                node,
                ended=time,
                exit_code=end.exit_code if end else None,
                oom_killed=bool(end and end.oom_killed),
                preempted=attempt.outcome == "preempted",
            )
