"""Patterns of files in a datastore, as the SDK's native engine reads them (found out with it, see the tests).

``*`` stands for anything within a part of a path, ``**`` for anything, and ``**/`` at the beginning of a part also for
nothing; every other character stands for itself. Names distinguish case, and one that begins with a dot is found like
any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_PART = re.compile(r"(?:(?<![^/])\*\*/)+|\*\*+|\*|[^*]+")

_MOST_FOR_A_REGEX = 4
"""Beyond so many wildcards, a regular expression may need very long for a long name that does not fit."""


def is_pattern(path: str) -> bool:
    """Whether a path has a wildcard."""
    return "*" in path


def fixed_beginning(pattern: str) -> str:
    """Return what every name that fits begins with."""
    return pattern.partition("*")[0]


def fixed_folder(pattern: str) -> str:
    """Return the folder that every name that fits is in, without a slash at its end; empty for the root."""
    return fixed_beginning(pattern).rpartition("/")[0]


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return whether a name fits a pattern."""
    parts = _PART.findall(pattern)
    if sum(part.startswith("*") for part in parts) <= _MOST_FOR_A_REGEX:
        compiled = re.compile("".join(map(_as_regex, parts)), re.DOTALL)
        return lambda name: compiled.fullmatch(name) is not None
    steps = _steps(parts)
    return lambda name: _walk(steps, name)


def _as_regex(part: str) -> str:
    if not part.startswith("*"):
        return re.escape(part)
    if part.endswith("/"):
        return "(?:.*/)?"
    return "[^/]*" if part == "*" else ".*"


def _steps(parts: list[str]) -> list[str]:
    """Return one step for each character and wildcard: ``*``, ``**`` and ``**/`` are steps, ``=x`` is the letter x."""
    steps: list[str] = []
    for part in parts:
        if not part.startswith("*"):
            steps += [f"={letter}" for letter in part]
        else:
            steps.append("**/" if part.endswith("/") else "*" if part == "*" else "**")
    return steps


def _walk(steps: list[str], name: str) -> bool:
    """Follow all ways through the pattern at once: time grows with the product of both lengths, and not faster.

    A place in the pattern is the number of the step that comes next; ``**/`` has a second one, for being inside it.
    """
    here = _beyond(steps, {(0, False)})
    for letter in name:
        there: set[tuple[int, bool]] = set()
        for place, inside in here:
            step = steps[place] if place < len(steps) else ""
            if step == "**" or (step == "*" and letter != "/"):
                there.add((place, False))
            elif step == "**/":
                there.add((place, True))
                if letter == "/":
                    there.add((place + 1, False))
            elif not inside and step == f"={letter}":
                there.add((place + 1, False))
        if not there:
            return False
        here = _beyond(steps, there)
    return (len(steps), False) in here


def _beyond(steps: list[str], places: set[tuple[int, bool]]) -> set[tuple[int, bool]]:
    """Add the places that are reached without a letter, because a wildcard may stand for nothing."""
    found, left = set(places), list(places)
    while left:
        place, inside = left.pop()
        if not inside and place < len(steps) and steps[place].startswith("*") and (place + 1, False) not in found:
            found.add((place + 1, False))
            left.append((place + 1, False))
    return found
