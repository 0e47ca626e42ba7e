"""Watching the containers of one start of a run until they have ended, and ending them when that is due.

One thread per container carries its output; everything else is decided in the caller's thread, from one queue of
events, so that there is one order of things and a signal can come at any moment.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from himl_container.errors import HimlError
from himl_container.launch.containers import Channel, ContainerConfig, Containers, Ended, Session, Signal

Outcome = Literal["ended", "preempted", "timed_out", "interrupted", "terminated"]
GRACE = 10.0
"""Seconds between asking a script to end and killing it; Docker's own default of ``docker stop``."""
PEER_GRACE = 2.0
"""Seconds that the other nodes get to notice by themselves that one has failed."""
_JOIN = 10.0


@dataclass(frozen=True)
class NodeEnded:
    """A container has ended and all of its output was carried; or its daemon went away."""

    rank: int
    ended: Ended | None
    error: HimlError | None = None


@dataclass(frozen=True)
class Interrupt:
    """The user or the system wants the run to end."""

    signal: Literal["SIGINT", "SIGTERM"]


@dataclass(frozen=True)
class Kill:
    """The machine is taken away, or everything is to end at once: the containers are killed without a warning.

    :param outcome: what that means for the run.
    """

    outcome: Literal["preempted", "terminated"]


Event = NodeEnded | Interrupt | Kill


class Sink(Protocol):
    """Where the output of the containers goes. Called from several threads."""

    def write(self, rank: int, channel: Channel, data: bytes) -> None:
        """Take a piece of output."""

    def end(self, rank: int) -> None:
        """Take note that a rank writes no more."""


@dataclass(frozen=True)
class Limits:
    """When the containers are ended from outside, seconds after their start; None for never.

    :param preempt: killed without warning, as a low-priority machine dies.
    :param timeout: asked to end, and killed after the grace.
    """

    preempt: float | None = None
    timeout: float | None = None
    grace: float = GRACE


@dataclass
class Attempt:
    """How one start went.

    :param ended: how each rank ended; a rank that was lost is missing.
    :param order: ranks in the order in which they ended.
    :param error: the daemon went away.
    """

    outcome: Outcome = "ended"
    ended: dict[int, Ended] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    error: HimlError | None = None

    @property
    def first_failure(self) -> int | None:
        """The rank that failed first, or None."""
        return next((rank for rank in self.order if rank in self.ended and self.ended[rank].exit_code), None)


