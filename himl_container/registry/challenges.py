"""Reading ``WWW-Authenticate`` (RFC 7235): what a registry wants before it answers. The text is a stranger's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_LONGEST = 16 << 10
_SEPARATORS = re.compile(r"[\s,]*")
_WORD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# An unquoted value may hold what a token may not: servers write the realm's URL without quotes.
_PARAMETER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"=][^\s,\"]*))")
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|\Z)")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True)
class Challenge:
    """One way in which a server accepts a login.

    :param scheme: in lower case (``basic``, ``bearer``).
    :param parameters: by their names in lower case; of a name that comes twice, the first.
    """

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.parameters.get(name, "")


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Return the challenges of a header, or of several that were joined by commas.

    Never raises: what cannot be read ends the list, and what was read before it counts.
    """
    found: list[tuple[str, dict[str, str]]] = []
    position, end = 0, min(len(header), _LONGEST)
    while True:
        separators = _SEPARATORS.match(header, position, end)
        position = separators.end() if separators else position
        if found and (parameter := _PARAMETER.match(header, position, end)):
            name, quoted, bare = parameter.groups()
            value = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
            found[-1][1].setdefault(name.lower(), value)
            position = parameter.end()
            continue
        scheme = _WORD.match(header, position, end)
        if scheme is None or header[scheme.end() : scheme.end() + 1] not in ("", " ", "\t", ","):
            break
        found.append((scheme[0].lower(), {}))
        position = scheme.end()
        if token := _TOKEN68.match(header, position, end):
            position = token.end()
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)
