"""Reading what a user writes for a run: durations, sizes, names and ``K=V``.

Every function raises InputError with the offending text, so that the command line only passes values on.
"""

from __future__ import annotations

import re
from pathlib import Path

from himl_container.errors import InputError

_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([smhd])", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
MINIMUM_SHM = 1 << 16


def parse_duration(text: str, where: str) -> float:
    """Return a duration in seconds: a number and one of ``s``, ``m``, ``h``, ``d`` (``1.5h``; hi-ml's grammar).

    Unlike hi-ml, zero, a sign and an exponent are refused: none of them is a duration that someone means.

    :param where: the flag or setting that the text comes from.
    :raises InputError: the text is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _DURATION_UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise InputError(
            f"{text!r} is not a duration", where=where, hint="Write a number and s, m, h or d: '30s', '1.5h'."
        )
    return seconds


def parse_durations(text: str, where: str) -> tuple[float, ...]:
    """Return a comma-separated list of durations in seconds.

    :raises InputError: an entry is not a duration.
    """
    return tuple(parse_duration(part, where) for part in text.split(","))


def parse_size(text: str, where: str) -> int:
    """Return a size in bytes, as Docker writes it: a number and ``b``, ``k``, ``m``, ``g`` or ``t`` (powers of 1024).

    :raises InputError: the text is not a size, or the size is below 64 KiB (no container works with less).
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _SIZE_UNITS[match[2].lower()]) if match else 0
    if size < MINIMUM_SHM:
        raise InputError(f"{text!r} is not a usable size", where=where, hint="Write a number and m or g: '512m', '2g'.")
    return size


def parse_gpus(text: str, where: str) -> str:
    """Return ``auto``, ``none``, ``all`` or a positive number of GPUs as canonical text.

    :raises InputError: the text is none of these.
    """
    value = text.strip().lower()
    if value in ("auto", "none", "all"):
        return value
    if re.fullmatch(r"[0-9]{1,3}", value):
        return str(int(value)) if int(value) else "none"
    raise InputError(f"{text!r} is not a number of GPUs", where=where, hint="Write auto, none, all or a number.")


def parse_variable(text: str, where: str) -> tuple[str, str]:
    """Split ``K=V`` at the first ``=``. The value may be empty and may hold anything but a NUL.

    :raises InputError: there is no ``=``, or the name is not that of an environment variable.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{name!r} has no value", where=where, hint="Write NAME=VALUE; 'NAME=' gives an empty value.")
    check_variable(name, value, where)
    return name, value


def check_variable(name: str, value: str, where: str) -> None:
    """Check one environment variable. The value is never part of the message: it may be a secret.

    :raises InputError: the name is not that of an environment variable, or the value holds a NUL.
    """
    if not _VARIABLE.fullmatch(name):
        raise InputError(f"{name!r} is not the name of an environment variable", where=where)
    if not is_text(value):
        raise InputError(f"the value of {name} holds a NUL byte or is not UTF-8", where=where)


def is_text(value: str) -> bool:
    """Tell whether a container can be given this text as it is: UTF-8 without NUL."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:  # the shell passed bytes that are not UTF-8
        return False


def path_of(text: str) -> Path:
    """Return the path that a text is; ``~`` at its beginning is the user's home, and ``~name`` is a name as any other.

    (A shell has replaced the latter, where there is such a user.)
    """
    return Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)


def check_name(name: str, where: str) -> None:
    """Check the name of a dataset or an output.

    :raises InputError: it is not made of letters, digits, ``_``, ``-`` and ``.``.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of a dataset or output",
            where=where,
            hint="Use letters, digits, '_', '-' and '.'.",
        )
