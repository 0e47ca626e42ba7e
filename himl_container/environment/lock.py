"""Locking: what has to be solved again is solved, everything else stays as it was.

::

    Declared (of today) == Declared (in the lock)  -> the lock is current, nothing is asked of anybody
    else   base changed?                            -> ask for the image's digest
           channels, Conda specs, machine changed?  -> Conda's solver, preferring what was locked
           pip inputs, or what Conda brings changed -> pip's solver, preferring what was locked
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from himl_container.cache import Cache
from himl_container.environment.declared import declared, differences
from himl_container.environment.lockfile import read_lock
from himl_container.environment.model import (
    BasePin,
    Declared,
    EnvironmentSpec,
    Lock,
    LockedConda,
    LockedWheel,
    PipIndexes,
)
from himl_container.environment.virtual_packages import virtual_packages
from himl_container.errors import InputError
from himl_container.progress import Reporter
from himl_container.settings import Settings


@dataclass(frozen=True)
class BuildWorld:
    """Where a source distribution is built: the environment that the wheel is for.

    :param conda: the environment's Conda packages, in topological order.
    :param python_version: of its interpreter, full.
    :param glibc: the C library version that a build requirement may need.
    :param indexes: where build requirements come from.
    """

    base: BasePin
    conda: tuple[LockedConda, ...]
    python_version: str
    platform: str
    glibc: str
    indexes: PipIndexes


@dataclass(frozen=True)
class Built:
    """A built wheel.

    :param path: where it is kept.
    :param requires: what it was built with, pinned (``setuptools==80.9.0``).
    """

    path: Path
    requires: tuple[str, ...] = ()


class WheelBuilder(Protocol):
    """Builds a source distribution into a wheel, in a container of the base image."""

    def build(self, sdist: Path, *, name: str, version: str, sha256: str, world: BuildWorld) -> Built:
        """Return the wheel of a source distribution; the same input gives the same bytes.

        :param sha256: of the source distribution, which was checked.
        :raises BuildError: it cannot be built; the error carries the end of the build's output.
        """


def check(spec: EnvironmentSpec, lock_path: Path, settings: Settings, *, cache: Cache | None = None) -> tuple[str, ...]:
    """Return why a lock is not current for an environment, one sentence each; empty when it is.

    :param cache: see :func:`himl_container.environment.lockfile.read_lock`.
    :raises InputError: the lock is damaged.
    """
    return compare(spec, lock_path, settings, cache=cache)[1]


def compare(
    spec: EnvironmentSpec, lock_path: Path, settings: Settings, *, cache: Cache | None = None
) -> tuple[Lock | None, tuple[str, ...]]:
    """Return the lock, or None where there is none, and what :func:`check` says of it.

    :param cache: see :func:`himl_container.environment.lockfile.read_lock`.
    :raises InputError: the lock is damaged.
    """
    if not lock_path.is_file():
        return None, ("there is no lock",)
    lock = read_lock(lock_path, cache)
    return lock, differences(lock.declared, declared_by(spec, settings))


def declared_by(spec: EnvironmentSpec, settings: Settings) -> Declared:
    """Return what a lock of this environment under these settings would be made from."""
    return declared(
        spec,
        base=settings.base_image,
        platform=settings.platform,
        virtual_packages=virtual_packages(settings),
        pypi_names=settings.pypi_names,
    )


def make_lock(
    spec: EnvironmentSpec,
    settings: Settings,
    *,
    previous: Lock | None,
    upgrade: frozenset[str] | None,
    resolve_base: Callable[[str], BasePin],
    build_wheel: WheelBuilder,
    cache: Cache,
    reporter: Reporter,
) -> Lock:
    """Return the lock of an environment; ``previous`` itself where it is current and nothing is to move.

    :param previous: the last lock, whose packages are kept where they still fit.
    :param upgrade: None to move nothing on purpose, names of packages to move, or an empty set to move all of them. The
        base image is not moved by this.
    :param resolve_base: asks for the exact image behind a reference.
    :raises UnsolvableError: no set of packages satisfies the environment.
    :raises InputError: ``upgrade`` names a package that is not in the lock.
    """
    new = declared_by(spec, settings)
    if previous is not None and upgrade is None and previous.declared == new:
        return previous
    change = _Change(previous, new, _normalised(upgrade, previous))
    base = previous.base if previous and not change.base else resolve_base(settings.base_image)
    conda = _conda(spec, settings, new, change, reporter) if change.conda else change.old_conda
    python_version = next(record.version for record in conda if record.name == "python")
    wheels = change.old_wheels
    if change.pip(conda, settings):
        world = BuildWorld(base, conda, python_version, settings.platform, settings.glibc, spec.indexes)
        wheels = _pip(spec, settings, world, change, builder=build_wheel, cache=cache, reporter=reporter)
    return Lock(
        platform=settings.platform,
        python_version=python_version,
        base=base,
        virtual_packages=new.virtual_packages,
        variables=tuple(sorted(spec.variables)),
        declared=new,
        conda=conda,
        wheels=wheels,
    )


class _Change:
    """What differs between the last lock and today's inputs, and what of the last lock is kept."""

    def __init__(self, previous: Lock | None, new: Declared, upgrade: frozenset[str] | None) -> None:
        self.old_conda: tuple[LockedConda, ...] = previous.conda if previous else ()
        self.old_wheels: tuple[LockedWheel, ...] = previous.wheels if previous else ()
        self._previous = previous
        self._new = new
        self._upgrade = upgrade
        self.base = self._any("base", "platform")
        self.channels = self._any("channels")
        self.conda = self._any("channels", "conda", "platform", "virtual_packages") or self._moves(
            record.name for record in self.old_conda
        )

    def pip(self, conda: tuple[LockedConda, ...], settings: Settings) -> bool:
        """Whether the pip part has to be solved again, given the Conda part."""
        inputs = ("pip", "constraints", "indexes", "wheels", "platform", "virtual_packages", "pypi_names")
        if self._any(*inputs) or self._moves(wheel.name for wheel in self.old_wheels):
            return True
        return _given(conda, settings) != _given(self.old_conda, settings)

    def kept_conda(self) -> tuple[LockedConda, ...]:
        """The Conda packages that are to stay where they still fit."""
        return tuple(record for record in self.old_conda if not self._is_moved(record.name))

    def kept_wheels(self) -> tuple[LockedWheel, ...]:
        """The wheels that are to stay where they still fit."""
        return tuple(wheel for wheel in self.old_wheels if not self._is_moved(wheel.name))

    def _any(self, *attributes: str) -> bool:
        if self._previous is None:
            return True
        old = self._previous.declared
        return any(getattr(old, attribute) != getattr(self._new, attribute) for attribute in attributes)

    def _moves(self, names: Iterable[str]) -> bool:
        return any(self._is_moved(name) for name in names)

    def _is_moved(self, name: str) -> bool:
        return self._upgrade is not None and (not self._upgrade or _normalised_name(name) in self._upgrade)


