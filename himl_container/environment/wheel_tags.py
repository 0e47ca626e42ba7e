"""Which wheel of several is the one for the image, by the tags in its file name."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from himl_container.environment.virtual_packages import machine

_LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}
"""Older names of manylinux platforms (PEP 600, "Legacy manylinux tags")."""


def best_wheel(filenames: Iterable[str], *, python_version: str, platform: str, glibc: str) -> str | None:
    """Return the most specific wheel that the image can use, or None.

    The order is pip's: the Python and platform tags decide, then the build number.
    """
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    ranks = _ranks(python_version, platform, glibc)
    best: tuple[int, tuple[int, str], str] | None = None
    for filename in filenames:
        try:
            _, _, build, tags = parse_wheel_filename(filename)
        except InvalidWheelFilename:
            continue
        fitting = [ranks[str(tag)] for tag in tags if str(tag) in ranks]
        if not fitting:
            continue
        number = (build[0], build[1]) if build else (0, "")
        candidate = (-min(fitting), number, filename)
        if best is None or candidate > best:
            best = candidate
    return best[2] if best else None


def platforms(platform: str, glibc: str) -> list[str]:
    """Return the platform tags that a Conda platform with a glibc supports, the newest glibc first."""
    architecture = machine(platform)
    major, minor = (int(part) for part in glibc.split(".")[:2])
    tags: list[str] = []
    oldest = 5 if architecture in {"x86_64", "i686"} else 17
    for number in range(minor, oldest - 1, -1):
        tags.append(f"manylinux_{major}_{number}_{architecture}")
        if (major, number) in _LEGACY:
            tags.append(f"{_LEGACY[major, number]}_{architecture}")
    return [*tags, f"linux_{architecture}"]


@functools.lru_cache(maxsize=8)
def _ranks(python_version: str, platform: str, glibc: str) -> dict[str, int]:
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = (int(part) for part in python_version.split(".")[:2])
    names = platforms(platform, glibc)
    specific = cpython_tags((major, minor), abis=[f"cp{major}{minor}"], platforms=names)
    general = compatible_tags((major, minor), interpreter=f"cp{major}{minor}", platforms=names)
    ranks: dict[str, int] = {}
    for rank, tag in enumerate([*specific, *general]):
        ranks.setdefault(str(tag), rank)
    return ranks
