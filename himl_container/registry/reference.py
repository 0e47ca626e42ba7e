"""Names of images: ``[registry/]repository[:tag][@digest]`` (grammar of the ``distribution`` project's references)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from himl_container.errors import InputError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_HOST = r"(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]+)?"
_REFERENCE = re.compile(
    rf"(?P<repository>(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?\Z"
)
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}\Z")


@dataclass(frozen=True)
class Reference:
    """An image's name, taken apart. ``tag`` and ``digest`` are empty where the name has none."""

    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def tagged(self) -> str:
        """``repository:tag``, with ``latest`` where nothing else is said, as Docker does."""
        return f"{self.repository}:{self.tag or 'latest'}"

    def at(self, digest: str) -> str:
        """``repository@digest``."""
        return f"{self.repository}@{digest}"


def parse_reference(text: str) -> Reference:
    """Take an image's name apart.

    :raises InputError: it is no name that Docker accepts.
    """
    found = _REFERENCE.match(text)
    if not found or len(found["repository"]) > 255:
        raise InputError(
            f"{text!r} is not the name of an image",
            hint="Expected [registry/]repository[:tag][@sha256:digest], the repository in lower case.",
        )
    return Reference(found["repository"], found["tag"] or "", found["digest"] or "")


def is_image(text: str) -> bool:
    """Whether a text is an image's name or id, and so can be part of a request."""
    return bool(_REFERENCE.match(text) or _ID.match(text))
