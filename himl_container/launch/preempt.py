"""A run over all of its starts: machines that are taken away, and given again.

A low-priority machine of AzureML dies without warning; the job is queued and starts again from the beginning, with what
it had written to ``outputs`` in place and nothing else. ``--preempt 30s,20s`` rehearses that: the first start is killed
after 30 s, the second after 20 s, the third runs to its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from himl_container.launch.supervise import GRACE, Attempt, Limits


def run_attempts(
    start: Callable[[int, Limits], Attempt],
    *,
    preempt: tuple[float, ...] = (),
    max_duration: float | None = None,
    grace: float = GRACE,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Attempt:
    """Start a run again after each preemption, and return how its last start went.

    :param start: makes one start, given its number (from 0) and its limits.
    :param preempt: seconds after each start at which it is preempted.
    :param max_duration: seconds for all starts together.
    """
    begin = clock()
    for number in range(len(preempt) + 1):
        left = None if max_duration is None else max(0.0, max_duration - (clock() - begin))
        due = preempt[number] if number < len(preempt) else None
        attempt = start(number, replace(Limits(grace=grace), preempt=due, timeout=left))
        if attempt.outcome != "preempted" or attempt.error is not None:
            break
        tell(f"preempted after {due:g} s ({number + 1} of {len(preempt)}); starting again with the outputs in place")
    if number < len(preempt) and attempt.outcome == "ended" and attempt.error is None:
        tell(f"the run ended before preemption {number + 1} of {len(preempt)} was due (after {preempt[number]:g} s)")
    return attempt
