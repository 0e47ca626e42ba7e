"""The options that commands share, and what becomes of them: a command gets ``settings`` and ``output``, ready made.

::

    @click.command()
    @environment_options
    @output_options
    def command(settings: Settings, output: Output) -> None: ...
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from himl_container.cli.output import MODES, make_output
from himl_container.settings import load_settings

Command = Callable[..., Any]

_PATH = click.Path(path_type=Path)
_CACHE = (click.option("--cache-dir", type=_PATH, help="Folder of layers, wheels and records."),)
_ENVIRONMENT = (
    click.option("--conda-file", "conda_files", type=_PATH, multiple=True, help="Conda environment file. Repeatable."),
    click.option("--wheel", "wheels", type=_PATH, multiple=True, help="Private wheel. Repeatable."),
    click.option("--pip-index-url", metavar="URL", help="Main package index."),
    click.option(
        "--pip-extra-index-url", metavar="URL", multiple=True, help="Private index, searched first. Repeatable."
    ),
    click.option(
        "--channel-mirror",
        "channel_mirrors",
        metavar="NAME=URL",
        multiple=True,
        help="Where a Conda channel is served. Repeatable.",
    ),
    click.option("--lock-file", type=_PATH, help="The lock. Default: pylock.himl.toml beside the environment file."),
    click.option("--base-image", metavar="IMAGE", help="Base image, repository[:tag][@digest]."),
    click.option("--cuda", metavar="VERSION", help="CUDA version of the base, such as 12.4."),
    click.option("--platform", metavar="SUBDIR", help="Conda platform of the image. Default: linux-64."),
    click.option("--image-name", metavar="NAME", help="Repository name of the image."),
    click.option("--registry", metavar="HOST[/PATH]", help="Registry that images are pushed to and looked up in."),
    *_CACHE,
)
_OUTPUT = (
    click.option("--quiet", "-q", is_flag=True, help="Print warnings, errors and results only."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON lines."),
    click.option("--progress", type=click.Choice(MODES), default="auto", help="How progress is shown."),
)


def environment_options(function: Command) -> Command:
    """Add the options of the environment; the command gets ``settings`` (Settings) in their place.

    :raises InputError: (when the command runs) as :func:`himl_container.settings.load_settings`.
    """
    return _settings_from(function, _ENVIRONMENT)


def cache_options(function: Command) -> Command:
    """Add ``--cache-dir`` alone; the command gets ``settings``, for its cache folder."""
    return _settings_from(function, _CACHE)


def output_options(function: Command) -> Command:
    """Add ``--quiet``, ``--json`` and ``--progress``; the command gets ``output`` (Output) in their place."""

    @functools.wraps(function)
    def call(*args: Any, quiet: bool, as_json: bool, progress: str, **rest: Any) -> Any:
        output = make_output(as_json=as_json, quiet=quiet, progress=progress)
        # main() prints an error in the form that was asked for.
        click.get_current_context().find_root().obj = output
        return function(*args, output=output, **rest)

    return _with(call, _OUTPUT)


def _bind_registry_login(registry: str) -> None:
    """Say which registry the user and password of the environment belong to, where the user has left it to us.

    Every connection to a registry reads the login from the environment
    (:mod:`himl_container.registry.credentials`), and not every one is to the project's own registry.
    """
    given = os.environ.get("HIML_CONTAINER_REGISTRY_USER") or os.environ.get("HIML_CONTAINER_REGISTRY_PASSWORD")
    if given and registry and not os.environ.get("HIML_CONTAINER_REGISTRY_HOST"):
        os.environ["HIML_CONTAINER_REGISTRY_HOST"] = registry.partition("/")[0]


def _settings_from(function: Command, options: tuple[Callable[[Any], Any], ...]) -> Command:
    names = _names(options)

    @functools.wraps(function)
    def call(*args: Any, **values: Any) -> Any:
        flags = {name: values.pop(name) for name in names}
        if values.get("as_json"):
            # A mistake in the settings is found before the command makes its output, and is told as JSON all the same.
            click.get_current_context().find_root().obj = make_output(as_json=True)
        settings = load_settings(flags, cwd=Path.cwd(), environ=os.environ)
        _bind_registry_login(settings.remote_name)
        return function(*args, settings=settings, **values)

    return _with(call, options)


def _names(options: tuple[Callable[[Any], Any], ...]) -> tuple[str, ...]:
    """Return the parameter names of options, as click derives them."""

    def probe() -> None: ...

    for option in options:
        option(probe)
    return tuple(parameter.name for parameter in probe.__click_params__)  # type: ignore[attr-defined]


def _with(function: Command, options: tuple[Callable[[Any], Any], ...]) -> Command:
    for option in reversed(options):
        function = option(function)
    return function
