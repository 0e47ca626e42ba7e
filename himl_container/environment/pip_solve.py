"""The pip part of a lock: ``uv pip compile`` for the image's Python and platform, given what Conda installed.

Three kinds of runs, none of which executes a line of any package on this machine:

1. wheels only; nearly always the last one;
2. where that fails for want of wheels, a *probe*: with source distributions, whose dependencies are taken as none, to
   learn which releases have to be built;
3. after those were built to wheels in a container, wheels only again, with the built ones among them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment.conda_names import normalised
from himl_container.environment.model import LockedWheel
from himl_container.environment.pip_result import BuiltWheel, Sdist, locked_wheels
from himl_container.environment.pip_run import PipRequest, Resolution, origins, resolve
from himl_container.environment.wheel import check_tags
from himl_container.errors import InputError, UnsolvableError
from himl_container.progress import Reporter

Build = Callable[[Sdist], tuple[Path, tuple[str, ...]]]
"""Builds a source distribution in a container; returns the wheel and what it was built with, pinned."""

_ROUNDS = 50
"""A bound on the runs, each of which builds or names a further source distribution."""


def solve_pip(request: PipRequest, *, build: Build, cache: Cache, reporter: Reporter) -> tuple[LockedWheel, ...]:
    """Return the wheels of an environment, sorted by name, private ones too.

    :raises UnsolvableError: no set of packages fits; the error carries the solver's reason.
    :raises ArtifactError: an index cannot be read.
    :raises InputError: a private wheel is for another platform or Python, or is also a Conda package; or a requirement
        is a repository.
    :raises BuildError: a source distribution cannot be built.
    """
    if not request.spec.pip and not request.spec.wheels:
        return ()
    _check_private(request)
    subject = f"{len(request.spec.pip)} pip requirements, {len(request.spec.wheels)} private wheels"
    with reporter.step("solve", subject), cache.new_folder() as folder:
        return _Solver(request, build, cache, reporter, folder).solve()


class _Solver:
    """The runs of one solve; ``folder`` collects the built wheels."""

    def __init__(self, request: PipRequest, build: Build, cache: Cache, reporter: Reporter, folder: Path) -> None:
        self._request = request
        self._build = build
        self._cache = cache
        self._reporter = reporter
        self._folder = folder
        self._built: dict[str, BuiltWheel] = {}

    def solve(self) -> tuple[LockedWheel, ...]:
        for _ in range(_ROUNDS):
            resolution = self._resolve()
            if not resolution.reason:
                wheels, sdists = locked_wheels(resolution.packages, self._request, self._built)
                if not sdists:
                    self._warn(resolution)
                    return wheels
            else:
                sdists = self._probe(resolution)
            if not self._build_all(sdists):
                raise self._unsolvable(resolution)
        raise UnsolvableError("the pip requirements need too many builds", where=origins(self._request))

    def _resolve(self) -> Resolution:
        return resolve(self._request, cache=self._cache, built=self._folder if self._built else None)

    def _probe(self, failed: Resolution) -> tuple[Sdist, ...]:
        """Return the source distributions to build; none where the lack of wheels is not the reason."""
        names: set[str] = set()
        for _ in range(_ROUNDS):
            found = resolve(self._request, cache=self._cache, built=self._folder if self._built else None, probed=names)
            if not found.reason:
                _, sdists = locked_wheels(found.packages, self._request, self._built)
                wanted = {normalised(name) for name in failed.wants_wheels}
                # What has older releases with wheels gets one of those; only what has none is built.
                return tuple(sdist for sdist in sdists if sdist.name in wanted) or sdists
            if not found.wants_build or normalised(found.wants_build) in names:
                raise self._unsolvable(found)
            names.add(normalised(found.wants_build))
        raise self._unsolvable(failed)

    def _build_all(self, sdists: tuple[Sdist, ...]) -> bool:
        """Build what has not been built; whether there was anything."""
        known = {(wheel.sdist.name, wheel.sdist.version) for wheel in self._built.values()}
        new = [sdist for sdist in sdists if (sdist.name, sdist.version) not in known]
        for sdist in new:
            wheel, requires = self._build(sdist)
            content = wheel.read_bytes()
            shutil.copyfile(wheel, self._folder / wheel.name)
            digest = hashlib.sha256(content).hexdigest()
            self._built[wheel.name] = BuiltWheel(sdist, wheel.name, digest, len(content), requires)
        return bool(new)

    def _warn(self, resolution: Resolution) -> None:
        for text in resolution.warnings:
            self._reporter.warn(text)

    def _unsolvable(self, resolution: Resolution) -> UnsolvableError:
        given = [
            f"{name} {version}"
            for name, version in self._request.provided.items()
            if _mentions(resolution.reason, name)
        ]
        note = f"\nInstalled by Conda: {', '.join(given)}." if given else ""
        hint = (
            "Change the pip requirement, or the Conda package of the same name."
            if given
            else "Loosen one of the requirements named above."
        )
        return UnsolvableError(
            f"the pip requirements cannot be installed together:\n{resolution.reason}{note}",
            where=origins(self._request),
            hint=hint,
        )


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text) is not None


def _check_private(request: PipRequest) -> None:
    for wheel in request.spec.wheels:
        # uv takes a file that is named outright whatever its platform is.
        check_tags(wheel.filename, request.python_version, request.platform, request.glibc, where=str(wheel.path))
        if wheel.name in request.provided:
            raise InputError(
                f"{wheel.name} is a private wheel and also a Conda package ({request.provided[wheel.name]})",
                where=str(wheel.origin),
                hint="Remove one of them; if the Conda package is another thing, say so with 'pypi-names'.",
            )
