"""What a check says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from himl_container.environment.urls import scrub

Severity = Literal["ok", "warning", "error", "skipped"]
Repair = Callable[[], str]
"""Mends what was found and says in a few words what it did; raises HimlError or OSError where it cannot."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    :param severity: ``ok``; ``warning`` where something optional is missing or will soon be in the way; ``error`` where
        nothing can be built, or something that was set up does not work; ``skipped`` where it does not concern us.
    :param means: what follows from it for the reader; empty where that is plain.
    :param fix: what to do; empty where nothing has to be done.
    :param repair: does it, for ``doctor --fix``; None where it is not for us to do.
    """

    check: str
    severity: Severity
    found: str
    means: str = ""
    fix: str = ""
    repair: Repair | None = field(default=None, compare=False)

    def as_json(self) -> dict[str, object]:
        """Return plain values; ``fixable`` says whether ``--fix`` would do something."""
        fixable = self.repair is not None and self.severity != "ok"
        texts = {name: scrub(getattr(self, name)) for name in ("check", "severity", "found", "means", "fix")}
        return {**texts, "fixable": fixable}


@dataclass(frozen=True)
class Group:
    """The checks of one subject, which are made one after the other.

    :param name: of the finding that stands for all of them when they do not come to an end.
    :param limit: seconds after which they are not waited for any more.
    """

    name: str
    checks: Callable[[], Iterable[Finding]]
    limit: float = 30.0
