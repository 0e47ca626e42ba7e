"""What Tab offers for arguments that are not options: files and runs.

Somebody waits for it: nothing here imports what is slow, asks a service, or fails. click's own module for completion
costs 20 ms, so it is imported when Tab was pressed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from himl_container.errors import HimlError

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

    from himl_container.azureml.records import is_run_id

    # What is offered ends up in the line that the shell carries out, and the folder may be a stranger's.
    found = list(dict.fromkeys(run for run in _runs(context) if is_run_id(run) and run.startswith(incomplete)))
    return [CompletionItem(run) for run in found[:_MOST_RUNS]]


def _runs(context: click.Context) -> Iterator[str]:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        yield Path("most_recent_run.txt").read_text(encoding="utf-8").strip().rpartition(":")[2]
    if context.info_name == "verify":
        folder = context.params.get("runs_dir") or Path("runs")
        with contextlib.suppress(OSError):
            runs = [one.name for one in Path(folder).iterdir() if (one / "run.json").is_file() and not one.is_symlink()]
            yield from ("latest", *sorted(runs, reverse=True))
    yield from _submitted(context)


def _submitted(context: click.Context) -> Iterator[str]:
    """Yield the runs that were submitted from this machine."""
    from himl_container.azureml.records import Records
    from himl_container.cache import Cache
    from himl_container.settings import default_cache_dir

    chosen = context.params.get("cache_dir") or os.environ.get("HIML_CONTAINER_CACHE_DIR") or default_cache_dir()
    folder = Path(chosen)
    if folder.is_dir():  # Tab makes no folder
        with contextlib.suppress(HimlError):
            yield from (record.run for record in Records(Cache(folder)).newest(_MOST_RUNS))
