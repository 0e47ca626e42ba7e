"""Runs the checks: all groups at once, none for longer than its limit; and the repairs of what they found."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from himl_container.doctor.model import Finding, Group
from himl_container.environment.urls import scrub
from himl_container.errors import HimlError
from himl_container.settings import Settings


def groups(settings: Settings, environ: Mapping[str, str]) -> tuple[Group, ...]:
    """Return the checks of this machine and project, in the order in which they are told."""
    from himl_container.doctor import engine, host, leftovers, libraries, local_workspace, registries, workspace

    own_registry = None if settings.remote_name else lambda found: workspace.own_registry(found, environ)
    return (
        Group("this machine", lambda: host.checks(settings.cache_dir)),
        Group("docker engine", lambda: engine.checks(environ)),
        Group("leftovers", lambda: leftovers.checks(settings.cache_dir, environ)),
        Group("registry", lambda: registries.checks(settings, environ), 40),
        Group("workspace", lambda: workspace.checks(environ, registry=own_registry), 75),
        Group("emulator", lambda: local_workspace.checks(environ)),
        Group("libraries", libraries.checks),
    )


def examine(wanted: Sequence[Group]) -> tuple[Finding, ...]:
    """Return what all checks find.

    A check that hangs, or goes wrong in a way that nobody thought of, is a finding too. Its thread is left behind: it
    changes nothing, and ends with the process at the latest.
    """
    began = time.monotonic()
    answers = [(group, _begin(group)) for group in wanted]
    return tuple(finding for group, answer in answers for finding in _collect(group, answer, began))


def mend(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Carry out the repairs of what is not as it should be, and return how each went."""
    done: list[Finding] = []
    for finding in findings:
        if finding.repair is None or finding.severity in ("ok", "skipped"):
            continue
        try:
            done.append(Finding(finding.check, "ok", scrub(finding.repair())))
        except (HimlError, OSError) as error:
            done.append(Finding(finding.check, "error", scrub(f"cannot be repaired: {_words(error)}"), fix=finding.fix))
    return tuple(done)


def _begin(group: Group) -> queue.SimpleQueue[Finding | None]:
    """Run a group's checks in a thread; None is the last that it says."""
    answer: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            for finding in group.checks():
                answer.put(finding)
        except HimlError as error:
            answer.put(Finding(group.name, "error", scrub(_words(error)), fix=scrub(error.hint)))
        except Exception as error:  # noqa: BLE001 - one check that is wrong must not hide what the others found
            answer.put(Finding(group.name, "error", scrub(f"cannot be checked: {_words(error)}")))
        answer.put(None)

    threading.Thread(target=run, name=f"doctor: {group.name}", daemon=True).start()
    return answer


def _collect(group: Group, answer: queue.SimpleQueue[Finding | None], began: float) -> Iterable[Finding]:
    while True:
        try:
            finding = answer.get(timeout=max(0.0, began + group.limit - time.monotonic()))
        except queue.Empty:
            means = "What is asked does not answer; commands that need it will wait as well."
            fix = "See whether the network, a proxy or the Docker daemon is in trouble."
            yield Finding(group.name, "error", f"no answer within {group.limit:g} s", means, fix)
            return
        if finding is None:
            return
        yield finding


def _words(error: Exception) -> str:
    if isinstance(error, HimlError):
        return f"{error.where}: {error.what}" if error.where else error.what
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"
