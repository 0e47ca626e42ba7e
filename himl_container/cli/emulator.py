"""``himl-container emulator``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from himl_container.cli.options import output_options

if TYPE_CHECKING:
    from himl_container.cli.output import Output
    from himl_container.emulator.server import Ready

Function = TypeVar("Function", bound=Callable[..., Any])

_FOLDER = "HIML_CONTAINER_EMULATOR_DIR"


def _folder_option(function: Function) -> Function:
    """Add ``--data-dir``, and give the folder to the command as a path."""

    def chosen(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path:
        from himl_container.emulator.folder import default_folder

        return (value or default_folder()).absolute()

    option = click.option(
        "--data-dir",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        envvar=_FOLDER,
        callback=chosen,
        show_envvar=True,
        help="Where the emulator keeps everything. [default: the user's data folder]",
    )
    return option(function)


@click.group()
def command() -> None:
    """An AzureML workspace on this machine, for the unmodified AzureML SDK."""


@command.command("start")
@_folder_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of 127.0.0.1; 0 for any that is free. [default: that of the last start, else 5010]",
)
@click.option("--detach", is_flag=True, help="Return as soon as it answers; 'stop' ends it.")
@output_options
def start(folder: Path, port: int | None, detach: bool, output: Output) -> None:
    """Start the emulator. Without --detach it ends with Ctrl-C."""
    from himl_container.emulator.folder import CONFIG, LOG, last_port

    _need_extra()
    if port is None:
        port = last_port(folder) or 5010
    if detach:
        from himl_container.emulator.lifecycle import start_detached

        _tell(start_detached(folder, port), output)
        return
    from himl_container.emulator.__main__ import log_to
    from himl_container.emulator.config import load_config
    from himl_container.emulator.installation import make_private_folder
    from himl_container.emulator.server import serve
    from himl_container.outside import go_outside

    config = load_config(folder / CONFIG)
    make_private_folder(folder)
    log_to(folder / LOG, terminal=not output.as_json and not output.quiet)
    go_outside()  # where the variables are another emulator's
    serve(folder, config, port, lambda ready: _tell(ready, output))


@command.command("stop")
@_folder_option
@output_options
def stop(folder: Path, output: Output) -> None:
    """Stop the emulator and its jobs. What it has stored stays."""
    from himl_container.emulator import lifecycle

    done = lifecycle.stop(folder)
    text = "No emulator is running." if done.pid is None else "Stopped."
    output.result({"stopped": done.pid is not None, "pid": done.pid, "killed": done.killed}, text)


@command.command("status")
@_folder_option
@output_options
def status(folder: Path, output: Output) -> int:
    """Say whether the emulator is running, and where. The exit code is 1 where it is not."""
    from himl_container.emulator import lifecycle

    running = lifecycle.status(folder)
    if running is None:
        output.result({"running": False, "folder": str(folder)}, f"No emulator is running in {folder}.")
        return 1
    address = f"http://127.0.0.1:{running.port}"
    known = {"pid": running.process.pid, "port": running.port, "address": address}
    page = _page(folder, address)
    value = {"running": True, "folder": str(folder), **known, "page": page, "config": str(folder / "config.json")}
    text = (
        f"Running at {address} (process {running.process.pid}), in {folder}.\nRuns and their logs in a browser: {page}"
    )
    output.result(value, text)
    return 0


@command.command("reset")
@_folder_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_options
def reset(folder: Path, yes: bool, output: Output) -> None:
    """Throw away everything that the emulator has stored: runs, files, images, keys. Its emulator.toml stays."""
    from himl_container.emulator import lifecycle

    if not yes:
        click.confirm(f"Remove every run, file, dataset, image and key in {folder}?", abort=True, err=True)
    done = lifecycle.reset(folder)
    output.result({"removed": done, "folder": str(folder)}, "Removed." if done else "There was nothing to remove.")


@command.command("env")
@_folder_option
@click.option("--unset", is_flag=True, help="Print what takes the variables away again.")
@output_options
def env(folder: Path, unset: bool, output: Output) -> None:
    """Print the variables that lead the SDK to the emulator, for a POSIX shell.

    Use: eval "$(himl-container emulator env)"
    """
    values = _variables(folder)
    if unset:
        names = sorted(values)
        output.result({"unset": names}, "\n".join(f"unset {name}" for name in names))
        return
    lines = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())
    if output.as_json:
        output.result({"variables": values}, "")
    else:
        # A result passes through the filter for credentials, and these are what is asked for.
        click.echo(lines)


@command.command("exec", context_settings={"ignore_unknown_options": True})
@_folder_option
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(folder: Path, words: tuple[str, ...]) -> None:
    """Run a command with the variables that lead the SDK to the emulator.

    HIML_EMULATOR_CONFIG is the path of the config.json that Workspace.from_config takes.
    """
    values = {**os.environ, **_variables(folder)}
    try:
        os.execvpe(words[0], words, values)  # noqa: S606 - what the user wants to run, without a shell
    except OSError as error:
        from himl_container.errors import InputError

        raise InputError(f"cannot be started: {error.strerror}", where=words[0]) from None


@command.command("preempt")
@_folder_option
@click.argument("run_id", metavar="RUN")
@output_options
def preempt(folder: Path, run_id: str, output: Output) -> None:
    """Take the machine away from a running job of a low-priority cluster, without a warning; it is started again."""
    from urllib.parse import quote

    from himl_container.emulator.own_client import post

    post(folder, f"emulator/v1.0/{{ws}}/runs/{quote(run_id, safe='').replace('{', '{{').replace('}', '}}')}/preempt")
    output.result({"preempted": run_id}, "Preempted; it is queued again.")


@command.command("operations")
@output_options
def operations(output: Output) -> None:
    """List what the emulator imitates, operation by operation, with the test that shows it."""
    _need_extra()
    from himl_container.emulator.operations import all_routes, tables

    routes = all_routes()
    fields = ("operation", "method", "host", "pattern", "how", "note", "test")
    values = [{name: getattr(route, name) for name in fields} for route in routes]
    output.result({"operations": values}, tables(routes).rstrip())


@command.command("docker")
@_folder_option
@output_options
def docker(folder: Path, output: Output) -> None:
    """Print how to let docker itself pull from the emulator's registry and push to it.

    Nothing of this is needed for jobs, nor for himl-container's own push and pull.
    """
    from himl_container.emulator.docker_setup import docker_setup
    from himl_container.emulator.folder import existing
    from himl_container.emulator.own_client import running_port

    found = docker_setup(existing(folder), running_port(folder))
    output.result(found.as_json(), found.as_text())


def _variables(folder: Path) -> dict[str, str]:
    from himl_container.emulator.folder import client_variables, existing
    from himl_container.emulator.own_client import running_port

    return client_variables(existing(folder), running_port(folder), os.environ)


def _tell(ready: Ready, output: Output) -> None:
    address, config = f"http://127.0.0.1:{ready.port}", ready.folder / "config.json"
    page = _page(ready.folder, address)
    value = {"address": address, "port": ready.port, "page": page, "folder": str(ready.folder), "config": str(config)}
    lines = (
        f"The emulator is ready ({ready.seconds:.1f} s): {address}",
        f"  Workspace.from_config({str(config)!r})",
        "  himl-container emulator exec -- python script.py",
        f"  Runs and their logs in a browser: {page}",
    )
    output.result({**value, "seconds": round(ready.seconds, 3)}, "\n".join(lines))


def _page(folder: Path, address: str) -> str:
    """Return the address that opens the page in a browser; it has the page's key in it."""
    from himl_container.emulator.folder import existing
    from himl_container.emulator.page.access import PageKey

    made = existing(folder)
    return f"{address}{PageKey(made.client_secret, made.short_id).prefix}/"


def _need_extra() -> None:
    import importlib.util

    from himl_container.errors import InputError

    needed = ("azure.storage.blob", "cryptography", "httpx", "jwt", "starlette", "uvicorn")
    for name in needed:
        try:
            found = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            hint = "pip install 'himl-container[emulator]'"
            raise InputError(f"the emulator needs the package of {name!r}, which is not installed", hint=hint)
