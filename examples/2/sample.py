"""Print the prime numbers below a target: here, or with ``--azureml`` on a cluster."""

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
    """Read the command line and print; with ``--azureml`` all below the first call happens in AzureML only."""
    submit_to_azure_if_needed(
        compute_cluster_name=CLUSTER, wait_for_completion=True, wait_for_completion_show_output=True
    )
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--target", type=int, default=100, help="print the primes below this (default: 100)")
    args = parser.parse_args()
    print(*primes_below(args.target), sep=", ")


if __name__ == "__main__":
    main()
