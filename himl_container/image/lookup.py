"""The short way to an image when nothing has changed: one request to the daemon, and no import that takes time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from himl_container.cache import Cache
from himl_container.image.fingerprint import remembered, tag_of, tested
from himl_container.image.probe import image_exists
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.image.model import Layer
    from himl_container.image.smoke import SmokeReport


@dataclass(frozen=True)
class BuiltImage:
    """An image in the daemon.

    :param tag: ``repository:tag``; the tag is the fingerprint's first 32 hex digits.
    :param id: the daemon's id of the image.
    :param built: whether this call made it, or found it.
    :param layers: our own layers; empty where the image was found.
    :param tested: whether it has passed the test of these settings.
    """

    tag: str
    id: str
    fingerprint: str
    built: bool
    layers: tuple[Layer, ...] = ()
    smoke: SmokeReport | None = None
    tested: bool = True


def find_image(settings: Settings, *, test: bool = True) -> BuiltImage | None:
    """Return the image of these settings when nothing has changed since it was built.

    None means "not known", never "does not exist": the long way decides.

    :param test: only an image that has passed the test of these settings.
    :raises EngineError: the daemon does not answer.
    """
    cache = Cache(settings.cache_dir)
    known = remembered(settings, cache)
    if known is None:
        return None
    passed = tested(settings, known, cache)
    if test and not passed:
        return None
    tag = tag_of(settings.image_name, known)
    found = image_exists(tag)
    return BuiltImage(tag, found.id, known, built=False, tested=passed) if found else None
