"""Everything that a user declared about the environment, as one value: files, settings, private wheels."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment.model import EnvironmentSpec, Origin, PipIndexes, PrivateWheel
from himl_container.errors import InputError
from himl_container.progress import Reporter, SilentReporter
from himl_container.settings import ENVIRONMENT_FILE_NAME, Settings


def load_environment(
    settings: Settings,
    reporter: Reporter | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cache: Cache | None = None,
) -> EnvironmentSpec:
    """Return the merged declaration of all environment files, indexes and wheels of the settings.

    Warnings go to the reporter, and are kept in the result for callers without one.

    :param environ: variables for ``${NAME}`` in URLs; the process's own by default.
    :param cache: where to keep what was read; files whose bytes it knows are not read again.
    :raises InputError: there is no environment file, or something in one of them is wrong or contradictory.
    """
    environ = os.environ if environ is None else environ
    reporter = reporter or SilentReporter()
    if not settings.conda_files:
        hint = "Write one, or name it with --conda-file or conda-files in [tool.himl-container]."
        raise InputError(
            f"there is no {ENVIRONMENT_FILE_NAME} here or in a folder above", where=str(Path.cwd()), hint=hint
        )
    written = _written(settings, environ, cache)
    indexes = PipIndexes(
        private=tuple(dict.fromkeys((*settings.pip_extra_index_urls, *written.indexes.private))),
        index=settings.pip_index_url or written.indexes.index,
        find_links=written.indexes.find_links,
    )
    spec = replace(
        written,
        indexes=indexes,
        wheels=_wheels(settings.wheels),
        warnings=(*settings.warnings, *written.warnings),
    )
    _check_private(spec)
    for text in spec.warnings:
        reporter.warn(text)
    return spec


def _written(settings: Settings, environ: Mapping[str, str], cache: Cache | None) -> EnvironmentSpec:
    from himl_container.environment.remembered import keep_written, known_written

    known = known_written(settings, cache) if cache else None
    if known is not None:
        return known
    from himl_container.environment.written import read_written

    began = time.time_ns()
    spec = read_written(settings, environ)
    if cache:
        keep_written(spec, settings, cache, began=began)
    return spec


def _wheels(paths: Sequence[Path]) -> tuple[PrivateWheel, ...]:
    """Return the private wheels, sorted by name.

    :raises InputError: one is not fit, or two are of one distribution.
    """
    if not paths:
        return ()
    from himl_container.environment.wheel import inspect_wheel

    found: dict[str, PrivateWheel] = {}
    for path in dict.fromkeys(paths):
        wheel = inspect_wheel(path, origin=Origin("--wheel"))
        other = found.setdefault(wheel.name, wheel)
        if other is not wheel and other.sha256 != wheel.sha256:
            raise InputError(f"is a second wheel of {wheel.name}; the first is {other.path}", where=str(path))
    return tuple(found[name] for name in sorted(found))


def _check_private(spec: EnvironmentSpec) -> None:
    """Check that the requirements on a private wheel's distribution accept its version."""
    wheels = {wheel.name: wheel for wheel in spec.wheels}
    for requirement in (*spec.pip, *spec.constraints):
        wheel = wheels.get(requirement.name)
        if wheel is None:
            continue
        from packaging.requirements import Requirement  # slow to import, and often no requirement names a wheel

        parsed = Requirement(requirement.text)
        if parsed.url is not None or not parsed.specifier.contains(wheel.version, prereleases=True):
            what = f"{requirement.text!r} does not accept the private wheel {wheel.filename}"
            raise InputError(what, where=str(requirement.origin), hint="Change the one or leave out the other.")
