"""``himl-container version``."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from himl_container import __version__
from himl_container.cli.options import output_options
from himl_container.cli.output import Output

_USED = ("py-rattler", "uv", "docker", "packaging")


@click.command()
@output_options
def command(output: Output) -> None:
    """Print the versions of the tool and of what it uses."""
    found = {"himl-container": __version__, "python": platform.python_version()}
    found.update({name: _version(name) for name in _USED})
    output.result({"versions": found}, "\n".join(f"{name} {number}" for name, number in found.items()))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