def _given(conda: tuple[LockedConda, ...], settings: Settings) -> tuple[str, dict[str, str]]:
    """Return what pip's solver takes from Conda: the Python version and the distributions."""
    from himl_container.environment.conda_names import provided

    python = next((record.version for record in conda if record.name == "python"), "")
    return python, provided(conda, settings.pypi_names)


def _normalised(upgrade: frozenset[str] | None, previous: Lock | None) -> frozenset[str] | None:
    """Return the names to move in one spelling, each of which is in the lock."""
    if not upgrade or previous is None:
        return upgrade
    names = [record.name for record in previous.conda] + [wheel.name for wheel in previous.wheels]
    locked = set(map(_normalised_name, names))
    for name in sorted(upgrade):
        if _normalised_name(name) not in locked:
            raise InputError(
                f"{name!r} is not in the lock, so it cannot be upgraded",
                where="--upgrade",
                hint="Names of Conda packages and of wheels are in the lock file; without a name, all of them move.",
            )
    return frozenset(map(_normalised_name, upgrade))


def _normalised_name(name: str) -> str:
    from himl_container.environment.conda_names import normalised

    return normalised(name)


def _conda(
    spec: EnvironmentSpec, settings: Settings, new: Declared, change: _Change, reporter: Reporter
) -> tuple[LockedConda, ...]:
    from himl_container.environment.conda_solve import CondaRequest, solve_conda

    request = CondaRequest(
        spec=spec,
        platform=settings.platform,
        virtual_packages=new.virtual_packages,
        mirrors=settings.channel_mirrors,
        previous=change.kept_conda(),
        recheck_channels=change.channels,
    )
    return solve_conda(request, reporter=reporter)


def _pip(
    spec: EnvironmentSpec,
    settings: Settings,
    world: BuildWorld,
    change: _Change,
    *,
    builder: WheelBuilder,
    cache: Cache,
    reporter: Reporter,
) -> tuple[LockedWheel, ...]:
    from himl_container.environment.fetch import fetch
    from himl_container.environment.pip_result import Sdist
    from himl_container.environment.pip_run import PipRequest
    from himl_container.environment.pip_solve import solve_pip
    from himl_container.environment.requirements import check_hashes

    def build(sdist: Sdist) -> tuple[Path, tuple[str, ...]]:
        path = fetch(sdist.url, sdist.sha256, cache=cache, indexes=spec.indexes)
        built = builder.build(path, name=sdist.name, version=sdist.version, sha256=sdist.sha256, world=world)
        return built.path, built.requires

    _, provided = _given(world.conda, settings)
    request = PipRequest(
        spec=spec,
        python_version=world.python_version,
        platform=world.platform,
        glibc=world.glibc,
        provided=provided,
        previous=change.kept_wheels(),
    )
    wheels = solve_pip(request, build=build, cache=cache, reporter=reporter)
    check_hashes((*spec.pip, *spec.constraints), wheels)
    return wheels
