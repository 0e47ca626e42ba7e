"""Print the prime numbers below a target. Stands for any long computation."""

from __future__ import annotations

import argparse


def primes_below(target: int) -> list[int]:
    """Return all prime numbers that are less than ``target``, smallest first (the sieve of Eratosthenes)."""
    is_prime = [True] * max(target, 2)
    is_prime[0] = is_prime[1] = False
    for number in range(2, int(target**0.5) + 1 if target > 0 else 0):
        if is_prime[number]:
            for multiple in range(number * number, target, number):
                is_prime[multiple] = False
    return [number for number, prime in enumerate(is_prime) if prime]


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--target", type=int, default=100, help="print the primes below this (default: 100)")
    args = parser.parse_args()
    print(*primes_below(args.target), sep=", ")


if __name__ == "__main__":
    main()
