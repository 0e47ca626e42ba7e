"""How the reference reads docstrings: Sphinx's fields as our sources write them, and its roles as plain code.

An extension of griffe, which reads the sources for mkdocstrings (``mkdocs.yml``).
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_FIELD = r":(?:param|raises|return|returns|rtype|type|var|ivar|cvar)\b"
_BEHIND_TEXT = re.compile(rf"(?<=[^\s`(])[ \t]+({_FIELD}[^:\n]*: )")
_SEVERAL = re.compile(r"^:param ((?:\w+, )+\w+):((?:.*)(?:\n(?!:).*)*)", re.MULTILINE)
_ROLE = re.compile(r":(?:py:)?(?:func|class|mod|meth|attr|data|exc):`~?\.?([^`]+)`")
_LITERAL = re.compile(r"^(.*\S)::$|^::\n", re.MULTILINE)


def readable(text: str) -> str:
    """Return a docstring with each field on a line of its own, one name in each, and roles as the names in them."""
    text = _BEHIND_TEXT.sub(r"\n\1", text)
    text = _SEVERAL.sub(lambda found: "\n".join(f":param {name}:{found[2]}" for name in found[1].split(", ")), text)
    text = _ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", text)
    return _LITERAL.sub(lambda found: f"{found[1]}:" if found[1] else "", text)


class Readable(griffe.Extension):
    """Changes every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Take the docstring of an object that was just read."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
