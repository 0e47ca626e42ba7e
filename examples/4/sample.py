"""Write the prime numbers below a target into an output dataset: a folder in blob storage that other runs can read."""

from __future__ import annotations

import argparse
from pathlib import Path

from health_azure import submit_to_azure_if_needed

CLUSTER = "cpu-cluster"
"""A cluster of your workspace."""

DATASTORE = "workspaceblobstore"
"""The datastore that every workspace has."""

DATASET = "himl_sample4_output"


def primes_below(target: int) -> list[int]:
    """Return all prime numbers that are less than ``target``, smallest first (trial division by smaller primes)."""
    primes: list[int] = []
    for number in range(2, target):
        if all(number % prime for prime in primes if prime * prime <= number):
            primes.append(number)
    return primes


def main() -> None:
    """Read the command line and write the file."""
    run_info = submit_to_azure_if_needed(
        compute_cluster_name=CLUSTER,
        default_datastore=DATASTORE,
        output_datasets=[DATASET],
        wait_for_completion=True,
        wait_for_completion_show_output=True,
    )
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--target", type=int, default=100, help="write the primes below this (default: 100)")
    parser.add_argument("-o", "--output", default="primes.txt", help="name of the output file (default: primes.txt)")
    args = parser.parse_args()

    primes = primes_below(args.target)
    # In AzureML, a folder that goes to the datastore; elsewhere None, and a folder here takes its place.
    folder = run_info.output_datasets[0] or Path("outputs") / DATASET
    folder.mkdir(parents=True, exist_ok=True)
    (folder / args.output).write_text("".join(f"{prime}\n" for prime in primes), encoding="utf-8")
    print(f"{len(primes)} primes below {args.target} are in {args.output} of {DATASET}")


if __name__ == "__main__":
    main()
