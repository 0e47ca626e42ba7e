"""Writes the first files of a project: all of them or none, and none over a file of the user's unless asked to."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from himl_container.config.sources import find_project
from himl_container.errors import InputError, StorageError
from himl_container.starter import contents

ENVIRONMENT_FILE = "environment.yml"
SAMPLE_FILE = "sample.py"
SETTINGS_FILE = "pyproject.toml"
IGNORE_FILE = ".amlignore"
PYTHONS = ("3.10", "3.11", "3.12")

_MODE = 0o644


class FirstFile(NamedTuple):
    """One file of a new project.

    :param path: where it is to be.
    :param text: what it is to hold.
    :param there: the file exists with other contents.
    :param adds: nothing that is there is lost: the new text begins with the old.
    """

    path: Path
    text: str
    there: bool = False
    adds: bool = False


class Starter(NamedTuple):
    """What a folder needs to become a project.

    :param files: those to write, in the order in which they are told.
    :param kept: names of files that are there already as they should be.
    :param refused: names of files that are kept although they are not as ours would be.
    :param shadowed: the ``pyproject.toml`` further up whose settings will no longer apply here, or None.
    """

    folder: Path
    files: tuple[FirstFile, ...]
    kept: tuple[str, ...]
    refused: tuple[str, ...] = ()
    shadowed: Path | None = None


def plan_starter(folder: Path, *, python: str = "3.11") -> Starter:
    """Return the first files of a project in a folder, which need not be there. Nothing is written.

    A ``pyproject.toml`` without our table gets one at its end; one that has it is left alone.

    :param python: the version that the environment asks for.
    :raises InputError: the folder is a file, a file cannot be read or is a folder, or ``pyproject.toml`` is not TOML.
    """
    if python not in PYTHONS:
        raise InputError(f"{python!r} is not a version that can be used", hint=f"Choose {', '.join(PYTHONS)}.")
    folder = Path(os.path.normpath(folder.absolute()))
    blocking = next((part for part in (folder, *folder.parents) if part.exists() and not part.is_dir()), None)
    if blocking is not None:
        raise InputError("is a file, not a folder", where=str(blocking), hint="Name another folder.")
    project = find_project(folder)
    own = project is not None and project.path.parent == folder
    wanted: list[FirstFile] = [
        FirstFile(folder / ENVIRONMENT_FILE, contents.environment(folder.name, python)),
        FirstFile(folder / SAMPLE_FILE, contents.sample(SAMPLE_FILE)),
        FirstFile(folder / IGNORE_FILE, contents.ignored(_read(folder / ".gitignore") or "")),
    ]
    if not own:
        text = contents.settings_added(_read(folder / SETTINGS_FILE) or "", ENVIRONMENT_FILE)
        _check_toml(text, folder / SETTINGS_FILE)
        wanted.append(FirstFile(folder / SETTINGS_FILE, text))
    files: list[FirstFile] = []
    kept: list[str] = [SETTINGS_FILE] if own else []
    for file in wanted:
        present = _read(file.path)
        if present == file.text:
            kept.append(file.path.name)
        else:
            adds = present is not None and file.path.name == SETTINGS_FILE
            files.append(file._replace(there=present is not None, adds=adds))
    shadowed = project.path if project is not None and not own else None
    return Starter(folder, tuple(files), tuple(kept), shadowed=shadowed)


def settle(starter: Starter, *, replace: Callable[[FirstFile], bool]) -> Starter:
    """Return the starter without the files that are to stay as they are.

    :param replace: asked for each file that is there with contents of the user's own.
    """
    files: list[FirstFile] = []
    refused: list[str] = []
    for file in starter.files:
        if file.there and not file.adds and not replace(file):
            refused.append(file.path.name)
        else:
            files.append(file)
    return starter._replace(files=tuple(files), refused=tuple(refused))


def write_starter(starter: Starter) -> None:
    """Write the files: all of them, or, when one cannot be written, none.

    :raises StorageError: a file cannot be written; the folder is then as it was.
    :raises InputError: a file has appeared since the plan was made.
    """
    made = _make_folders(starter.folder)
    written: list[tuple[Path, bytes | None]] = []
    try:
        for file in starter.files:
            target = Path(os.path.realpath(file.path))  # a link stays a link
            before = target.read_bytes() if file.there else None
            _write(target, file.text, replace=file.there)
            written.append((target, before))
    except BaseException as error:
        _undo(written, made)
        if isinstance(error, FileExistsError):
            raise InputError("has just appeared", where=str(error.filename2), hint="Try again.") from error
        if isinstance(error, OSError):
            reason = os.strerror(error.errno or errno.EIO)
            raise StorageError(f"cannot write: {reason}", where=str(starter.folder)) from error
        raise


def _write(target: Path, text: str, *, replace: bool) -> None:
    """Write a file under its name in one step, over another one only where that is wanted."""
    mode = target.stat().st_mode & 0o777 if replace else _MODE & ~_umask()
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        Path(name).chmod(mode)
        if replace:
            os.replace(name, target)
        else:
            os.link(name, target)  # unlike a rename, this fails where a file has appeared
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108 - the counterpart of the calls above


def _undo(written: list[tuple[Path, bytes | None]], made: list[Path]) -> None:
    for target, before in reversed(written):
        with contextlib.suppress(OSError):
            if before is None:
                target.unlink()
            else:
                target.write_bytes(before)
    for folder in reversed(made):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the ones made, the highest first."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    made: list[Path] = []
    try:
        for part in reversed(missing):
            part.mkdir(exist_ok=True)
            made.append(part)
    except OSError as error:
        _undo([], made)
        raise StorageError(f"cannot make the folder: {error.strerror}", where=str(folder)) from error
    return made


def _read(path: Path) -> str | None:
    """Return a file's text, or None where there is no file."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError("is a link that leads nowhere", where=str(path)) from None
        return None
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _check_toml(text: str, path: Path) -> None:
    """Raise InputError where our table cannot stand at the end of the user's file."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

    try:
        tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        hint = "Mend it, or add the table [tool.himl-container] yourself."
        raise InputError(f"cannot be given a table of ours: {error}", where=str(path), hint=hint) from error


def _umask() -> int:
    """Return the process's umask without changing it (``/proc`` where there is one)."""
    with contextlib.suppress(OSError):
        found = re.search(r"^Umask:\s*([0-7]+)", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
        if found:
            return int(found[1], 8)
    value = os.umask(0o022)
    os.umask(value)
    return value
