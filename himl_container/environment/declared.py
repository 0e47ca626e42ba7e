"""What a lock is made from, in a form that can be compared.

A lock is current exactly when the inputs of today give the same :class:`Declared` as the one that it records. The
fields are normalised so that what cannot change the result (order of packages, spaces, comments, a mirror, a password)
does not make a lock stale.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from himl_container.environment.channels import canonical_channels
from himl_container.environment.model import CondaDependency, Declared, EnvironmentSpec, PipIndexes, PipRequirement
from himl_container.environment.urls import redact

_PLAIN = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)((?:(?:===?|~=|!=|[<>]=?)[A-Za-z0-9.+!*_-]+(?:,(?=[=~!<>])|$))*)")
"""A requirement in its one spelling, without extras, markers and URLs: name and bounds."""

_LABELS = (
    ("channels", "channel", True),
    ("conda", "Conda package", False),
    ("pip", "pip requirement", False),
    ("constraints", "pip constraint", False),
    ("indexes", "package index", True),
    ("wheels", "private wheel", False),
    ("variables", "variable", False),
    ("virtual_packages", "virtual package", False),
    ("pypi_names", "name of a distribution", False),
)


def declared(
    spec: EnvironmentSpec,
    *,
    base: str,
    platform: str,
    virtual_packages: Iterable[str],
    pypi_names: Iterable[tuple[str, str]] = (),
) -> Declared:
    """Return what a lock of this environment would be made from.

    :param base: the base image as the user names it.
    :param virtual_packages: what the solver may assume (``__glibc=2.28``).
    :param pypi_names: the user's pairs of a Conda package and the distribution that it provides.
    """
    return Declared(
        channels=canonical_channels(spec.channels),
        conda=tuple(sorted({conda_text(dependency) for dependency in spec.dependencies})),
        pip=tuple(sorted({pip_text(requirement) for requirement in spec.pip})),
        indexes=tuple(index_texts(spec.indexes)),
        wheels=tuple(sorted({f"{wheel.filename} sha256={wheel.sha256}" for wheel in spec.wheels})),
        variables=tuple(f"{name}={value}" for name, value in sorted(spec.variables)),
        base=base,
        platform=platform,
        virtual_packages=tuple(sorted(virtual_packages)),
        pypi_names=tuple(sorted(f"{conda}={distribution}" for conda, distribution in pypi_names)),
        constraints=tuple(sorted({pip_text(requirement) for requirement in spec.constraints})),
    )


def conda_text(dependency: CondaDependency) -> str:
    """Return a Conda spec with single spaces and without the credentials of a channel that is written as a URL."""
    text = " ".join(dependency.spec.split())
    channel, separator, rest = text.partition("::")
    return f"{redact(channel)}::{rest}" if separator and "://" in channel else text


def pip_text(requirement: PipRequirement) -> str:
    """Return a requirement in one spelling, with its hashes; its URL, where it has one, without credentials."""
    return " ".join([_requirement(requirement), *(f"--hash={value}" for value in sorted(requirement.hashes))])


def _requirement(requirement: PipRequirement) -> str:
    plain = _PLAIN.fullmatch(requirement.text)
    if plain and (bounds := plain[2].split(",")) == sorted(set(bounds)):
        return requirement.text  # as it would come back from packaging, whose import takes longer than all else here
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        parsed = Requirement(requirement.text)
    except InvalidRequirement:
        return " ".join(requirement.text.split())
    parsed.name = re.sub(r"[-_.]+", "-", parsed.name).lower()
    if parsed.url:
        parsed.url = redact(parsed.url)
    return str(parsed)


def index_texts(indexes: PipIndexes) -> list[str]:
    """Return the places of packages in order of search, each with its role."""
    private = [f"private {redact(url)}" for url in indexes.private]
    main = [f"index {redact(indexes.index)}"] if indexes.index else []
    return private + main + [f"find-links {redact(url)}" for url in indexes.find_links]


def differences(old: Declared, new: Declared) -> tuple[str, ...]:
    """Return why a lock made from ``old`` is not current for ``new``, one sentence each; empty when it is current."""
    reasons: list[str] = []
    if old.base != new.base:
        reasons.append(f"the base image was {old.base or 'unset'} and is now {new.base or 'unset'}")
    if old.platform != new.platform:
        reasons.append(f"the platform was {old.platform} and is now {new.platform}")
    for attribute, label, ordered in _LABELS:
        before: tuple[str, ...] = getattr(old, attribute)
        after: tuple[str, ...] = getattr(new, attribute)
        if before == after:
            continue
        changes = _changes(label, before, after)
        if not changes and ordered:
            changes = [f"{label} order changed: now {', '.join(after)}"]
        reasons += changes
    return tuple(reasons)


def _changes(label: str, before: tuple[str, ...], after: tuple[str, ...]) -> list[str]:
    """Return entries that changed (one took the place of another of the same name), came and went, in this order."""
    removed = [text for text in before if text not in after]
    added = [text for text in after if text not in before]
    changed: list[str] = []
    for old in list(removed):
        new = next((text for text in added if _key(text) == _key(old)), None)
        if new is not None:
            changed.append(f"{label} changed: {old} -> {new}")
            removed.remove(old)
            added.remove(new)
    return [
        *changed,
        *(f"{label} added: {text}" for text in added),
        *(f"{label} removed: {text}" for text in removed),
    ]


def _key(text: str) -> str:
    """Return what makes two entries versions of one thing: the name before a version, a value or an extra."""
    plain = text.rpartition("::")[2]
    if "://" in text:
        return text
    return re.split(r"[\s=<>!~\[;@(]", plain, maxsplit=1)[0].lower() or text
