"""Whether two version specifications of one package can hold together, as far as that can be told without a solver.

Only a proven contradiction is reported; what is merely doubtful is the solver's to decide. One piece of code for both
worlds: it only compares versions, and gets them (and what follows a prefix) from the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from rattler import MatchSpec


@dataclass(frozen=True)
class Bounds:
    """An interval of versions; None means unbounded. An end counts as part of it unless it is open.

    :param exact: the version of an exact pin, for which the other specification is asked.
    """

    low: Any = None
    high: Any = None
    low_open: bool = False
    high_open: bool = False
    exact: Any = None


def disjoint(one: Bounds, other: Bounds) -> bool:
    """Whether no version lies in both intervals."""
    return _below(one, other) or _below(other, one)


def _below(one: Bounds, other: Bounds) -> bool:
    """Whether ``one`` ends before ``other`` begins."""
    high, low = one.high, other.low
    if high is None or low is None:
        return False
    return bool(high < low or (high == low and (one.high_open or other.low_open)))


def intersect(parts: Iterable[Bounds]) -> Bounds:
    """Return an interval that holds at least all versions that lie in each part."""
    result = Bounds()
    for part in parts:
        low, low_open = result.low, result.low_open
        if part.low is not None and (low is None or part.low > low or (part.low == low and part.low_open)):
            low, low_open = part.low, part.low_open
        high, high_open = result.high, result.high_open
        if part.high is not None and (high is None or part.high < high or (part.high == high and part.high_open)):
            high, high_open = part.high, part.high_open
        exact = result.exact if part.exact is None else part.exact
        result = Bounds(low, high, low_open, high_open, exact)
    return result


def conda_conflict(one: MatchSpec, other: MatchSpec) -> bool:
    """Whether two Conda specifications of one package contradict each other."""
    builds = [spec.build for spec in (one, other) if spec.build and not set(spec.build) & set("*^$")]
    channels = [spec.channel.name for spec in (one, other) if spec.channel is not None]
    if len(set(builds)) > 1 or len(set(channels)) > 1:
        return True
    return disjoint(_conda_bounds(one), _conda_bounds(other)) or _pin_refused(one, other) or _pin_refused(other, one)


def pip_conflict(one: Requirement, other: Requirement) -> bool:
    """Whether two pip requirements of one package contradict each other; with different markers, never."""
    if str(one.marker) != str(other.marker):
        return False
    if one.url is not None or other.url is not None:
        return None not in (one.url, other.url) and one.url != other.url
    bounds = [intersect(map(_pip_clause, requirement.specifier)) for requirement in (one, other)]
    if disjoint(*bounds):
        return True
    pins = [(bounds[0].exact, other), (bounds[1].exact, one)]
    answers = [spec.specifier.contains(pin, prereleases=True) for pin, spec in pins if pin is not None]
    # Of two pins one allows the other where only a local part tells them apart: ==1.0 takes 1.0+cpu.
    return bool(answers) and not any(answers)


def _pin_refused(pinned: MatchSpec, other: MatchSpec) -> bool:
    from rattler import VersionSpec

    pin = _conda_bounds(pinned).exact
    return pin is not None and other.version is not None and not VersionSpec(str(other.version)).matches(pin)


def _conda_bounds(spec: MatchSpec) -> Bounds:
    """Return the interval of a version specification; unbounded where it has alternatives (``|``)."""
    text = str(spec.version or "")
    if not text or set(text) & set("|()"):
        return Bounds()
    return intersect(map(_conda_clause, text.split(",")))


def _conda_clause(clause: str) -> Bounds:
    from rattler import Version

    try:
        for sign in ("==", ">=", "<=", "~=", "!=", ">", "<"):
            if not clause.startswith(sign):
                continue
            version = Version(clause[len(sign) :].strip().removesuffix(".*"))
            if sign == "==":
                return Bounds(exact=version)
            if sign in (">=", "~="):
                return Bounds(low=version)
            return {
                "<=": Bounds(high=version),
                ">": Bounds(low=version, low_open=True),
                "<": Bounds(high=version, high_open=True),
            }.get(sign, Bounds())
        if clause.endswith(".*"):
            version = Version(clause[:-2])
            # A pre-release of 1.2 begins with 1.2 and still comes before it; one of 1.3 does not.
            return Bounds(Version(f"{version}dev"), Version(f"{version.bump_last()}dev"), high_open=True)
    except Exception:  # noqa: BLE001 - rattler's errors have no common base; what is not understood bounds nothing
        return Bounds()
    return Bounds()


def _pip_clause(clause: Any) -> Bounds:
    from packaging.version import InvalidVersion, Version

    text = clause.version.removesuffix(".*")
    try:
        version = Version(text)
    except InvalidVersion:
        return Bounds()
    if clause.operator == "==" and clause.version.endswith(".*"):
        release = (*version.release[:-1], version.release[-1] + 1)
        following = Version(f"{version.epoch}!{'.'.join(map(str, release))}.dev0")
        return Bounds(Version(f"{text}.dev0"), following, high_open=True)
    if clause.operator == "==":
        return Bounds(exact=version)
    return {
        ">=": Bounds(low=version),
        "~=": Bounds(low=version),
        ">": Bounds(low=version, low_open=True),
        "<=": Bounds(high=version),
        "<": Bounds(high=version, high_open=True),
    }.get(clause.operator, Bounds())
