"""Paths that several Conda packages bring, and link scripts: what must be known of packages to plan layers.

Each package's paths are kept by its hash, so a package is looked into once. A path with different contents goes to
the package that comes later in the lock's order (a package comes after its dependencies), whatever layer each is in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from himl_container.cache import Cache
from himl_container.environment.model import Lock, LockedConda
from himl_container.errors import BuildError
from himl_container.image.layout import StagedPackage, link_scripts, stage
from himl_container.image.plan import python_of
from himl_container.progress import Reporter
from himl_container.settings import Settings

_FORMAT = "himl-paths-1"
_SHOWN = 3

Paths = Mapping[str, str]
"""A package's paths (relative to the prefix) and what tells their contents apart."""


def excluded_paths(
    lock: Lock, *, cache: Cache, settings: Settings, reporter: Reporter, fetch: bool = True
) -> dict[str, tuple[str, ...]]:
    """Return, per package, the paths that it loses to another package.

    :param fetch: fetch the packages that are not known yet; without, an unknown package leaves the result empty.
    :raises BuildError: a package has a post-link script that the settings do not allow to leave out.
    :raises ArtifactError: a package cannot be fetched, or is not the one that the lock names.
    """
    if not fetch and not _all_known(lock, cache):
        return {}
    known = package_paths(lock, cache=cache, settings=settings, reporter=reporter)
    _refuse_link_scripts(lock, known, settings)
    first: dict[str, str] = {}
    shared: dict[str, list[str]] = {}
    for package in lock.conda:
        for path in known[package.name]:
            other = first.setdefault(path, package.name)
            if other != package.name:
                shared.setdefault(path, [other]).append(package.name)
    lost: dict[str, list[str]] = {}
    pairs: dict[tuple[str, str], list[str]] = {}
    for path, names in sorted(shared.items()):
        winner = names[-1]
        for name in names[:-1]:
            if known[name][path] != known[winner][path]:
                lost.setdefault(name, []).append(path)
                pairs.setdefault((name, winner), []).append(path)
    for (loser, winner), paths in sorted(pairs.items()):
        reporter.warn(f"{_listed(paths)}: {loser} and {winner} have different contents; {winner}'s is used")
    return {name: tuple(paths) for name, paths in sorted(lost.items())}


def package_paths(lock: Lock, *, cache: Cache, settings: Settings, reporter: Reporter) -> dict[str, Paths]:
    """Return the paths of every Conda package of a lock, by the package's name."""
    python = python_of(lock.conda)
    keys = {package.name: memo_key(package, python) for package in lock.conda}
    known: dict[str, Paths] = {}
    for package in lock.conda:
        value = cache.read_json("memo", "paths", keys[package.name] + ".json")
        if isinstance(value, dict):
            known[package.name] = value
    unknown = [package for package in lock.conda if package.name not in known]
    if unknown:
        with cache.new_folder() as folder:
            staged = stage(
                unknown,
                folder,
                conda=lock.conda,
                mirrors=settings.channel_mirrors,
                reporter=reporter,
            )
            for name, content in staged.items():
                known[name] = _contents(content)
                cache.write_json(known[name], "memo", "paths", keys[name] + ".json")
    return known


def _all_known(lock: Lock, cache: Cache) -> bool:
    python = python_of(lock.conda)
    folder = cache.root / "memo" / "paths"
    return all((folder / f"{memo_key(package, python)}.json").is_file() for package in lock.conda)


def memo_key(package: LockedConda, python: LockedConda | None) -> str:
    """Noarch Python packages lie where the interpreter looks for them; the others are the same everywhere."""
    place = [python.version, python.python_site_packages_path] if python and package.noarch == "python" else []
    return hashlib.sha256("\n".join([_FORMAT, package.sha256, *place]).encode()).hexdigest()


def _contents(staged: StagedPackage) -> dict[str, str]:
    contents = {}
    for path in staged.paths:
        if path.facts.get("path_type") == "directory":
            continue
        target = f"-> {path.source.readlink()}" if path.source.is_symlink() else ""
        contents[path.path] = target or path.sha256[:32] or staged.package.sha256
    return contents


def _refuse_link_scripts(lock: Lock, known: Mapping[str, Paths], settings: Settings) -> None:
    found = [
        (package, script)
        for package in lock.conda
        if package.name not in settings.skip_post_link
        for script in link_scripts(package, known[package.name])
    ]
    if found:
        package, script = found[0]
        names = ", ".join(f'"{name}"' for name in sorted({package.name for package, _ in found}))
        raise BuildError(
            f"the package has a script that would run when it is installed ({script}); layers are laid out without "
            "running anything",
            where=package.filename,
            hint=f"If the environment works without it, say so in the settings: skip-post-link = [{names}]",
        )


def _listed(paths: list[str]) -> str:
    more = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
