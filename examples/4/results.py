"""Download the file that a run of ``sample.py`` wrote into its output dataset, and show it."""

from __future__ import annotations

import argparse
from pathlib import Path

from health_azure import download_from_datastore

RESULTS = Path("results")
DATASTORE = "workspaceblobstore"
DATASET = "himl_sample4_output"


def main() -> None:
    """Read the command line and fetch the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", default="primes.txt", help="name of the output file (default: primes.txt)")
    name = f"{DATASET}/{parser.parse_args().output}"

    # The workspace is that of config.json, here or in a folder above.
    download_from_datastore(DATASTORE, name, RESULTS, overwrite=True)
    print((RESULTS / name).read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