class Supervisor:
    """Starts the containers of a run and stays with them until all have ended.

    :param clock: seconds, monotonic.
    :param tell: says one line to the reader.
    """

    def __init__(
        self,
        containers: Containers,
        events: queue.SimpleQueue[Event],
        sink: Sink,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._containers, self._events, self._sink, self._tell, self._clock = containers, events, sink, tell, clock
        self._sessions: dict[int, Session] = {}
        self._threads: list[threading.Thread] = []
        self._names: dict[int, str] = {}
        self._deadlines: dict[str, float] = {}
        self._attempt = Attempt()
        self._early: list[NodeEnded] = []

    def run(
        self,
        nodes: Mapping[int, ContainerConfig],
        limits: Limits,
        running: Callable[[Mapping[int, Session]], AbstractContextManager[None]] = lambda _sessions: (
            contextlib.nullcontext()
        ),
    ) -> Attempt:
        """Create, start and watch containers; all are gone afterwards, whatever happens.

        :param running: entered once all run, with their connections; left when all have ended.
        :raises LaunchError: one could not be created or started.
        :raises EngineError: the daemon does not answer. When it goes away later, the result says so instead.
        """
        self._names = {rank: config.name for rank, config in nodes.items()}
        try:
            if self._start(nodes):
                with running(self._sessions):
                    self._watch(limits)
        finally:
            self._clean()
        return self._attempt

    def _start(self, nodes: Mapping[int, ContainerConfig]) -> bool:
        """Start the containers, rank 0 first because the others look for its name; False when interrupted."""
        steps: tuple[Callable[[int, ContainerConfig], None], ...] = (
            lambda _rank, config: self._containers.create(config),
            self._open,
            lambda _rank, config: self._containers.start(config.name),
        )
        for step in steps:
            for rank, config in nodes.items():
                if self._interrupted_early():
                    return False
                step(rank, config)
        return True

    def _open(self, rank: int, config: ContainerConfig) -> None:
        session = self._containers.open(config.name, tty=config.tty)
        self._sessions[rank] = session
        thread = threading.Thread(
            target=self._carry, args=(rank, session), name=f"output of {config.name}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _interrupted_early(self) -> bool:
        with contextlib.suppress(queue.Empty):
            event = self._events.get_nowait()
            if not isinstance(event, NodeEnded):
                self._attempt.outcome = event.outcome if isinstance(event, Kill) else _outcome_of(event)
                return True
            # A short script of rank 0 may end before the last rank has started; the others are stopped when all run.
            self._note(event)
            self._early.append(event)
        return False

    def _carry(self, rank: int, session: Session) -> None:
        """Carry a container's output to the sink until it ends (a thread of its own)."""
        ended: Ended | None = None
        problem: HimlError | None = None
        try:
            for channel, data in session.output():
                self._sink.write(rank, channel, data)
            ended = session.ended()
        except HimlError as error:
            problem = error
        finally:
            self._sink.end(rank)
            self._events.put(NodeEnded(rank, ended, problem))

    def _watch(self, limits: Limits) -> None:
        begin = self._clock()
        if limits.preempt is not None:
            self._deadlines["preempt"] = begin + limits.preempt
        if limits.timeout is not None:
            self._deadlines["timeout"] = begin + limits.timeout
        for early in self._early:
            self._react(early)
        while len(self._attempt.order) < len(self._names):
            event = self._next()
            if event is None:
                self._due(limits)
            elif isinstance(event, NodeEnded):
                self._note(event)
                self._react(event)
            elif isinstance(event, Kill):
                self._kill(event.outcome)
            else:
                self._interrupt(event, limits)

    def _next(self) -> Event | None:
        """Return the next event, or None when the first deadline has come and nothing has happened before.

        An event that is there comes first, however late we look: a script that has ended in time was not stopped.
        """
        if not self._deadlines:
            return self._events.get()
        left = min(self._deadlines.values()) - self._clock()
        try:
            return self._events.get(timeout=max(left, 0.0))
        except queue.Empty:
            return None

    def _note(self, event: Event) -> None:
        if isinstance(event, NodeEnded) and event.rank not in self._attempt.order:
            self._attempt.order.append(event.rank)
            if event.ended is not None:
                self._attempt.ended[event.rank] = event.ended
            self._attempt.error = self._attempt.error or event.error

    def _react(self, event: NodeEnded) -> None:
        """After a failure, the other nodes get a moment to notice, then they are stopped."""
        alone = len(self._attempt.order) == len(self._names)
        if alone or self._attempt.outcome != "ended" or "peers" in self._deadlines:
            return
        if event.error is not None:
            self._all("SIGKILL")
        elif event.ended is not None and event.ended.exit_code:
            self._tell(f"node {event.rank} failed with exit code {event.ended.exit_code}; the others are stopped")
            self._deadlines["peers"] = self._clock() + PEER_GRACE

    def _due(self, limits: Limits) -> None:
        reason = min(self._deadlines, key=lambda name: self._deadlines[name])
        del self._deadlines[reason]
        if reason == "preempt":
            self._kill("preempted")
        elif reason == "timeout":
            self._attempt.outcome = "timed_out"
            self._tell("the maximum duration is over; the script is asked to end")
            self._ask("SIGTERM", limits.grace)
        elif reason == "peers":
            self._ask("SIGTERM", PEER_GRACE)
        else:
            self._tell("the script did not end when asked to; it is killed")
            self._all("SIGKILL")

    def _interrupt(self, event: Interrupt, limits: Limits) -> None:
        if self._attempt.outcome in ("interrupted", "terminated"):
            self._tell("killing the script")
            self._deadlines.clear()
            self._all("SIGKILL")
            return
        self._attempt.outcome = _outcome_of(event)
        self._tell(f"stopping the script; it has {limits.grace:.0f} s (once more to kill it at once)")
        self._ask(event.signal, limits.grace)

    def _kill(self, outcome: Outcome) -> None:
        self._attempt.outcome = outcome
        self._deadlines.clear()
        self._all("SIGKILL")

    def _ask(self, signal: Signal, grace: float) -> None:
        self._deadlines = {"kill": self._clock() + grace}
        self._all(signal)

    def _all(self, signal: Signal) -> None:
        """Signal the containers that still run. When the daemon is gone, the connections' end tells it."""
        for rank, name in self._names.items():
            if rank not in self._attempt.order:
                with contextlib.suppress(HimlError):
                    self._containers.signal(name, signal)

    def _clean(self) -> None:
        """Remove the containers, then wait for the threads that carried their output."""
        problems = list(filter(None, map(self._remove, self._names.values())))
        for session in self._sessions.values() if problems else ():
            session.close()
        for thread in self._threads:
            thread.join(_JOIN)
        for session in self._sessions.values():
            session.close()
        if problems and len(self._attempt.ended) < len(self._names):
            self._attempt.error = self._attempt.error or problems[0]

    def _remove(self, name: str) -> HimlError | None:
        """Remove a container; when that fails, say so and go on, so that it keeps nothing else from being removed."""
        try:
            self._containers.remove(name)
        except HimlError as error:
            self._tell(f"a container may be left behind ({error.what}); 'docker rm -f {name}' removes it")
            return error
        return None


def _outcome_of(event: Interrupt) -> Outcome:
    return "interrupted" if event.signal == "SIGINT" else "terminated"
