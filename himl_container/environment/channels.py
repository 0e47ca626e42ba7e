"""Conda channels: from the name that a user writes to the address that is asked, and back to the one that is locked.

A lock names packages by their *canonical* address, which is the same for everybody; a mirror (``channel-mirrors`` of
the settings) is applied when something is fetched, so that one lock serves a laptop and a hospital. Rules of names:
Conda's documentation, "Channels": a bare name lies below https://conda.anaconda.org, ``defaults`` stands for two
channels of https://repo.anaconda.com; a path ``/t/<token>`` after the host is a credential.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from himl_container.environment.urls import strip_credentials

ALIAS = "https://conda.anaconda.org/"
DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")

_TOKEN = re.compile(r"^(https?://[^/]+)/t/[^/]+(?=/|$)")

Mirrors = Sequence[tuple[str, str]]
"""Pairs of a channel (name or URL) and the URL that serves it, as in the settings."""


def channel_urls(channel: str) -> tuple[str, ...]:
    """Return the addresses that a channel stands for, without a slash at the end; a URL keeps its credentials."""
    if channel == "defaults":
        return DEFAULTS
    if "://" in channel:
        return (channel.rstrip("/"),)
    if channel.startswith(("/", "./", "../", "~")):
        return (Path(channel).expanduser().absolute().as_uri().rstrip("/"),)
    return (ALIAS + channel.strip("/"),)


def canonical_channels(channels: Iterable[str]) -> tuple[str, ...]:
    """Return the canonical addresses of channels in their order, each once, without credentials."""
    return tuple(dict.fromkeys(plain(url) for channel in channels for url in channel_urls(channel)))


def sources(channels: Iterable[str], mirrors: Mirrors) -> tuple[str, ...]:
    """Return the addresses to ask for channels, in order of priority, mirrors applied and credentials kept."""
    return tuple(dict.fromkeys(to_mirror(url, mirrors) for channel in channels for url in channel_urls(channel)))


def to_mirror(url: str, mirrors: Mirrors) -> str:
    """Return where a canonical address (of a channel or of anything in it) is fetched; itself without a mirror."""
    address = plain(url)
    for original, mirror in _pairs(mirrors, by=0):
        rest = _below(address, original)
        if rest is not None:
            return mirror + rest
    return url


def canonical(url: str, mirrors: Mirrors) -> str:
    """Return the canonical address of one that may point into a mirror; without credentials."""
    address = plain(url)
    for original, mirror in _pairs(mirrors, by=1):
        rest = _below(address, plain(mirror))
        if rest is not None:
            return original + rest
    return address


def plain(url: str) -> str:
    """Return an address without login and without Conda's token."""
    return _TOKEN.sub(r"\1", strip_credentials(url)[0])


def _pairs(mirrors: Mirrors, *, by: int) -> list[tuple[str, str]]:
    """Return (canonical, mirror) pairs, the most specific first; of equals, the one that the user wrote first."""
    pairs = [
        (plain(original), channel_urls(mirror)[0]) for channel, mirror in mirrors for original in channel_urls(channel)
    ]
    return sorted(pairs, key=lambda pair: -len(pair[by]))


def _below(url: str, base: str) -> str | None:
    """Return what follows ``base`` in ``url`` (empty or beginning with a slash), or None where it lies elsewhere."""
    if url == base:
        return ""
    return url[len(base) :] if url.startswith(base + "/") else None
