"""Putting values into a Dockerfile so that none of them can become part of its language.

Pure functions of text. Rules are those of the Dockerfile reference (``ENV``, ``LABEL``, exec form, environment
replacement) as both builders read them: the classic one of Engine 20.10 and BuildKit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from himl_container.errors import InputError

MAX_BYTES = 60_000
"""Longest value, in bytes: Docker refuses a line of 65,535, and quoting may add some."""

UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
"""What no Dockerfile value can hold: line breaks of every kind, control characters but the tab, half characters."""

_UNWRITABLE_LINE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?\Z")
# Debian policy 5.6.1 and 5.6.12: package[:architecture][=version][/suite]
_APT = re.compile(
    r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?(?:=[0-9A-Za-z][0-9A-Za-z.+~:-]*|/[a-z][0-9A-Za-z._-]*)?\Z", re.ASCII
)
# The grammar of distribution/reference: host[:port]/path[:tag][@digest].
_REFERENCE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(?::[0-9]+)?(?:/[a-z0-9][a-z0-9._-]*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z"
)
_WORD = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./:-]*\Z")
_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)(?:\s|\Z)")
_CONTINUED = re.compile(r"\\[ \t]*\Z")
_HEREDOC = re.compile(r"(?<![<\\])<<(-?)(['\"]?)([A-Za-z0-9_.-]+)\2")


def check_value(value: str, where: str) -> str:
    """Return the value, when a Dockerfile can hold it.

    :param where: what the value is, for the error.
    :raises InputError: it has a line break or a control character, or is too long.
    """
    found = UNWRITABLE.search(value)
    if found:
        raise InputError(
            f"the value contains {found.group()!r}, which an image's settings cannot hold",
            where=where,
            hint="Put the text into a file, or encode it (for example base64).",
        )
    if len(value.encode()) > MAX_BYTES:
        raise InputError(
            f"the value is longer than {MAX_BYTES} bytes", where=where, hint="Put the text into a file instead."
        )
    return value


def check_variable_name(name: str) -> str:
    """Return the name, when it is a shell variable's (POSIX, "Name").

    :raises InputError: it is not.
    """
    if not _VARIABLE_NAME.match(name):
        raise InputError(
            f"{name!r} is not the name of an environment variable",
            hint="Use letters, digits and underscores, not starting with a digit.",
        )
    return name


def check_label_name(name: str) -> str:
    """Return the name, when it is a label's.

    :raises InputError: it is not.
    """
    if not _LABEL_NAME.match(name):
        raise InputError(f"{name!r} is not the name of a label", hint="Use letters, digits and . _ - / only.")
    return name


def quoted(value: str) -> str:
    """Return a value between double quotes, for ``ENV`` and ``LABEL``; nothing in it is expanded.

    :raises InputError: see :func:`check_value`.
    """
    check_value(value, "value")
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def assignments(pairs: Iterable[tuple[str, str]], instruction: Literal["ENV", "LABEL"]) -> str:
    """Return one ``ENV`` or ``LABEL`` that sets every pair, one to a line.

    :raises InputError: a name or value that cannot stand there.
    """
    if instruction == "ENV":
        words = [f"{check_variable_name(name)}={quoted(value)}" for name, value in pairs]
    else:
        words = [f"{quoted(check_label_name(name))}={quoted(value)}" for name, value in pairs]
    indent = " \\\n" + " " * (len(instruction) + 1)
    return f"{instruction} {indent.join(words)}"


def exec_form(words: Iterable[str]) -> str:
    """Return words as a JSON list on one line, for ``RUN``, ``CMD``, ``ADD``; no shell ever splits or expands it."""
    return json.dumps(list(words))


def comment(text: str) -> str:
    """Return text that can stand behind ``# `` on one line: every kind of line break or control becomes a space."""
    return " ".join(UNWRITABLE.sub(" ", text).split())


def apt_package(name: str) -> str:
    """Return a Debian package (``name``, ``name=version``, ``name:arch``, ``name/suite``) as it was written.

    :raises InputError: it is not one; an option (``-o...``) is not one either.
    """
    if not _APT.match(name):
        raise InputError(
            f"{name!r} is not the name of a Debian package",
            where="apt",
            hint="Write one package to an entry: 'libgl1' or 'libgl1=1.6.0-1'.",
        )
    return name


def image_reference(reference: str) -> str:
    """Return an image reference as it was written.

    :raises InputError: it is not one.
    """
    if not _REFERENCE.match(reference):
        raise InputError(
            f"{reference!r} is not an image reference",
            where="base_image",
            hint="Write it as host/path/name:tag, or name@sha256:digest.",
        )
    return reference


def plain_word(word: str) -> str:
    """Return a word that needs no quoting: letters, digits and ``. _ - / :``, not starting like an option.

    :raises InputError: it is not one.
    """
    if not _WORD.match(word):
        raise InputError(f"{word!r} is not a plain word")
    return word


def user_lines(lines: Sequence[str]) -> str:
    """Return the user's own Dockerfile lines, complete in themselves: they cannot swallow what follows them.

    :raises InputError: a ``FROM`` (the base is a setting), a last line that is continued, a here-document without its
        end, or a control character.
    """
    text = "\n".join(lines).replace("\r\n", "\n")
    found = _UNWRITABLE_LINE.search(text)
    if found:
        raise _bad_lines(f"the lines contain {found.group()!r}", "Remove it.")
    rest = iter(text.split("\n"))
    for line in rest:
        logical = _whole_instruction(line, rest)
        name = _INSTRUCTION.match(logical)
        if name and name[1].upper() == "FROM":
            raise _bad_lines("the lines contain FROM", "Set base_image instead; there is one stage only.")
        if name and name[1].upper() in {"RUN", "COPY", "ADD"}:
            _skip_here_documents(logical, rest)
    return text


def _whole_instruction(line: str, rest: Iterable[str]) -> str:
    """Join the lines that one instruction goes over; blank lines and comments among them do not end it."""
    if not line.strip() or line.lstrip().startswith("#") or not _CONTINUED.search(line):
        return line
    joined = _CONTINUED.sub("", line)
    for following in rest:
        if not following.strip() or following.lstrip().startswith("#"):
            continue
        if not _CONTINUED.search(following):
            return joined + following
        joined += _CONTINUED.sub("", following)
    raise _bad_lines("the last line ends with a backslash", "Finish the instruction, or remove the backslash.")


def _skip_here_documents(instruction: str, rest: Iterable[str]) -> None:
    for dash, _, end in _HEREDOC.findall(instruction):
        for line in rest:
            if (line.lstrip("\t") if dash else line) == end:
                break
        else:
            raise _bad_lines(f"the here-document <<{end} has no end", f"Add a line with {end} alone.")


def _bad_lines(what: str, hint: str) -> InputError:
    return InputError(what, where="system_lines", hint=hint)
