"""What environment files say, merged, without what settings add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from himl_container.environment import merge
from himl_container.environment.model import CondaDependency, EnvironmentSpec
from himl_container.environment.read import EnvironmentFile, read_environment
from himl_container.environment.requirements import PipInput, read_pip
from himl_container.environment.urls import strip_credentials
from himl_container.settings import Settings

DEFAULT_CHANNEL = "conda-forge"


def read_written(settings: Settings, environ: Mapping[str, str]) -> EnvironmentSpec:
    """Return what the settings' environment files declare: no wheels, and the files' own indexes alone.

    The main index is left out where the settings name one, because theirs wins.

    :param environ: variables for ``${NAME}`` in URLs.
    :raises InputError: something in one of the files is wrong or contradictory.
    """
    files = [read_environment(path, platform=settings.platform, environ=environ) for path in settings.conda_files]
    pip = PipInput()
    for file in files:
        pip += read_pip(file.pip, folder=file.path.parent, environ=environ)
    dependencies = merge.merge_conda(files)
    channels, warnings = _channels(files, dependencies)
    pip_without = PipInput(extra=pip.extra, find_links=pip.find_links) if settings.pip_index_url else pip
    return EnvironmentSpec(
        name=merge.merge_names(files),
        channels=channels,
        dependencies=dependencies,
        pip=merge.merge_pip(pip.requirements),
        indexes=merge.merge_indexes(pip_without, index="", private=()),
        variables=merge.merge_variables(files),
        constraints=merge.merge_pip(pip.constraints),
        files=tuple(dict.fromkeys((*settings.conda_files, *pip.files))),
        warnings=(*(text for file in files for text in file.warnings), *warnings),
    )


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
