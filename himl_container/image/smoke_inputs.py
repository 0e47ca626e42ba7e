"""Which Conda packages of a lock any import may depend on, and what counts of the others.

All of it follows from the packages alone, so it is worked out once for a lock's packages and kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from himl_container.cache import Cache
from himl_container.environment.model import Lock, LockedConda
from himl_container.image.clobber import Paths, lock_key, package_paths
from himl_container.image.plan import dependency_name, needs_python
from himl_container.progress import SilentReporter
from himl_container.settings import Settings

_FORMAT = 2
_PROGRAMS = ("bin/", "sbin/", "libexec/")


class Inputs(NamedTuple):
    """What imports depend on among Conda packages.

    :param contested: whether packages disagree about a file.
    :param python: names of the packages that any import may depend on.
    :param others: digest of each other package with what it depends on.
    :param code: sha256 (hex) of the names of the other packages' programs and libraries.
    :param modules: names of the packages that have files in ``site-packages``.
    """

    contested: bool
    python: frozenset[str]
    others: dict[str, str]
    code: str
    modules: frozenset[str]


def inputs_of_imports(lock: Lock, settings: Settings, cache: Cache) -> Inputs | None:
    """Return what imports depend on; None where that cannot be told without fetching a package."""
    depends = [[package.depends, package.noarch] for package in lock.conda]
    place = ("memo", "import-inputs", f"{_digest([_FORMAT, lock_key(lock), depends])}.json")
    known = cache.read_json(*place)
    try:
        return Inputs(
            known["contested"],
            frozenset(known["python"]),
            dict(known["others"]),
            known["code"],
            frozenset(known["modules"]),
        )
    except (KeyError, TypeError, ValueError):
        pass
    paths = _paths(lock, settings, cache)
    if paths is None:
        return None
    contested = _contested(lock, paths)
    python = _of_python(lock, paths, contested)
    others = {package.name: digest for package, digest in _with_dependencies(lock) if package.name not in python}
    found = Inputs(
        contested=bool(contested),
        python=frozenset(python),
        others=others,
        code=_digest(sorted({path for name in others for path in paths[name] if _is_code(path)})),
        modules=frozenset(name for name, own in paths.items() if any("site-packages/" in path for path in own)),
    )
    cache.write_json({**found._asdict(), "python": sorted(found.python), "modules": sorted(found.modules)}, *place)
    return found


def owners_of_paths(lock: Lock, settings: Settings, cache: Cache) -> dict[str, str]:
    """Return the package of each path (relative to the prefix): of several the last, whose file it is."""
    paths = _paths(lock, settings, cache) or {}
    return {path: package.name for package in lock.conda for path in paths.get(package.name, ())}


def _paths(lock: Lock, settings: Settings, cache: Cache) -> Mapping[str, Paths] | None:
    try:
        return package_paths(lock, cache=_Kept(cache.root), settings=settings, reporter=SilentReporter())
    except _UnknownError:
        return None


def _contested(lock: Lock, paths: Mapping[str, Paths]) -> set[str]:
    """Return the names of the packages that have other contents for a path than another package."""
    first: dict[str, str] = {}
    found = set()
    for package in lock.conda:
        for path, content in paths[package.name].items():
            other = first.setdefault(path, package.name)
            if paths[other][path] != content:
                found |= {package.name, other}
    return found


def _of_python(lock: Lock, paths: Mapping[str, Paths], contested: set[str]) -> set[str]:
    """Return the names of the packages that any import may depend on."""
    by_name = {package.name: package for package in lock.conda}
    roots = {package.name for package in lock.conda if needs_python(package)}
    roots |= {name for name in by_name if any(path.startswith("lib/python") for path in paths[name])} | contested
    return {name for root in roots for name in _closure(root, by_name)}


def _closure(root: str, by_name: Mapping[str, LockedConda]) -> set[str]:
    """Return the names of a package and all that it depends on."""
    found, waiting = {root}, [root]
    while waiting:
        names = {dependency_name(text) for text in by_name[waiting.pop()].depends}
        new = (names & by_name.keys()) - found  # virtual packages (__glibc) are in no lock
        found |= new
        waiting += new
    return found


def _with_dependencies(lock: Lock) -> Iterator[tuple[LockedConda, str]]:
    by_name = {package.name: package for package in lock.conda}
    for package in lock.conda:
        yield package, _digest(sorted(by_name[name].sha256 for name in _closure(package.name, by_name)))


def _is_code(path: str) -> bool:
    return path.startswith(_PROGRAMS) or ".so" in path.rpartition("/")[2]


class _UnknownError(Exception):
    """A package's paths are not in the cache."""


class _Kept(Cache):
    """A cache that only tells what it has, so that nothing is fetched for a test."""

    def folder(self, *parts: str) -> Path:
        raise _UnknownError


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
