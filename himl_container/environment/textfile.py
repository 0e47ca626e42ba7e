"""Reading a text file that a user wrote, with errors that name the line."""

from __future__ import annotations

from pathlib import Path

from himl_container.errors import InputError

_LARGEST = 1_000_000  # bytes; a file of ten thousand packages is half of it
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path, *, hint: str = "") -> str:
    """Return the text of a UTF-8 file; a byte order mark at its start is dropped, as YAML and pip have it.

    :param hint: the next step for a reader whose file is missing.
    :raises InputError: it is missing, no regular file, not UTF-8, or too large to be what it should be.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError("is not a regular file", where=str(path))
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path), hint=hint) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", where=str(path)) from error
    if len(data) > _LARGEST:
        raise InputError(f"is larger than {_LARGEST} bytes", where=str(path))
    if data.startswith(_OTHER_MARKS):
        raise InputError("is UTF-16 text, not UTF-8", where=f"{path}:1", hint="Save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError("is not UTF-8 text", where=f"{path}:{line}", hint="Save it as UTF-8.") from error
