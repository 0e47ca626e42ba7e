"""The entry point: which commands there are, and how each way of ending becomes a message and an exit code.

A command's module is imported when the command is invoked and not before: ``--help`` must not wait for a solver or an
SDK. So the one-line help of each command stands here.
"""

from __future__ import annotations

import gc

# Looking for garbage among what imports make takes a tenth of a start, and finds none: modules stay.
gc.disable()

import contextlib  # noqa: E402
import errno  # noqa: E402
import importlib  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, NoReturn  # noqa: E402

import click  # noqa: E402

from himl_container import __version__  # noqa: E402
from himl_container.errors import HimlError, StorageError  # noqa: E402

gc.enable()

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "init": "Write the first files of a project.",
    "lock": "Solve the environment once and write the lock.",
    "render": "Write the Dockerfile and its build context.",
    "build": "Build the image, test it, and give it its tag.",
    "push": "Push the built image to the registry; only what is missing travels.",
    "pull": "Bring an image from its registry into the daemon.",
    "explain": "Say why the last build was needed, and what each layer weighs.",
    "run": "Run a script in the image.",
    "submit": "Run a script in Azure Machine Learning, in the image.",
    "status": "Say how a run in AzureML stands.",
    "logs": "Show what a run in AzureML has printed, while it runs or later.",
    "cancel": "Cancel a run in AzureML.",
    "download": "Fetch the files of a run in AzureML.",
    "runs": "List what was submitted to AzureML.",
    "inspect": "Show what is inside of an image, by package and layer.",
    "diff": "Show what differs between two images.",
    "verify": "Say whether run, registry, daemon and lock have the same image.",
    "base": "Create a base image, or move its pin.",
    "emulator": "An AzureML workspace on this machine, for the AzureML SDK.",
    "cache": "List or prune the cache.",
    "doctor": "Check what this machine has and what is missing.",
    "completion": "Print the script that lets a shell complete commands with Tab.",
    "version": "Print the versions of the tool and of what it uses.",
}

COMPLETE = "_HIML_CONTAINER_COMPLETE"

_INTERRUPTED = 130
_PIPE_CLOSED = 141
_USAGE = 2
_UNEXPECTED = 70


class LazyGroup(click.Group):
    """A group whose commands are the attribute ``command`` of modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module and return the command."""
        if cmd_name not in COMMANDS:
            return None
        gc.disable()
        try:
            found = importlib.import_module(f"himl_container.cli.{cmd_name}").command
        finally:
            gc.enable()
        return found if isinstance(found, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one gets a suggestion."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            import difflib

            close = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"There is no command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return what may come next, without importing any command: somebody has pressed Tab and waits."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="himl-container")
def cli() -> None:
    """Conda files and private wheels become one tested image that runs the same here and in Azure Machine Learning."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code (``docs/errors.md``).

    A command may return an exit code; None is 0.
    """
    if arguments is not None:
        sys.exit(run(list(arguments)))
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # another one, while the first was being told
        code = _INTERRUPTED
    _leave(code)


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    context: click.Context | None = None
    if COMPLETE in os.environ:
        return _complete(os.environ[COMPLETE])
    try:
        context = cli.make_context("himl-container", arguments)
        with context:
            result = cli.invoke(context)
        return result if isinstance(result, int) else 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever happens ends as a message and a code
        return _end(error, context)


def _complete(instruction: str) -> int:
    """Answer a shell in which Tab was pressed; its script (``himl-container completion``) says so in a variable.

    Whatever goes wrong is nobody's error at that moment, and a traceback would land in the line that is being typed.
    """
    from click.shell_completion import shell_complete

    try:
        return shell_complete(cli, {}, "himl-container", COMPLETE, instruction)
    except Exception:  # noqa: BLE001
        return 1


def _leave(code: int) -> NoReturn:
    """End the process without taking the interpreter down, which takes as long as importing half of what is here.

    It could also go wrong: a thread of rattler that still runs would abort the process (-6), and one that waits for a
    dead connection would keep who pressed Ctrl-C waiting for its time-out.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, _wait_once_more)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    engine_run = sys.modules.get("himl_container.image.engine_run")
    if engine_run is not None:
        engine_run.finish_removals()
    os._exit(code)


def _wait_once_more(number: int, frame: object) -> None:
    """Let the first Ctrl-C at the very end pass: the command is done, and what it waits for takes a moment.

    The second one ends the process: the Docker daemon may answer no more.
    """
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(_INTERRUPTED))


def _end(error: BaseException, context: click.Context | None) -> int:
    """Say how the command ended, and return its exit code."""
    code = _UNEXPECTED
    if isinstance(error, click.exceptions.Exit):
        code = error.exit_code
    elif isinstance(error, click.ClickException):
        error.show()
        code = 0 if isinstance(error, click.exceptions.NoArgsIsHelpError) else _USAGE
    elif isinstance(error, (click.Abort, KeyboardInterrupt)):
        click.echo("interrupted", err=True)
        code = _INTERRUPTED
    elif isinstance(error, BrokenPipeError):
        # Python would complain once more when it flushes standard output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = _PIPE_CLOSED
    elif isinstance(error, HimlError):
        code = _show(error, context)
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        code = _show(_disk_full(error), context)
    else:
        _crash(error)
    return code


def _show(error: HimlError, context: click.Context | None) -> int:
    from himl_container.cli.output import Output, print_error

    if _debug():
        _traceback(error)
    if context is not None and isinstance(context.obj, Output):
        context.obj.error(error)
    else:
        print_error(error)
    return error.exit_code


def _disk_full(error: OSError) -> StorageError:
    where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    hint = "Free some space; 'himl-container cache prune' empties the cache."
    return StorageError(f"cannot write: {os.strerror(error.errno or 0)}", where=where, hint=hint)


def _debug() -> bool:
    return os.environ.get("HIML_CONTAINER_DEBUG", "") not in ("", "0")


def _traceback(error: BaseException) -> None:
    import traceback

    from himl_container.environment.urls import scrub

    click.echo(scrub("".join(traceback.format_exception(error))), err=True)


def _crash(error: BaseException) -> None:
    """Say that something is wrong with the tool, and where the details are: a file that holds no credentials."""
    if _debug():
        _traceback(error)
        return
    from himl_container.environment.urls import scrub

    click.echo(scrub(f"error: unexpected {type(error).__name__}: {error}"), err=True)
    report = _write_report(error)
    if report is not None:
        click.echo(f"  This is a defect of himl-container. Details: {report}", err=True)


def _write_report(error: BaseException) -> Path | None:
    import platform
    import tempfile
    import traceback

    from himl_container.environment.urls import scrub

    # Of the arguments only the command's name: values of --env and the script's own may be secrets without any form.
    command = next((word for word in sys.argv[1:] if word in COMMANDS), "")
    text = f"himl-container {__version__} {command}\nPython {sys.version}\n{platform.platform()}\n\n"
    try:
        handle, name = tempfile.mkstemp(prefix="himl-container-crash-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(scrub(text + "".join(traceback.format_exception(error))))
    except OSError:
        return None
    return Path(name)


if __name__ == "__main__":
    main()
