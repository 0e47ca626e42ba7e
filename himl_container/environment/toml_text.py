"""TOML text that is the same for the same value: strings, whole numbers, truth values and lists of strings.

Written out by hand because the lock's text is hashed into the image's name: a new release of a TOML writer must not
change it. Escapes: TOML 1.0.0, "String".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Value = str | int | bool | Sequence[str]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
_CONTROL = re.compile(r'[\x00-\x1f\x7f"\\]')


def key(name: str) -> str:
    """Return a key, quoted where it has to be."""
    return name if _BARE_KEY.fullmatch(name) else string(name)


def string(text: str) -> str:
    """Return a basic string."""
    return '"' + _CONTROL.sub(lambda match: _ESCAPES.get(match[0], f"\\u{ord(match[0]):04X}"), text) + '"'


def value(item: Value) -> str:
    """Return a value; a list of more than one string has a line for each, so that a difference shows one line."""
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int):
        return str(item)
    if isinstance(item, str):
        return string(item)
    texts = [string(text) for text in item]
    if len(texts) < 2:
        return "[" + ", ".join(texts) + "]"
    return "[\n" + "".join(f"    {text},\n" for text in texts) + "]"


def table(header: str, values: Mapping[str, Value]) -> str:
    """Return a table: its header (empty for the document's own), and a line for each key in the mapping's order."""
    lines = [header] if header else []
    lines += [f"{key(name)} = {value(item)}" for name, item in values.items()]
    return "\n".join(lines) + "\n"
