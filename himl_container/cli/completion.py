"""``himl-container completion``: the script for a shell.

When somebody presses Tab, it runs ``himl-container`` with a variable set; :mod:`himl_container.cli.main` answers, and
:mod:`himl_container.cli.arguments` says what is offered for files and runs.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from himl_container.cli.main import COMPLETE, cli
from himl_container.errors import InputError

SHELLS = ("bash", "zsh", "fish")

_WHERE = {
    "bash": 'Add to ~/.bashrc:  eval "$(himl-container completion bash)"',
    "zsh": 'Add to ~/.zshrc:  eval "$(himl-container completion zsh)"',
    "fish": "Write it to ~/.config/fish/completions/himl-container.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def command(shell: str | None) -> None:
    """Print the script that lets SHELL (default: the one in use) complete commands, options, files and runs with Tab.

    \b
    bash:  eval "$(himl-container completion bash)"   in ~/.bashrc
    zsh:   eval "$(himl-container completion zsh)"    in ~/.zshrc
    fish:  himl-container completion fish > ~/.config/fish/completions/himl-container.fish
    """  # noqa: D301 - click's mark for lines that are not to be joined
    name = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in SHELLS else None
    if kind is None:
        raise InputError(f"{name!r} is not a shell that can be helped", hint=f"Name one: {', '.join(SHELLS)}.")
    try:
        script = kind(cli, {}, "himl-container", COMPLETE).source()
    except (OSError, RuntimeError) as error:
        # click asks bash for its version, and bash may not be there.
        raise InputError(f"{name} cannot be asked for its version: {error}") from error
    click.echo(f"# {_WHERE[name]}\n{script.strip()}")
