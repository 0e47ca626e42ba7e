"""Selectors: comments such as ``# [linux]`` or ``# [not (osx and arm64)]`` that keep a line for some platforms only.

Conda's build recipes brought them up and conda-lock reads them in environment files. The grammar here is names,
``and``, ``or``, ``not`` and parentheses; nothing is ever evaluated as Python.
"""

from __future__ import annotations

import re

_SELECTOR = re.compile(r"\s+#[^\[\]]*?\[([^\[\]]*)\]\s*(?:#.*)?$")
_TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*|\(|\)|\S)")
_MOST_TOKENS = 60  # bounds the recursion as well

_SYSTEMS = ("linux", "linux32", "linux64", "osx", "osx64", "win", "win32", "win64", "unix")
_MACHINES = ("x86", "x86_64", "arm64", "aarch64", "ppc64le", "s390x", "armv7l")
_KNOWN = frozenset((*_SYSTEMS, *_MACHINES))
_TRUE = {
    "linux-64": frozenset({"linux", "linux64", "unix", "x86", "x86_64"}),
    "linux-aarch64": frozenset({"linux", "unix", "aarch64"}),
}


class UnknownSelectorError(ValueError):
    """The text in brackets is not a selector that is known, perhaps because it is an ordinary comment."""


def selector_of(rest_of_line: str) -> str | None:
    """Return the selector in what follows a value on its line, or None where there is no comment with brackets."""
    found = _SELECTOR.match(rest_of_line)
    return found[1].strip() if found else None


def holds(selector: str, platform: str) -> bool:
    """Whether a selector keeps its line on a platform (Conda subdir).

    :raises UnknownSelectorError: it has other words or signs than the grammar's.
    """
    tokens = _TOKEN.findall(selector)
    if not tokens or len(tokens) > _MOST_TOKENS:
        raise UnknownSelectorError(selector)
    parser = _Parser(tokens, _TRUE.get(platform, frozenset()))
    result = parser.either()
    if parser.tokens:
        raise UnknownSelectorError(selector)
    return result


class _Parser:
    """Recursive descent over the tokens; each method takes its part off the front and returns its truth."""

    def __init__(self, tokens: list[str], true: frozenset[str]) -> None:
        self.tokens = tokens
        self._true = true

    def either(self) -> bool:
        result = self._both()
        while self._take("or"):
            result = self._both() or result
        return result

    def _both(self) -> bool:
        result = self._negated()
        while self._take("and"):
            result = self._negated() and result
        return result

    def _negated(self) -> bool:
        if self._take("not"):
            return not self._negated()
        if self._take("("):
            result = self.either()
            if not self._take(")"):
                raise UnknownSelectorError
            return result
        name = self.tokens.pop(0) if self.tokens else ""
        if name not in _KNOWN:
            raise UnknownSelectorError(name)
        return name in self._true

    def _take(self, token: str) -> bool:
        if self.tokens and self.tokens[0] == token:
            self.tokens.pop(0)
            return True
        return False
