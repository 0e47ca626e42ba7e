"""``himl-download``: downloads the files of runs."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from himl_container.azureml.constants import EXPERIMENT_RUN_SEPARATOR, OUTPUT_FOLDER
from himl_container.azureml.failures import WrongValue
from himl_container.azureml.selection import AzureRunIdSource, determine_run_id_source, words
from himl_container.azureml.tool_arguments import add_run_arguments, selected_runs, told
from himl_container.errors import HimlError


def main(argv: Sequence[str] | None = None) -> None:
    """Download the files of the runs that the arguments name, each run's to a folder of its own.

    :param argv: arguments; those of the process by default.
    :raises WrongValue: (a ValueError) the arguments name no run, there is none, or its files cannot be had.
    """
    from himl_container.azureml.transfer_progress import progress_of
    from himl_container.azureml.transfers import download_run_files

    args = _parser().parse_args(argv)
    source = determine_run_id_source(args)
    runs = selected_runs(args)
    for index, run in enumerate(runs):
        folder = determine_output_dir_name(args, source, args.output_dir, index)
        try:
            download_run_files(run, folder, args.prefix, reporter=progress_of(True))
        except (HimlError, OSError) as error:
            raise WrongValue(f"Couldn't download files from run {run.id}: {error}") from error
        print(f"Downloaded file(s) to '{folder}'", flush=True)  # noqa: T201


def console() -> NoReturn:
    """Be the program ``himl-download``."""
    told(main)


def determine_output_dir_name(
    args: Namespace, run_id_source: AzureRunIdSource, output_path: Path, index: int = 0
) -> Path:
    """Return the folder for a run's files, below ``output_path``.

    It has the name of the experiment, of the file that names the run (without its ending), the recovery id without its
    colon, or the run's id.

    :param index: which of several ids.
    :raises WrongValue: the source is unknown, or a name would lead elsewhere.
    """
    if run_id_source == AzureRunIdSource.EXPERIMENT_LATEST:
        name = str(args.experiment)
    elif run_id_source == AzureRunIdSource.LATEST_RUN_FILE:
        name = Path(args.latest_run_file).stem
    elif run_id_source == AzureRunIdSource.RUN_RECOVERY_ID:
        name = str(args.run_recovery_id).replace(EXPERIMENT_RUN_SEPARATOR, "")
    elif run_id_source == AzureRunIdSource.RUN_RECOVERY_IDS:
        name = words(args.run_recovery_ids)[index].replace(EXPERIMENT_RUN_SEPARATOR, "")
    elif run_id_source == AzureRunIdSource.RUN_ID:
        name = str(args.run_id)
    elif run_id_source == AzureRunIdSource.RUN_IDS:
        name = words(args.run_ids)[index]
    else:
        raise WrongValue(f"Unrecognised run id source: {run_id_source}")
    if name in {"", ".", ".."} or "/" in name or "\\" in name:
        raise WrongValue(f"{name!r} cannot be the name of a folder.")
    return Path(output_path) / name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="himl-download",
        description="Download the files of runs of AzureML. "
        "One of --experiment, --latest_run_file, --run_recovery_ids and --run_ids is needed.",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path(OUTPUT_FOLDER),
        help=f"where a folder is made for each run (default: {OUTPUT_FOLDER})",
    )
    parser.add_argument("--prefix", default="", help="only files whose names begin with this, 'outputs/' for example")
    return parser


if __name__ == "__main__":
    console()
