"""Where settings are written: ``[tool.himl-container]`` of a ``pyproject.toml``, and ``HIML_CONTAINER_*`` variables.

Both give :class:`Raw` values: what was written, with the place that an error names. What a value may be is decided in
:mod:`himl_container.config.values`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from himl_container.errors import InputError

TABLE = "tool.himl-container"
PREFIX = "HIML_CONTAINER_"


class Raw(NamedTuple):
    """One value as it was written.

    :param value: a TOML value, the text of a variable, or what click made of a flag.
    :param where: ``file:line``, the variable's name, or the flag.
    :param base: the folder that relative paths are relative to.
    :param text: the value is the text of a variable, so that lists have to be taken apart first.
    """

    value: object
    where: str
    base: Path
    text: bool = False


class Project(NamedTuple):
    """The project's own settings.

    :param path: the ``pyproject.toml``.
    :param values: the keys of our table.
    """

    path: Path
    values: Mapping[str, Raw]


def find_project(cwd: Path) -> Project | None:
    """Return the settings of the nearest ``pyproject.toml`` that has our table, from ``cwd`` upwards.

    A nearer ``pyproject.toml`` without the table is passed over, so that a package inside a larger project needs none.

    :raises InputError: a file on the way is not TOML, or the table is not a table.
    """
    folder = Path(cwd).absolute()
    for candidate in (folder, *folder.parents):
        path = candidate / "pyproject.toml"
        if path.is_file():
            project = _read(path)
            if project is not None:
                return project
    return None


def variables(environ: Mapping[str, str], cwd: Path) -> dict[str, Raw]:
    """Return the ``HIML_CONTAINER_*`` variables by the key that they stand for; an empty one counts as not given."""
    return {
        name[len(PREFIX) :].lower().replace("_", "-"): Raw(value, name, cwd, text=True)
        for name, value in sorted(environ.items())
        if name.startswith(PREFIX) and value
    }


def variable(key: str) -> str:
    """Return the name of the variable that stands for a key."""
    return PREFIX + key.upper().replace("-", "_")


def line_of(text: str, table: str, key: str) -> int:
    """Return the line (1-based) in which a TOML text sets ``key`` of ``table``, or 0 where it cannot be told.

    A scan of the lines, not a parser: it knows table headers, quoted keys and ``key = `` lines, which is how settings
    are written; for a file written in any other way an error names the file alone.
    """
    current = ""
    header = 0
    for number, line in enumerate(text.splitlines(), start=1):
        found = re.match(_HEADER, line)
        if found:
            current = _bare(found[1])
            if current == f"{table}.{key}" or current.startswith(f"{table}.{key}."):
                return number
            header = number if current == table else header
            continue
        found = re.match(_KEY, line)
        if found:
            dotted = ".".join(part for part in (current, _bare(found[1])) if part)
            if dotted == f"{table}.{key}" or dotted.startswith(f"{table}.{key}."):
                return number
    return header


_HEADER = r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$"
_KEY = r"\s*([A-Za-z0-9_.\"' -]+?)\s*="


def _bare(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def _read(path: Path) -> Project | None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    # Parsing is the slow part; most files on the way up have no table of ours.
    if b"himl-container" not in data:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError("is not UTF-8 text", where=f"{path}:{line}") from error
    table = _parse(path, text).get("tool", {})
    table = table.get("himl-container") if isinstance(table, dict) else None
    if table is None:
        return None
    if not isinstance(table, dict):
        raise InputError(f"[{TABLE}] is not a table", where=str(path))
    return Project(path, {key: Raw(value, _place(path, text, key), path.parent) for key, value in table.items()})


def _parse(path: Path, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

    try:
        parsed: dict[str, Any] = tomllib.loads(text)
        return parsed
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.search(r"at line (\d+)", str(error))
        where = f"{path}:{found[1]}" if found else str(path)
        reason = "is nested too deeply" if isinstance(error, RecursionError) else f"is not TOML: {error}"
        raise InputError(reason, where=where) from error


def _place(path: Path, text: str, key: str) -> str:
    line = line_of(text, TABLE, key)
    return f"{path}:{line}" if line else str(path)
