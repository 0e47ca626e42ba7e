"""What each setting may be. A parser takes what was written and returns the value, or raises InputError with the place.

Values may be credentials (index URLs), so no message repeats the value of a URL.
"""

from __future__ import annotations

import os
import platform as machine
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from himl_container.config.images import has_host, is_reference, is_repository
from himl_container.config.sources import Raw
from himl_container.errors import InputError

Parser = Callable[[Raw], object]

# Patterns as text, compiled where they are used: most commands use none of them.
# Debian Policy 5.6.1 (names), 5.6.8 (architectures), 5.6.12 (versions), in the spelling of apt-get's command line.
_APT = r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9][a-z0-9-]*)?(?:=[0-9][A-Za-z0-9.+~:-]*)?"
_CUDA = r"[1-9][0-9]?\.[0-9]{1,2}(?:\.[0-9]{1,3})?"
_GLIBC = r"2\.[0-9]{1,3}"
_CONDA_NAME = r"[a-z0-9_][a-z0-9._-]*"
_CHANNEL = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*"
_DISTRIBUTION = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_REFERENCE = r"\$\{([A-Z0-9_]+)\}"
_URL_SCHEMES = frozenset({"http", "https", "file"})
_MACHINES = {"x86_64": "linux-64", "amd64": "linux-64", "aarch64": "linux-aarch64", "arm64": "linux-aarch64"}


def fail(raw: Raw, what: str, hint: str = "") -> InputError:
    """Return the error for a value, with its place."""
    return InputError(what, where=raw.where, hint=hint)


def expand_variables(text: str, environ: Mapping[str, str]) -> str:
    """Put the values of ``${NAME}`` into a URL, as pip does in requirements files: capitals, digits and ``_`` only.

    A variable that is not set stays as it is written, again as in pip: the credentials of a URL are not needed to tell
    whether a lock is current.
    """
    return re.sub(_REFERENCE, lambda found: environ.get(found[1]) or found[0], text)


def string(raw: Raw) -> str:
    """Accept one string without control characters."""
    if not isinstance(raw.value, str):
        hint = "Put it in quotes." if isinstance(raw.value, (int, float)) else ""
        raise fail(raw, f"is {_kind(raw.value)}, not a string", hint)
    if any(ord(character) < 32 or ord(character) == 127 for character in raw.value):
        raise fail(raw, "has a control character or a line break in it")
    return raw.value


def strings(raw: Raw, *, separator: str | None = None, one_is_enough: bool = True) -> tuple[Raw, ...]:
    """Take a list apart; a single string stands for a list of one.

    :param separator: what separates the items in a variable's text; None for white space.
    """
    if isinstance(raw.value, str):
        if not one_is_enough and not raw.text:
            raise fail(raw, "is a string, not a list of strings")
        items: list[object] = list(raw.value.split(separator)) if raw.text else [raw.value]
    elif isinstance(raw.value, (list, tuple)):
        items = list(raw.value)
    else:
        raise fail(raw, f"is {_kind(raw.value)}, not a list of strings")
    return tuple(Raw(item, raw.where, raw.base) for item in items if item != "" or not raw.text)


def path(raw: Raw) -> Path:
    """Accept a path; a relative one is relative to the file that names it, or to the current folder for a flag."""
    value = string(Raw(os.fspath(raw.value), raw.where, raw.base) if isinstance(raw.value, Path) else raw)
    if not value:
        raise fail(raw, "is empty")
    home = value == "~" or value.startswith("~/")
    return Path(os.path.normpath(raw.base.absolute() / (Path(value).expanduser() if home else value)))


def paths(raw: Raw) -> tuple[Path, ...]:
    """Accept a list of paths; in a variable, separated as in PATH."""
    return tuple(path(item) for item in strings(raw, separator=os.pathsep))


def existing_file(raw: Raw) -> Path:
    """Accept the path of a file that is there."""
    value = path(raw)
    if not value.is_file():
        raise fail(raw, f"there is no file {value}")
    return value


