"""Tables in CSV files, and how well a classifier did: a stand-in for the private package that a team shares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

__version__ = "1.0"


def write_table(path: Path, columns: Sequence[str], rows: np.ndarray) -> None:
    """Write numbers as a CSV file with one line of column names. A flat array is one column."""
    np.savetxt(path, rows, delimiter=",", header=",".join(columns), comments="", fmt="%g")


def read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """Return the column names and the numbers (two-dimensional) of a CSV file that :func:`write_table` wrote."""
    with path.open(encoding="utf-8") as file:
        columns = file.readline().strip().split(",")
        return columns, np.loadtxt(file, delimiter=",", ndmin=2)


def confusion(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return how often each class (row) was taken for each class (column). Classes are numbers from 0."""
    classes = int(max(expected.max(), found.max())) + 1
    table = np.zeros((classes, classes), dtype=int)
    np.add.at(table, (expected.astype(int), found.astype(int)), 1)
    return table
