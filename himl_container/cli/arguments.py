"""What Tab offers for arguments that are not options: files and runs.

Somebody waits for it: nothing here imports what is slow, asks a service, or fails. click's own module for completion
costs 20 ms, so it is imported when Tab was pressed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_MOST_RUNS = 30


def complete_file(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a file; for arguments that are texts to us, such as a script and what it is given."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def complete_run(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a run that this folder knows of: the last one submitted, and local ones, the newest first."""
    from click.shell_completion import CompletionItem

    found = list(dict.fromkeys(run for run in _runs(context) if run.startswith(incomplete)))
    return [CompletionItem(run) for run in found[:_MOST_RUNS]]


def _runs(context: click.Context) -> Iterator[str]:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        run = Path("most_recent_run.txt").read_text(encoding="utf-8").strip().rpartition(":")[2]
        if run.isprintable() and run:
            yield run
    if context.info_name != "verify":
        return
    folder = context.params.get("runs_dir") or Path("runs")
    with contextlib.suppress(OSError):
        runs = [path.name for path in Path(folder).iterdir() if (path / "run.json").is_file() and not path.is_symlink()]
        yield from ("latest", *sorted(runs, reverse=True))
