"""Which waiting jobs start next: first come, first served, for each cluster, as many as its nodes allow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Waiting(NamedTuple):
    """A job that wants nodes.

    :param priority: a higher one goes first; :param position: among equals, a lower one goes first.
    """

    run_id: str
    nodes: int
    position: int
    priority: int = 0


def choose(waiting: Iterable[Waiting], free: int) -> tuple[Waiting, ...]:
    """Return the jobs to start now on so many free nodes.

    A job that needs more than are free keeps those behind it waiting: otherwise small jobs that keep coming would never
    let a large one start.
    """
    chosen = []
    for job in sorted(waiting, key=lambda item: (-item.priority, item.position)):
        if job.nodes > free:
            break
        free -= job.nodes
        chosen.append(job)
    return tuple(chosen)
