"""Several environment files become one declaration.

The rules are those of the ``conda-merge`` package, as hi-ml used them: the last name wins, each file's order of
channels is kept, dependencies are united and sorted. Where conda-merge keeps a contradiction (two pins of one package)
or lets the last file win silently (variables), this is an error that names the places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any, TypeVar

from himl_container.environment.bounds import conda_conflict, pip_conflict
from himl_container.environment.model import CondaDependency, Origin, PipIndexes, PipRequirement
from himl_container.environment.read import EnvironmentFile, Variable
from himl_container.environment.requirements import PipInput, Place
from himl_container.environment.urls import redact
from himl_container.errors import InputError

T = TypeVar("T", CondaDependency, PipRequirement)

_MOST_SPECS = 50  # of one package; each is compared with each


def merge_names(files: Iterable[EnvironmentFile]) -> str:
    """Return the last name that is given; empty where there is none."""
    import conda_merge  # type: ignore[import-untyped]

    name = conda_merge.merge_names(file.name for file in files)
    return str(name or "")


def merge_channels(files: Sequence[EnvironmentFile]) -> tuple[str, ...]:
    """Return all channels in an order that keeps each file's own.

    :raises InputError: there is no such order.
    """
    import conda_merge

    lists = [[channel.name for channel in file.channels] for file in files]
    try:
        return tuple(conda_merge.merge_channels(lists))
    except conda_merge.MergeError as error:
        raise _contradicting_channels(files) from error


def merge_conda(files: Iterable[EnvironmentFile]) -> tuple[CondaDependency, ...]:
    """Return all Conda dependencies, sorted, each spelling once.

    :raises InputError: two of one package cannot hold together.
    """
    from rattler import MatchSpec

    dependencies = [dependency for file in files for dependency in file.dependencies]
    _check(dependencies, "Conda package", MatchSpec, conda_conflict, lambda dependency: dependency.spec)
    unique: dict[str, CondaDependency] = {}
    for dependency in dependencies:
        unique.setdefault(dependency.spec, dependency)
    return tuple(unique[spec] for spec in sorted(unique))


def merge_pip(requirements: Iterable[PipRequirement]) -> tuple[PipRequirement, ...]:
    """Return all pip requirements, sorted, each spelling once.

    :raises InputError: two of one package cannot hold together, or name different hashes for the same text.
    """
    from packaging.requirements import Requirement

    found = list(requirements)
    _check(found, "pip requirement", Requirement, pip_conflict, lambda requirement: requirement.text)
    unique: dict[str, PipRequirement] = {}
    for requirement in found:
        first = unique.setdefault(requirement.text, requirement)
        if first.hashes != requirement.hashes:
            what = f"the hashes of {requirement.text!r} differ from those in {first.origin}"
            raise InputError(what, where=str(requirement.origin))
    return tuple(unique[text] for text in sorted(unique))


def merge_variables(files: Iterable[EnvironmentFile]) -> tuple[tuple[str, str], ...]:
    """Return all variables, sorted by name.

    :raises InputError: two files give one variable different values.
    """
    seen: dict[str, Variable] = {}
    for variable in (variable for file in files for variable in file.variables):
        first = seen.setdefault(variable.name, variable)
        if first.value != variable.value:
            what = f"the variable {variable.name} has another value than in {first.origin}"
            raise InputError(what, where=str(variable.origin), hint="Keep one of the two.")
    return tuple((name, seen[name].value) for name in sorted(seen))


def merge_indexes(pip: PipInput, *, index: str, private: Sequence[str]) -> PipIndexes:
    """Return where pip packages come from.

    :param index: the settings' main index; it wins over the files'.
    :param private: the settings' private indexes; searched before the files' ``--extra-index-url``.
    :raises InputError: two files name different main indexes, and the settings none.
    """
    main = {place.url: place for place in reversed(pip.index)}
    if not index and len(main) > 1:
        first, second = pip.index[0], next(place for place in pip.index if place.url != pip.index[0].url)
        what = f"another --index-url ({redact(second.url)}) than in {first.origin} ({redact(first.url)})"
        raise InputError(what, where=str(second.origin), hint="Keep one, or decide with --pip-index-url.")
    return PipIndexes(
        private=_unique([*private, *_urls(pip.extra)]),
        index=index or next(iter(main), ""),
        find_links=_unique(_urls(pip.find_links)),
    )


def _urls(places: Iterable[Place]) -> list[str]:
    return [place.url for place in places]


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _check(
    entries: Sequence[T],
    kind: str,
    parse: Callable[[str], Any],
    conflict: Callable[[Any, Any], bool],
    text: Callable[[T], str],
) -> None:
    """Compare the specifications of each package pairwise."""
    groups: dict[str, dict[str, T]] = {}
    for entry in entries:
        groups.setdefault(entry.name, {}).setdefault(text(entry), entry)
    for name, group in groups.items():
        if len(group) > _MOST_SPECS:
            last = max(entry.origin for entry in group.values())
            raise InputError(f"{kind} {name!r} has more than {_MOST_SPECS} specifications", where=str(last))
        parsed = [(entry, parse(specification)) for specification, entry in group.items()] if len(group) > 1 else []
        for (first, one), (second, other) in combinations(parsed, 2):
            if conflict(one, other):
                raise _conflict(kind, name, (first.origin, text(first)), (second.origin, text(second)))


def _conflict(kind: str, name: str, first: tuple[Origin, str], second: tuple[Origin, str]) -> InputError:
    what = f"{kind} {name!r} cannot be both {first[1]!r} and {second[1]!r}"
    hint = f"{first[0]}: {first[1]}\n{second[0]}: {second[1]}"
    return InputError(what, where=str(second[0]), hint=hint)


def _contradicting_channels(files: Sequence[EnvironmentFile]) -> InputError:
    """Return the error that names two files of opposite order; where it takes three for a circle, all files."""
    hint = "Give the channels the same order in all files; the first one has the highest priority."
    for one, other in combinations(files, 2):
        ranks = [{channel.name: rank for rank, channel in enumerate(file.channels)} for file in (one, other)]
        shared = [channel for channel in one.channels if channel.name in ranks[1]]
        for first, second in combinations(shared, 2):
            if ranks[1][first.name] > ranks[1][second.name]:
                place = next(channel.origin for channel in other.channels if channel.name == second.name)
                names = redact(second.name), redact(first.name)
                what = f"channel {names[0]} comes before {names[1]} here, and after it in {first.origin}"
                return InputError(what, where=str(place), hint=hint)
    paths = ", ".join(str(file.path) for file in files if file.channels)
    return InputError("the orders of the channels form a circle", where=paths, hint=hint)
