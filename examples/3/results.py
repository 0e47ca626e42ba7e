"""Download the file that the latest run of ``sample.py`` wrote in AzureML, and show it."""

from __future__ import annotations

import argparse
from pathlib import Path

from health_azure import download_files_from_run_id, get_most_recent_run, get_workspace

RESULTS = Path("results")


def main() -> None:
    """Read the command line and fetch the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", default="primes.txt", help="name of the output file (default: primes.txt)")
    name = f"outputs/{parser.parse_args().output}"

    workspace = get_workspace()
    run = get_most_recent_run(Path("most_recent_run.txt"), workspace)
    download_files_from_run_id(run.id, RESULTS, prefix=name, workspace=workspace)
    print((RESULTS / name).read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
