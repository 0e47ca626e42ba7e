"""Numbers, times and settings as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

HIDDEN = "(hidden)"

_SECRET = re.compile(
    r"secret|passw|pwd|token|credential|api_?key|access_?key|account_?key|private_?key|connection_?string|emulator_outside|_sas$|^sas_",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(r"([?&](?:sig|signature)=)[^&\s\"']+", re.IGNORECASE)


def duration(start: float | None, end: float | None) -> str:
    """Return the time between two moments; empty where one is missing."""
    if start is None or end is None:
        return ""
    seconds = max(0, round(end - start))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def moment(time: float | None) -> str:
    """Return a time to the second, in UTC; empty for None."""
    return "" if time is None else datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def size(count: int | None) -> str:
    """Return a number of bytes; empty for None."""
    if count is None:
        return ""
    number, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{count} B" if unit == "B" else f"{number:.1f} {unit}"


def number(value: object) -> str:
    """Return a value of a table: numbers with six digits, everything else as it is."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else str(value)
    return str(value)


def without_secrets(name: str, value: Any) -> Any:
    """Return a setting with what looks like a secret hidden, in all that it contains."""
    if isinstance(value, Mapping):
        return {str(key): without_secrets(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(name, item) for item in value]
    if isinstance(value, str):
        return HIDDEN if value and _SECRET.search(name) else _SIGNATURE.sub(rf"\1{HIDDEN}", value)
    return value
