"""Write the prime numbers below a target to a file in ``outputs/``, the folder that outlives the run."""

from __future__ import annotations

import argparse
from pathlib import Path

OUTPUTS = Path("outputs")


def primes_below(target: int) -> list[int]:
    """Return all prime numbers that are less than ``target``, smallest first (trial division by smaller primes)."""
    primes: list[int] = []
    for number in range(2, target):
        if all(number % prime for prime in primes if prime * prime <= number):
            primes.append(number)
    return primes


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--target", type=int, default=100, help="write the primes below this (default: 100)")
    parser.add_argument("-o", "--output", default="primes.txt", help="name of the output file (default: primes.txt)")
    args = parser.parse_args()

    primes = primes_below(args.target)
    # The folder is there in a container; this is for running the script without one.
    OUTPUTS.mkdir(exist_ok=True)
    target = OUTPUTS / args.output
    target.write_text("".join(f"{prime}\n" for prime in primes), encoding="utf-8")
    print(f"{len(primes)} primes below {args.target} are in {target}")


if __name__ == "__main__":
    main()
