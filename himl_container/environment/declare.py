"""Everything that a user declared about the environment, as one value: files, settings, private wheels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from himl_container.environment import merge
from himl_container.environment.model import CondaDependency, EnvironmentSpec, Origin, PrivateWheel
from himl_container.environment.read import EnvironmentFile, read_environment
from himl_container.environment.requirements import PipInput, read_pip
from himl_container.environment.urls import strip_credentials
from himl_container.environment.wheel import inspect_wheel
from himl_container.errors import InputError
from himl_container.progress import Reporter, SilentReporter
from himl_container.settings import ENVIRONMENT_FILE_NAME, Settings

DEFAULT_CHANNEL = "conda-forge"


def load_environment(
    settings: Settings, reporter: Reporter | None = None, *, environ: Mapping[str, str] | None = None
) -> EnvironmentSpec:
    """Return the merged declaration of all environment files, indexes and wheels of the settings.

    Warnings go to the reporter, and are kept in the result for callers without one.

    :param environ: variables for ``${NAME}`` in URLs; the process's own by default.
    :raises InputError: there is no environment file, or something in one of them is wrong or contradictory.
    """
    environ = os.environ if environ is None else environ
    reporter = reporter or SilentReporter()
    if not settings.conda_files:
        hint = "Write one, or name it with --conda-file or conda-files in [tool.himl-container]."
        raise InputError(
            f"there is no {ENVIRONMENT_FILE_NAME} here or in a folder above", where=str(Path.cwd()), hint=hint
        )
    files = [read_environment(path, platform=settings.platform, environ=environ) for path in settings.conda_files]
    pip = PipInput()
    for file in files:
        pip += read_pip(file.pip, folder=file.path.parent, environ=environ)
    dependencies = merge.merge_conda(files)
    channels, warnings = _channels(files, dependencies)
    spec = EnvironmentSpec(
        name=merge.merge_names(files),
        channels=channels,
        dependencies=dependencies,
        pip=merge.merge_pip(pip.requirements),
        indexes=merge.merge_indexes(pip, index=settings.pip_index_url, private=settings.pip_extra_index_urls),
        variables=merge.merge_variables(files),
        wheels=_wheels(settings.wheels),
        constraints=merge.merge_pip(pip.constraints),
        files=tuple(dict.fromkeys((*settings.conda_files, *pip.files))),
        warnings=(*settings.warnings, *(text for file in files for text in file.warnings), *warnings),
    )
    _check_private(spec)
    for text in spec.warnings:
        reporter.warn(text)
    return spec


def _channels(
    files: Sequence[EnvironmentFile], dependencies: Sequence[CondaDependency]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the channels of the files, then those that only a ``channel::package`` names, and warnings."""
    named = [spec.spec.split("::", 1)[0] for spec in dependencies if "::" in spec.spec]
    listed = merge.merge_channels(files)
    known = {strip_credentials(channel)[0] for channel in listed}
    further = [name for name in dict.fromkeys(_without_subdir(name) for name in named) if name not in known]
    if listed:
        return (*listed, *further), ()
    text = f"{files[0].path}: no channel is named; {DEFAULT_CHANNEL} is used"
    return tuple(dict.fromkeys((DEFAULT_CHANNEL, *further))), (text,)


def _without_subdir(name: str) -> str:
    head, slash, last = name.rstrip("/").rpartition("/")
    return head if slash and (last == "noarch" or last.startswith("linux-")) else name.rstrip("/")


def _wheels(paths: Sequence[Path]) -> tuple[PrivateWheel, ...]:
    """Return the private wheels, sorted by name.

    :raises InputError: one is not fit, or two are of one distribution.
    """
    found: dict[str, PrivateWheel] = {}
    for path in dict.fromkeys(paths):
        wheel = inspect_wheel(path, origin=Origin("--wheel"))
        other = found.setdefault(wheel.name, wheel)
        if other is not wheel and other.sha256 != wheel.sha256:
            raise InputError(f"is a second wheel of {wheel.name}; the first is {other.path}", where=str(path))
    return tuple(found[name] for name in sorted(found))


def _check_private(spec: EnvironmentSpec) -> None:
    """Check that the requirements on a private wheel's distribution accept its version."""
    from packaging.requirements import Requirement

    wheels = {wheel.name: wheel for wheel in spec.wheels}
    for requirement in (*spec.pip, *spec.constraints):
        wheel = wheels.get(requirement.name)
        if wheel is None:
            continue
        parsed = Requirement(requirement.text)
        if parsed.url is not None or not parsed.specifier.contains(wheel.version, prereleases=True):
            what = f"{requirement.text!r} does not accept the private wheel {wheel.filename}"
            raise InputError(what, where=str(requirement.origin), hint="Change the one or leave out the other.")
