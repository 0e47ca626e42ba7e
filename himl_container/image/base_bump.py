"""Moving the pin of the base image on purpose, and what that changes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from himl_container.environment.model import BasePin, Lock
from himl_container.errors import EngineError
from himl_container.image.engine import Engine
from himl_container.image.model import ImageInfo
from himl_container.registry.reference import parse_reference

# One command for both questions: a container takes half a second. Nothing in it comes from outside.
_ASK = (
    "cat /etc/os-release 2>/dev/null; echo ==packages==; "
    "dpkg-query -W -f '${binary:Package} ${Version}\\n' 2>/dev/null; exit 0"
)
_PRETTY = re.compile(r'^PRETTY_NAME="?(.*?)"?$', re.MULTILINE)


@dataclass(frozen=True)
class BaseContents:
    """What an image is, as far as a reader wants to compare it.

    :param release: the operating system's own name of itself.
    :param packages: Debian packages and versions; empty where there is no dpkg.
    """

    id: str
    rootfs: str
    layers: tuple[str, ...]
    size: int
    release: str
    packages: Mapping[str, str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class BaseChange:
    """An old and a new pin, and what each holds; None for an image that this daemon does not have."""

    old: BasePin
    new: BasePin
    before: BaseContents | None
    after: BaseContents | None

    @property
    def changed(self) -> bool:
        """Whether the pin moved."""
        return self.old != self.new


def bump(lock: Lock, reference: str, new: BasePin, *, engine: Engine) -> tuple[Lock, BaseChange]:
    """Return the lock with another base, and what that changes.

    :param reference: the base image as the settings name it; recorded among what the lock was made from.
    """
    before, after = describe(lock.base, engine), describe(new, engine)
    moved = replace(lock, base=new, declared=replace(lock.declared, base=reference))
    return moved, BaseChange(lock.base, new, before, after)


def describe(pin: BasePin, engine: Engine) -> BaseContents | None:
    """Look into a pinned image; None when the daemon does not have it."""
    name = parse_reference(pin.reference)
    found = engine.inspect(name.at(pin.digest) if pin.digest else name.tagged)
    if found is None or (pin.rootfs and found.rootfs != pin.rootfs):
        return None
    release, packages = _look_inside(found, engine)
    environment = dict(str(entry).partition("=")[::2] for entry in _entries(found))
    return BaseContents(found.id, found.rootfs, found.diff_ids, found.size, release, packages, environment)


def change_lines(change: BaseChange) -> list[str]:
    """Return the change in words, one line each."""
    lines = [f"- {_pin_text(change.old)}", f"+ {_pin_text(change.new)}"] if change.changed else []
    before, after = change.before, change.after
    if before is None or after is None:
        missing = "old" if before is None else "new"
        return [*lines, f"The daemon does not have the {missing} image, so its contents cannot be compared."]
    shared = sum(1 for old, new in zip(before.layers, after.layers, strict=False) if old == new)
    lines.append(f"layers: {len(before.layers)} before, {len(after.layers)} after, {shared} shared")
    lines.append(f"size: {before.size / 1e6:.1f} MB before, {after.size / 1e6:.1f} MB after")
    if before.release != after.release:
        lines.append(f"system: {before.release or 'unknown'} -> {after.release or 'unknown'}")
    lines += difference("package", before.packages, after.packages)
    lines += difference("variable", before.environment, after.environment)
    return lines


def content_lines(pin: BasePin, contents: BaseContents | None) -> list[str]:
    """Return a pinned image in words, one line each."""
    lines = [_pin_text(pin)]
    if contents is None:
        return [
            *lines,
            "The daemon does not have this image; a build pulls it, or 'himl-container base load' brings it.",
        ]
    lines.append(f"system: {contents.release or 'unknown'}, {len(contents.packages)} Debian packages")
    lines.append(f"size: {contents.size / 1e6:.1f} MB in {len(contents.layers)} layers")
    return lines + [f"variable {name}={value}" for name, value in sorted(contents.environment.items())]


def difference(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return what was added, removed and changed between two mappings, sorted by name."""
    lines = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None:
            lines.append(f"+ {what} {name} {new}")
        elif new is None:
            lines.append(f"- {what} {name} {old}")
        elif old != new:
            lines.append(f"~ {what} {name} {old} -> {new}")
    return lines


def _look_inside(image: ImageInfo, engine: Engine) -> tuple[str, dict[str, str]]:
    """Ask the image itself; what has no shell tells nothing."""
    try:
        answer = engine.run(image.id, ["-c", _ASK], entrypoint=["/bin/sh"], timeout=60)
    except EngineError:
        return "", {}
    release, _, packages = answer.output.decode(errors="replace").partition("==packages==\n")
    named = _PRETTY.search(release)
    return named[1] if named else "", dict(line.partition(" ")[::2] for line in packages.splitlines())


def _entries(image: ImageInfo) -> list[object]:
    entries = image.config.get("Env")
    return entries if isinstance(entries, list) else []


def _pin_text(pin: BasePin) -> str:
    return f"{pin.reference} {pin.digest or f'layers {pin.rootfs}'}"
