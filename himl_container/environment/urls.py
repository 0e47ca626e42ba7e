"""URLs and the credentials in them.

Three ways to be rid of a credential: :func:`strip_credentials` for a program that takes user and password apart from
the URL, :func:`redact` for a URL that is stored or shown, :func:`scrub` for a text in which URLs may stand anywhere
(output of another program, a traceback). They would rather remove too much than too little.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_MASK = "***"
# As text, compiled where they are used: every command imports this module, few show a URL.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_URL = r"[A-Za-z][A-Za-z0-9+.-]*://\S*"
_TOKEN_PATH = r"/t/[^/?#\s]+"  # noqa: S105 - of Conda's tokens
_PORT = r"(?:[^:]*|\[[0-9A-Fa-f:.%]*\])(?::[0-9]*)?"
_HASH = r"(?:md5|sha1|sha224|sha256|sha384|sha512)=[0-9a-fA-F]+"
_REQUEST = r"(\burl: )(/\S*)"
"""How urllib3 names what it could not get: without scheme and host."""
_KEY = r"(?i)((?<![\w-])sig=|\baccountkey=|\bsharedaccess(?:key|signature)=)[^\s&;,'\")]+"
"""Of a signed address, and of Azure's connection strings."""
_CLOSERS = "'\")]}>,;."
_HEADER = r"(?i)(\b(?:proxy-)?authorization\W{1,4}(?:(?:basic|bearer|token)\s+)?|\bbearer\s+)[^\s'\"]+"


def strip_credentials(url: str) -> tuple[str, str, str]:
    """Return the URL without user and password, and both of them decoded (empty where there are none).

    What has no scheme (a channel's name, a path) comes back as it is. A token in the path or the query stays, because
    without it the URL names something else; :func:`redact` removes it.
    """
    scheme, authority, rest = _parts(url)
    if not scheme or "@" not in authority:
        return url, "", ""
    login, _, host = authority.rpartition("@")
    user, _, password = login.partition(":")
    return f"{scheme}{host}{rest}", unquote(user), unquote(password)


def redact(url: str) -> str:
    """Return the URL in the form that may be stored and shown: without login, tokens and values of the query.

    Two spellings that differ in credentials alone give the same result, so that a lock does not depend on them.
    """
    scheme, authority, rest = _parts(url)
    if not scheme:
        return url
    host = authority.rpartition("@")[2]
    rest = re.sub(_TOKEN_PATH, f"/t/{_MASK}", rest)
    before, mark, fragment = rest.partition("#")
    path, question, query = before.partition("?")
    if question:
        fields = [field.partition("=") for field in query.split("&")]
        # A bare word may itself be the secret; only a name before "=" is known to be harmless.
        query = "&".join(f"{name}={_MASK}" if equals else _MASK for name, equals, _ in fields)
    if mark and not re.fullmatch(_HASH, fragment):
        fragment = _MASK
    return f"{scheme}{host}{path}{question}{query}{mark}{fragment}"


def scrub(text: str) -> str:
    """Return a text with :func:`redact` applied to each URL in it, without values of authorization headers and keys."""
    if "://" in text:
        text = re.sub(_URL, _scrub_one, text)
    if "url: /" in text:
        text = re.sub(_REQUEST, _scrub_request, text)
    lower = text.lower()
    if any(word in lower for word in ("sig=", "accountkey=", "sharedaccess")):
        text = re.sub(_KEY, rf"\1{_MASK}", text)
    return re.sub(_HEADER, rf"\1{_MASK}", text) if "authorization" in lower or "bearer" in lower else text


def _scrub_one(found: re.Match[str]) -> str:
    # Several URLs may stand together without a space ("a=https://b,https://c"): each is taken for itself.
    starts = [place.start() for place in re.finditer(_SCHEME, found[0])]
    pieces = [found[0][start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return "".join(_scrub_piece(piece) for piece in pieces)


def _scrub_request(found: re.Match[str]) -> str:
    host = "https://host"
    return found[1] + _scrub_piece(host + found[2]).removeprefix(host)


def _scrub_piece(piece: str) -> str:
    url = piece.rstrip(_CLOSERS)
    return redact(url) + piece[len(url) :]


def _parts(url: str) -> tuple[str, str, str]:
    """Return scheme with ``://``, authority, and the rest; all empty but the last where there is no authority.

    An unencoded ``/`` in a password would end the authority early and leave half of the login in it; so where what
    looks like a port is not a number and an ``@`` follows, the authority goes on to the last ``@``.
    """
    found = re.match(_SCHEME, url)
    if not found:
        return "", "", url
    after = url[found.end() :]
    end = min((place for place in map(after.find, "/?#\\") if place >= 0), default=len(after))
    if "@" not in after[:end] and "@" in after and not re.fullmatch(_PORT, after[:end]):
        end = after.rindex("@") + 1
        end += min((place for place in map(after[end:].find, "/?#\\") if place >= 0), default=len(after) - end)
    return found[0], after[:end], after[end:]
