"""Tables for a terminal, made of texts that strangers wrote."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_LONGEST = 100
"""Characters of one cell; the rest of a longer text is cut off."""


def plain(text: str, *, longest: int = _LONGEST) -> str:
    """Return a stranger's text as one harmless line.

    Everything that could steer a terminal or reorder what is shown is replaced: control and format characters, line
    ends, unassigned and private ones (Unicode's categories C*, Zl and Zp).
    """
    shown = "".join("\ufffd" if _is_unsafe(character) else character for character in text[: longest + 1])
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), indent: str = "  ") -> list[str]:
    """Return lines in which the columns stand below each other, each column as wide as its widest cell.

    :param right: numbers of the columns (from 0) that are aligned at their right.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        parts = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            gap = " " * (width - _width(cell))
            parts.append(gap + cell if number in right else cell + gap)
        lines.append((indent + "  ".join(parts)).rstrip())
    return lines


def _is_unsafe(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")


def _width(text: str) -> int:
    """Return the columns that a text takes: wide characters two, combining ones none."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )
