"""Comparing images that were found, and an image with a lock; pure functions of what was found.

An image's identity is its configuration: it names the layers' content by digest, so two images with one configuration
digest are the same to the last byte of content. A manifest's digest says the same and, beyond that, in which
compressed form a registry has the layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from himl_container.environment.diff import lock_diff
from himl_container.environment.model import Lock
from himl_container.publish.manifest import FINGERPRINT, LOCK
from himl_container.publish.proof import artifacts_of
from himl_container.publish.verify_model import Parting, PartName
from himl_container.publish.view import ImageView, settings_between

_FINGERPRINT_TAG = re.compile(r".+:([0-9a-f]{32})(?:@.*)?\Z")


@dataclass(frozen=True)
class Held:
    """An image as one part has it.

    :param ids: every digest that means this image: of its configuration, its manifest, an index that lists it.
    :param view: what it is made of; None where only the digests are known.
    :param lock: sha256 (hex) of the lock that chose it, as the part recorded it; empty where it did not.
    """

    part: PartName
    ids: frozenset[str]
    view: ImageView | None = None
    fingerprint: str = ""
    lock: str = ""


@dataclass(frozen=True)
class LockFacts:
    """The lock in the working folder, and what follows from it.

    :param digest: ``sha256:<hex>`` of the file's bytes.
    :param fingerprint: of the lock and the other inputs of the settings.
    :param layers: diff ids by name, of those layers that this machine has made or fetched by the lock.
    """

    lock: Lock
    digest: str
    fingerprint: str
    layers: Mapping[str, str] = field(default_factory=dict, hash=False)


def held(part: PartName, view: ImageView) -> Held:
    """Return a part's image by its description."""
    ids = frozenset(filter(None, (view.config_digest, view.digest, view.index)))
    return Held(part, ids, view, view.fingerprint)


def compare_images(left: Held, right: Held) -> Iterator[Parting]:
    """Yield where two images part: in nothing, in layers, or in what cannot be told."""
    parts = (left.part, right.part)
    if left.ids & right.ids:
        return
    if left.view is None or right.view is None:
        yield Parting(parts, "image", "", _one(left), _one(right))
        return
    before, after = left.view.layers, right.view.layers
    if len(before) != len(after):
        yield Parting(parts, "layers", "", str(len(before)), str(len(after)))
    differing = [
        Parting(parts, "layer", _named(one.name, other.name), one.diff_id, other.diff_id)
        for one, other in zip(before, after, strict=False)
        if one.diff_id != other.diff_id
    ]
    yield from differing
    if not differing and len(before) == len(after):
        yield from _settings(parts, left.view, right.view)


def _settings(parts: tuple[PartName, PartName], left: ImageView, right: ImageView) -> Iterator[Parting]:
    """Yield where two images part that have the same layers: in variables, labels, the command, a time.

    containerd's store does not tell the configuration's digest, so there the settings themselves decide.
    """
    names = settings_between(left, right)
    for name in names:
        yield Parting(parts, "setting", name, "one value", "another")
    if not names and left.config_digest and right.config_digest:
        yield Parting(parts, "configuration", "", left.config_digest, right.config_digest)


def compare_lock(image: Held, lock: LockFacts, attached: Lock | None) -> Iterator[Parting]:
    """Yield where an image parts from the lock.

    :param attached: the lock that is attached to the image in its registry; None where there is none, or where it was
        not asked for.
    """
    parts: tuple[PartName, PartName] = (image.part, "lock")
    view = image.view
    stated = view.fingerprint or view.annotations.get(FINGERPRINT, "") if view is not None else image.fingerprint
    tag = _FINGERPRINT_TAG.match(view.name if view is not None else "")
    found = []
    if stated != lock.fingerprint:
        found.append(Parting(parts, "fingerprint", "", stated, lock.fingerprint))
    if tag and tag[1] != lock.fingerprint[:32]:
        found.append(Parting(parts, "tag", "", tag[1], lock.fingerprint[:32]))
    noted = (view.annotations.get(LOCK, "") if view is not None else "") or (
        f"sha256:{image.lock}" if image.lock else ""
    )
    if noted and noted != lock.digest:
        found.append(Parting(parts, "lock", "", noted, lock.digest))
    yield from found
    if view is None:
        return
    packages = [
        Parting(parts, "package", f"{one.kind} {one.name}".strip(), one.old, one.new)
        for one in (lock_diff(attached, lock.lock) if attached is not None else ())
    ]
    yield from packages
    wanted = artifacts_of(lock.lock)
    if not packages and view.labels.get("himl.artifacts", "") != wanted:
        yield Parting(parts, "packages", "", view.labels.get("himl.artifacts", ""), wanted)
    present = frozenset(view.diff_ids)
    by_name = {layer.name: layer.diff_id for layer in view.layers}
    for name, diff_id in lock.layers.items():
        if diff_id not in present:
            yield Parting(parts, "layer", name, by_name.get(name, ""), diff_id)


def _one(image: Held) -> str:
    """Return one digest for a message."""
    view = image.view
    return (view.digest or view.config_digest) if view is not None else min(image.ids, default="")


def _named(left: str, right: str) -> str:
    """Return what a layer is called; a daemon knows the names only of layers that were made or pulled here."""
    known = dict.fromkeys(name for name in (left, right) if not name.startswith("layer "))
    return " / ".join(known) or left
