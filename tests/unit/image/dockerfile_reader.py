"""A small reader of Dockerfiles, after the Dockerfile reference, to see what Docker would make of a rendered one."""

from __future__ import annotations

import json
import re


def instructions(text: str) -> list[tuple[str, str]]:
    """Return each instruction and its arguments; lines that are continued are joined, comments are dropped."""
    assert not re.match(r"#\s*(syntax|escape|check)\s*=", text.splitlines()[0], re.IGNORECASE), "a parser directive"
    found: list[tuple[str, str]] = []
    pending = ""
    for line in text.split("\n"):
        if line.lstrip().startswith("#") or (pending and not line.strip()):
            continue
        joined = pending + line
        if re.search(r"\\[ \t]*$", joined):
            pending = re.sub(r"\\[ \t]*$", "", joined)
            continue
        pending = ""
        if joined.strip():
            name, _, rest = joined.strip().partition(" ")
            found.append((name.upper(), rest.strip()))
    assert not pending, "the last line is continued"
    return found


def pairs(arguments: str, variables: dict[str, str]) -> dict[str, str]:
    """Return what ``ENV`` or ``LABEL`` sets: words, quotes, escapes and ``$`` as Docker reads them."""
    found = {}
    for word in _words(arguments):
        name, value = _split(word)
        found[_expand(name, variables)] = _expand(value, variables)
    return found


def _words(text: str) -> list[str]:
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        char = text[at]
        if not quote and char.isspace():
            words, word = ([*words, word] if word else words), ""
        else:
            word += char
            if char == "\\" and quote != "'" and at + 1 < len(text):
                at += 1
                word += text[at]
            elif quote:
                quote = "" if char == quote else quote
            elif char in "'\"":
                quote = char
        at += 1
    assert not quote, "a quote without its end"
    return [*words, word] if word else words


def _split(word: str) -> tuple[str, str]:
    quoted = re.match(r'("(?:[^"\\]|\\.)*"|[^=]*)=', word, re.DOTALL)
    assert quoted, f"no pair: {word}"
    return quoted[1], word[quoted.end() :]


def _expand(text: str, variables: dict[str, str]) -> str:
    result, quote, at = "", "", 0
    while at < len(text):
        char = text[at]
        if char == "'" and quote != '"':
            quote = "" if quote else "'"
        elif char == '"' and quote != "'":
            quote = "" if quote else '"'
        elif char == "\\" and quote != "'":
            at += 1
            following = text[at : at + 1]
            result += following if not quote or following in '"$\\' else "\\" + following
        elif char == "$" and quote != "'":
            name = re.match(r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})", text[at:])
            assert name, f"a stray dollar: {text}"
            result += variables.get(name[1] or name[2], "") or name[3] or ""
            at += name.end() - 1
        else:
            result += char
        at += 1
    return result


def words(arguments: str) -> list[str]:
    """Return the words of an exec form."""
    value = json.loads(arguments)
    assert isinstance(value, list)
    assert all(isinstance(word, str) for word in value)
    return value
