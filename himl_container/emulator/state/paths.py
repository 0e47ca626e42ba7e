"""Names of files that clients choose: checked before they become blobs, and written so that they stay in a folder."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from himl_container.emulator.http import Refusal

MAX_PATH = 900
"""Longest path in characters. A blob's name has at most 1024, and ours begin with the run's or snapshot's name."""

_MAX_SEGMENT = 255


def checked_path(path: object, what: str = "path") -> str:
    """Return a relative path with ``/`` between its parts and without ``.`` parts.

    :param what: how the refusal calls it.
    :raises Refusal: 400 for an empty, absolute or overlong path, and one with ``..``, a backslash, a control character
        or a lone surrogate.
    """
    if not isinstance(path, str) or not path:
        raise _bad(what, "is empty or not a text")
    if len(path) > MAX_PATH:
        raise _bad(what, f"has more than {MAX_PATH} characters")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
        raise _bad(what, "has a control character")
    if path.startswith("/") or "\\" in path or path[1:2] == ":":
        raise _bad(what, "is not relative, or has a backslash")
    parts = [part for part in path.split("/") if part != "."]
    if not parts or "" in parts or ".." in parts:
        raise _bad(what, "has an empty part, or one that leads out of its folder")
    # A file system's limit is in bytes, and these names become files in the container of a job.
    if any(len(part.encode()) > _MAX_SEGMENT for part in parts):
        raise _bad(what, f"has a part of more than {_MAX_SEGMENT} bytes")
    return "/".join(parts)


def checked_prefix(prefix: str) -> str:
    """Return the beginning of a path, without a slash at its end; empty for everything.

    :raises Refusal: 400, as :func:`checked_path`.
    """
    prefix = prefix.strip("/")
    return checked_path(prefix, "prefix") if prefix else ""


def write_below(folder: Path, path: str, data: Iterator[bytes]) -> None:
    """Write a file of a relative path below a folder; no symbolic link on the way is followed.

    :raises Refusal: 400, the path is not relative, or a part of it is a link or a file.
    """
    first = next(data, b"")  # a blob that is not there is found out before anything is made
    mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    *parents, name = checked_path(path).split("/")
    with _opened(folder, parents) as parent, os.fdopen(os.open(name, mode, 0o644, dir_fd=parent), "wb") as file:
        file.write(first)
        for chunk in data:
            file.write(chunk)


def make_folder_below(folder: Path, path: str) -> None:
    """Make a folder of a relative path below another, with its parents, as :func:`write_below` does."""
    with _opened(folder, checked_path(path).split("/")):
        return


@contextmanager
def _opened(folder: Path, parts: Sequence[str]) -> Iterator[int]:
    """Give a descriptor of a folder below another; what is missing is made."""
    folder.mkdir(parents=True, exist_ok=True)
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=here)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        yield here
    except (NotADirectoryError, IsADirectoryError) as error:
        raise Refusal(400, "UserError", "A path leads through a link, or is a file and a folder.") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refusal(400, "UserError", "A path is a symbolic link.") from error
        raise
    finally:
        os.close(here)


def _bad(what: str, why: str) -> Refusal:
    return Refusal(400, "UserError", f"The {what} {why}.")
