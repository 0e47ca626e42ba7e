"""Paths that several Conda packages bring, and link scripts: what must be known of packages to plan layers.

Each package's paths are kept by its hash, so a package is looked into once; what follows for all packages of a lock is
kept too, because together the paths are megabytes. A path with different contents goes to the package that comes later
in the lock's order (a package comes after its dependencies), whatever layer each is in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from himl_container.cache import Cache
from himl_container.environment.model import Lock, LockedConda
from himl_container.errors import BuildError
from himl_container.image.layout import StagedPackage, link_scripts
from himl_container.image.plan import python_of
from himl_container.image.staging import Staging
from himl_container.progress import Reporter, SilentReporter
from himl_container.settings import Settings

_FORMAT = "himl-paths-1"
_SHOWN = 3

Paths = Mapping[str, str]
"""A package's paths (relative to the prefix) and what tells their contents apart."""


def excluded_paths(
    lock: Lock, *, cache: Cache, settings: Settings, reporter: Reporter, fetch: bool = True
) -> dict[str, tuple[str, ...]]:
    """Return, per package, the paths that it loses to another package; paths with different contents are told.

    :param fetch: fetch the packages that are not known yet; without, they are taken to share no path, and nothing is
        told before all are known.
    :raises BuildError: a package has a post-link script that the settings do not allow to leave out.
    :raises ArtifactError: a package cannot be fetched, or is not the one that the lock names.
    """
    place = ("memo", "clashes", f"{lock_key(lock)}.json")
    found = cache.read_json(*place)
    if not (isinstance(found, dict) and found.keys() == {"scripts", "clashes"}):
        if fetch:
            known = package_paths(lock, cache=cache, settings=settings, reporter=reporter)
        else:
            known = _remembered(lock, cache)
        found = {"scripts": _link_scripts(lock.conda, known), "clashes": _clashes(lock, known)}
        if len(known) == len(lock.conda):
            cache.write_json(found, *place)
        else:
            reporter = SilentReporter()
    _refuse(lock.conda, found["scripts"], settings)
    lost: dict[str, set[str]] = {}
    for loser, winner, paths in found["clashes"]:
        reporter.warn(f"{_listed(paths)}: {loser} and {winner} have different contents; {winner}'s is used")
        lost.setdefault(loser, set()).update(paths)
    return {name: tuple(sorted(paths)) for name, paths in sorted(lost.items())}


def _clashes(lock: Lock, known: Mapping[str, Paths]) -> list[tuple[str, str, list[str]]]:
    """Return the loser, the winner and the paths of each pair of packages that have different contents for a path."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for path, names in sorted(_shared(lock, known).items()):
        winner = names[-1]
        for name in names[:-1]:
            if known[name][path] != known[winner][path]:
                pairs.setdefault((name, winner), []).append(path)
    return [(loser, winner, paths) for (loser, winner), paths in sorted(pairs.items())]


def all_known(lock: Lock, cache: Cache) -> bool:
    """Whether the paths of every package of a lock are known."""
    python = python_of(lock.conda)
    return all(cache.has("memo", "paths", f"{memo_key(package, python)}.json") for package in lock.conda)


def _shared(lock: Lock, known: Mapping[str, Paths]) -> dict[str, list[str]]:
    """Return the paths that several packages have, with these packages in the lock's order."""
    first: dict[str, str] = {}
    shared: dict[str, list[str]] = {}
    for package in lock.conda:
        for path in known.get(package.name, {}):
            other = first.setdefault(path, package.name)
            if other != package.name:
                shared.setdefault(path, [other]).append(package.name)
    return shared


def package_paths(lock: Lock, *, cache: Cache, settings: Settings, reporter: Reporter) -> dict[str, Paths]:
    """Return the paths of every Conda package of a lock, by the package's name."""
    known = _remembered(lock, cache)
    unknown = [package for package in lock.conda if package.name not in known]
    if unknown:
        with (
            cache.new_folder() as folder,
            Staging(
                [unknown], folder, conda=lock.conda, mirrors=settings.channel_mirrors, reporter=reporter
            ) as staging,
        ):
            for staged in staging.packages(unknown).values():
                known[staged.package.name] = remember_paths(staged, lock, cache=cache)
    return known


def remember_paths(staged: StagedPackage, lock: Lock, *, cache: Cache) -> Paths:
    """Keep the paths of a package that was laid out, and return them."""
    paths = _contents(staged)
    cache.write_json(paths, "memo", "paths", f"{memo_key(staged.package, python_of(lock.conda))}.json")
    return paths


def _remembered(lock: Lock, cache: Cache) -> dict[str, Paths]:
    python = python_of(lock.conda)
    known: dict[str, Paths] = {}
    for package in lock.conda:
        value = cache.read_json("memo", "paths", f"{memo_key(package, python)}.json")
        if isinstance(value, dict):
            known[package.name] = value
    return known


def memo_key(package: LockedConda, python: LockedConda | None) -> str:
    """Noarch Python packages lie where the interpreter looks for them; the others are the same everywhere."""
    place = [python.version, python.python_site_packages_path] if python and package.noarch == "python" else []
    return hashlib.sha256("\n".join([_FORMAT, package.sha256, *place]).encode()).hexdigest()


def lock_key(lock: Lock) -> str:
    """Return what tells apart what is known of all Conda packages of a lock together; their order counts."""
    python = python_of(lock.conda)
    packages = [f"{package.name} {memo_key(package, python)}" for package in lock.conda]
    return hashlib.sha256("\n".join([_FORMAT, *packages]).encode()).hexdigest()


def _contents(staged: StagedPackage) -> dict[str, str]:
    contents = {}
    for path in staged.paths:
        if path.facts.get("path_type") == "directory":
            continue
        target = f"-> {path.source.readlink()}" if path.source.is_symlink() else ""
        contents[path.path] = target or path.sha256[:32] or staged.package.sha256
    return contents


def refuse_link_scripts(packages: Iterable[LockedConda], known: Mapping[str, Paths], settings: Settings) -> None:
    """Raise BuildError where an installer would run a script of a package, unless the settings say otherwise."""
    _refuse(packages, _link_scripts(packages, known), settings)


def _link_scripts(packages: Iterable[LockedConda], known: Mapping[str, Paths]) -> list[tuple[str, str]]:
    """Return the packages that have a script, by name, each with the script's path."""
    return [(one.name, script) for one in packages for script in link_scripts(one, known.get(one.name, ()))]


def _refuse(packages: Iterable[LockedConda], scripts: Iterable[tuple[str, str]], settings: Settings) -> None:
    found = [(name, script) for name, script in scripts if name not in settings.skip_post_link]
    if found:
        first, script = found[0]
        names = ", ".join(f'"{name}"' for name in sorted({name for name, _ in found}))
        raise BuildError(
            f"the package has a script that would run when it is installed ({script}); layers are laid out without "
            "running anything",
            where=next(package.filename for package in packages if package.name == first),
            hint=f"If the environment works without it, say so in the settings: skip-post-link = [{names}]",
        )


def _listed(paths: list[str]) -> str:
    more = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