def url(environ: Mapping[str, str]) -> Parser:
    """Accept a URL (http, https, file) with ``${NAME}`` put in."""

    def parse(raw: Raw) -> str:
        value = expand_variables(string(raw), environ)
        check_url(value, raw)
        return value

    return parse


def check_url(value: str, raw: Raw) -> None:
    """Raise InputError unless the value is an http, https or file URL that names something."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        raise fail(raw, "is not a URL") from error
    if not value.isprintable() or any(character in value for character in " \"'<>\\^`"):
        raise fail(raw, "is not a URL: such characters have to be percent-encoded")
    if parts.scheme not in _URL_SCHEMES or not (parts.path if parts.scheme == "file" else parts.hostname):
        raise fail(raw, "is not a URL that starts with https://, http:// or file://")


def urls(environ: Mapping[str, str]) -> Parser:
    """Accept a list of URLs."""
    return lambda raw: tuple(url(environ)(item) for item in strings(raw))


def table(key: Callable[[str, Raw], str], value: Parser) -> Parser:
    """Accept a table, or in variables and flags a list of ``KEY=VALUE``; the result is sorted by key."""

    def parse(raw: Raw) -> tuple[tuple[str, object], ...]:
        pairs: dict[str, Raw] = {}
        if isinstance(raw.value, dict):
            pairs = {str(name): Raw(item, raw.where, raw.base) for name, item in raw.value.items()}
        elif raw.text or isinstance(raw.value, (list, tuple)):
            for item in strings(raw):
                # The last "=": a channel may be a URL with one in it, and so may what it is mapped to; "=file:" and
                # "=http" tell them apart.
                name, found, rest = _split_pair(string(item))
                if not found:
                    raise fail(raw, "is not of the form NAME=VALUE")
                pairs[name] = Raw(rest, raw.where, raw.base)
        else:
            raise fail(raw, f"is {_kind(raw.value)}, not a table")
        return tuple(sorted((key(name, raw), value(item)) for name, item in pairs.items()))

    return parse


def _split_pair(text: str) -> tuple[str, str, str]:
    found = re.search(r"=(?=(?:https?|file)://)", text)
    if found:
        return text[: found.start()], "=", text[found.end() :]
    return text.partition("=")


def channel(name: str, raw: Raw) -> str:
    """Accept a channel's name (``conda-forge``, ``conda-forge/label/dev``) or URL."""
    if "://" in name:
        check_url(name, raw)
    elif not re.fullmatch(_CHANNEL, name):
        raise fail(raw, f"{name!r} is not the name or URL of a channel")
    return name.rstrip("/")


def conda_name(name: str, raw: Raw) -> str:
    """Accept the name of a Conda package."""
    if not re.fullmatch(_CONDA_NAME, name.lower()):
        raise fail(raw, f"{name!r} is not the name of a Conda package")
    return name.lower()


def conda_names(raw: Raw) -> tuple[str, ...]:
    """Accept a list of names of Conda packages; sorted."""
    return tuple(sorted({conda_name(string(item), raw) for item in strings(raw)}))


def distribution(raw: Raw) -> str:
    """Accept the name of a Python distribution; normalised (PyPA, "Names and normalization")."""
    name = string(raw)
    if not re.fullmatch(_DISTRIBUTION, name):
        raise fail(raw, f"{name!r} is not the name of a Python distribution")
    return re.sub(r"[-_.]+", "-", name).lower()


def base_image(raw: Raw) -> str:
    """Accept an image reference."""
    name = string(raw)
    if not is_reference(name):
        raise fail(raw, f"{name!r} is not an image", "Write it as repository[:tag][@sha256:...], in lower case.")
    return name


def image_name(raw: Raw) -> str:
    """Accept a repository name."""
    name = string(raw)
    if not is_repository(name):
        hint = "Lower-case letters, digits and single . _ - between them, parts separated by /; the tag is ours."
        raise fail(raw, f"{name!r} is not a repository name", hint)
    return name


