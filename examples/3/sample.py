"""Write the prime numbers below a target to a file in ``outputs/``, the folder that outlives the run."""

from __future__ import annotations

import argparse

from health_azure import submit_to_azure_if_needed

CLUSTER = "cpu-cluster"
"""A cluster of your workspace."""


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
        compute_cluster_name=CLUSTER, wait_for_completion=True, wait_for_completion_show_output=True
    )
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--target", type=int, default=100, help="write the primes below this (default: 100)")
    parser.add_argument("-o", "--output", default="primes.txt", help="name of the output file (default: primes.txt)")
    args = parser.parse_args()

    primes = primes_below(args.target)
    # "outputs" in the current folder, there and here. AzureML keeps what is in it with the run.
    target = run_info.output_folder / args.output
    target.write_text("".join(f"{prime}\n" for prime in primes), encoding="utf-8")
    print(f"{len(primes)} primes below {args.target} are in outputs/{args.output}")


if __name__ == "__main__":
    main()
