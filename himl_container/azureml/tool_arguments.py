"""What ``himl-tb`` and ``himl-download`` have in common: naming runs, and telling of mistakes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from himl_container.azureml.constants import RUN_RECOVERY_FILE
from himl_container.azureml.failures import WrongValue
from himl_container.errors import HimlError, StorageError

if TYPE_CHECKING:
    from azureml.core import Run

INTERRUPTED = 130
PIPE_CLOSED = 141
_NO_RUNS = "No runs were found"


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a workspace and runs in it."""
    parser.add_argument(
        "--config_file",
        type=Path,
        help="the workspace's config.json; by default the one in this folder or the nearest parent",
    )
    parser.add_argument(
        "--latest_run_file", type=Path, help=f"a file that has a run's id, as a submission writes {RUN_RECOVERY_FILE}"
    )
    parser.add_argument("--experiment", help="an experiment; its latest run is taken")
    parser.add_argument(
        "--tags",
        action="extend",
        nargs="+",
        help="with --experiment: only runs that have these tags (NAME, NAME=VALUE)",
    )
    several = {"action": "extend", "nargs": "+"}
    parser.add_argument("--run_recovery_ids", **several, help="runs, as EXPERIMENT:RUN_ID")  # type: ignore[arg-type]
    parser.add_argument("--run_recovery_id", help="one run, as EXPERIMENT:RUN_ID")
    parser.add_argument("--run_ids", **several, help="runs, by their ids")  # type: ignore[arg-type]
    parser.add_argument("--run_id", help="one run, by its id")


def selected_runs(args: argparse.Namespace) -> list[Run]:
    """Return the runs that the options name.

    :raises WrongValue: none is named, or there is none.
    """
    from himl_container.azureml.selection import determine_run_id_source, get_aml_runs
    from himl_container.azureml.workspace import get_workspace

    source = determine_run_id_source(args)
    runs = get_aml_runs(args, get_workspace(None, args.config_file), source)
    if not runs:
        raise WrongValue(_NO_RUNS)
    return runs


def told(main: Callable[[], None]) -> NoReturn:
    """Run a tool, and end the process; a mistake is told in words, and its kind by the exit code."""
    from himl_container.azureml.service_failures import explained, sdk_needed

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        with explained("AzureML"), sdk_needed():
            main()
    except HimlError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would complain when it flushes standard output
        sys.exit(PIPE_CLOSED)
    except OSError as error:  # a folder that cannot be made, a file that cannot be read
        print(f"Error: {error.filename or 'cannot go on'}: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        sys.exit(StorageError.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)