def registry(raw: Raw) -> str:
    """Accept a registry's address with or without a path (``localhost:5000/himl``); none if empty."""
    name = string(raw)
    if name and not (is_repository(f"{name}/x") and has_host(f"{name}/x")):
        hint = (
            "Write the host, a port where it needs one, and a path: team.azurecr.io, localhost:5000/himl. No https://."
        )
        raise fail(raw, f"{name!r} is not the address of a registry", hint)
    return name


def one_of(*choices: str) -> Parser:
    """Accept one of some words."""

    def parse(raw: Raw) -> str:
        value = string(raw)
        if value not in choices:
            raise fail(raw, f"{value!r} is not possible here", f"Choose {' or '.join(choices)}.")
        return value

    return parse


def platform(raw: Raw) -> str:
    """Accept a Conda subdir that this machine's Docker can run: linux-64 everywhere, else the machine's own."""
    name = string(raw)
    allowed = sorted({"linux-64", _MACHINES.get(machine.machine().lower(), "linux-64")})
    if name not in allowed:
        raise fail(raw, f"{name!r} is not a platform that can be built here", f"Choose {' or '.join(allowed)}.")
    return name


def pattern(regex: str, meaning: str) -> Parser:
    """Accept a string that matches as a whole."""

    def parse(raw: Raw) -> str:
        value = string(raw)
        if not re.fullmatch(regex, value):
            raise fail(raw, f"{value!r} is not {meaning}")
        return value

    return parse


cuda = pattern(_CUDA, "a CUDA version such as '12.4'")
glibc = pattern(_GLIBC, "a version of the GNU C library such as '2.28'")


def apt(raw: Raw) -> tuple[str, ...]:
    """Accept a list of Debian packages (``name``, ``name:arch``, ``name=version``); sorted."""
    names = [string(item) for item in strings(raw)]
    for name in names:
        if not re.fullmatch(_APT, name):
            raise fail(raw, f"{name!r} is not the name of a Debian package")
    return tuple(sorted(set(names)))


def lines(raw: Raw) -> tuple[str, ...]:
    """Accept lines of free text: a list, or one string with line breaks."""
    result: list[str] = []
    for item in strings(raw, separator="\n"):
        if not isinstance(item.value, str):
            raise fail(raw, f"has {_kind(item.value)} in it, not a string")
        if "\0" in item.value:
            raise fail(raw, "has a NUL character in it")
        result += item.value.splitlines()
    return tuple(result)


def commands(raw: Raw) -> tuple[str, ...]:
    """Accept a list of shell commands; in a variable, one per line."""
    result: list[str] = []
    for item in strings(raw, separator="\n"):
        if not isinstance(item.value, str) or not item.value.strip() or "\0" in item.value:
            raise fail(raw, "has something in it that is not a command")
        result.append(item.value.strip())
    return tuple(result)


def modules(raw: Raw) -> tuple[str, ...]:
    """Accept a list of importable names."""
    names = [string(item) for item in strings(raw)]
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise fail(raw, f"{name!r} is not the name of a Python module")
    return tuple(names)


_TABLES_OF_TABLES = ("datasets", "outputs")


def run_table(raw: Raw) -> Mapping[str, object]:
    """Accept the table of launch defaults: kebab-case keys; strings, numbers, booleans, and lists or tables of them.

    A dataset or an output may be a table too.
    """
    if not isinstance(raw.value, dict):
        raise fail(raw, f"is {_kind(raw.value)}, not a table")
    for key, value in raw.value.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", key):
            raise fail(raw, f"'run' has the key {key!r}", "Keys are small letters, digits and hyphens.")
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,)
        if key in _TABLES_OF_TABLES and isinstance(value, dict):
            items = [part for item in items for part in (item.values() if isinstance(item, dict) else (item,))]
        if not all(isinstance(item, (str, int, float, bool)) for item in items):
            raise fail(raw, f"'run.{key}' is neither a plain value nor a list or table of plain values")
        if any(isinstance(item, str) and "\0" in item for item in items):
            raise fail(raw, f"'run.{key}' has a NUL character in it")
    return dict(raw.value)


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", dict: "a table", list: "a list", str: "a string"}
    return names.get(type(value), f"a {type(value).__name__}")
