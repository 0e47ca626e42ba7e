"""``pip check``, done here: whether what each distribution requires is there, in a version that it accepts.

Done on the host with the ``packaging`` library, because the image need not have pip.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def unsatisfied(distributions: Iterable[Mapping[str, Any]], markers: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for each requirement that is not met, and for each distribution that is there twice.

    :param distributions: ``name``, ``version`` and ``requires`` (``Requires-Dist`` texts) of each.
    :param markers: the environment of the image's interpreter (PEP 508).
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    problems = []
    versions: dict[str, str] = {}
    for one in distributions:
        name = canonicalize_name(one["name"])
        if name in versions:
            problems.append(f"{one['name']} is installed twice: {versions[name]} and {one['version']}")
        versions[name] = one["version"]
    environment = {**markers, "extra": ""}
    for one in distributions:
        for text in one["requires"]:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                problems.append(f"{one['name']} {one['version']} has a requirement that cannot be read: {text}")
                continue
            if requirement.marker is not None and not requirement.marker.evaluate(environment):
                continue
            there = versions.get(canonicalize_name(requirement.name))
            if there is None:
                problems.append(f"{one['name']} {one['version']} requires {requirement.name}, which is not installed")
            elif not _accepts(requirement.specifier, there):
                wanted = f"{requirement.name}{requirement.specifier}"
                problems.append(f"{one['name']} {one['version']} requires {wanted}, but {there} is installed")
    return tuple(problems)


def import_tools() -> None:
    """Import what :func:`unsatisfied` uses, which takes longer than its work on most environments."""
    import packaging.requirements
    import packaging.utils  # noqa: F401


def _accepts(specifier: Any, version: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return bool(specifier.contains(Version(version), prereleases=True))
    except InvalidVersion:
        return not specifier  # a version outside PEP 440 meets only a requirement without one
