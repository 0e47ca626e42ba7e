"""What differs between two locks, package by package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from himl_container.environment.model import BasePin, Lock, LockedConda, LockedWheel


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    :param kind: ``base``, ``platform``, ``conda``, ``pip``, ``variable`` or ``assumed`` (a virtual package).
    :param name: of the package or variable; empty for the base and the platform.
    :param old, new: what it was and is; empty where it was or is not there.
    """

    kind: str
    name: str
    old: str
    new: str

    @property
    def change(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        return "added" if not self.old else "removed" if not self.new else "changed"

    def __str__(self) -> str:
        subject = f"{self.kind} {self.name}".strip()
        if self.change == "changed":
            return f"~ {subject}: {self.old} -> {self.new}"
        return f"{'+' if self.change == 'added' else '-'} {subject}: {self.new or self.old}"


def lock_diff(old: Lock | None, new: Lock) -> tuple[Difference, ...]:
    """Return what differs, the base first, then packages by name; everything is added where there was no lock."""
    found = [
        _one("base", "", _base(old.base) if old else "", _base(new.base)),
        _one("platform", "", old.platform if old else "", new.platform),
        *_each("assumed", _virtual(old), _virtual(new)),
        *_each("conda", _conda(old.conda if old else ()), _conda(new.conda)),
        *_each("pip", _wheels(old.wheels if old else ()), _wheels(new.wheels)),
        *_each("variable", dict(old.variables) if old else {}, dict(new.variables)),
    ]
    return tuple(item for item in found if item is not None)


def _each(kind: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterable[Difference | None]:
    return (_one(kind, name, old.get(name, ""), new.get(name, "")) for name in sorted({*old, *new}))


def _one(kind: str, name: str, old: str, new: str) -> Difference | None:
    return None if old == new else Difference(kind, name, old, new)


def _conda(records: Iterable[LockedConda]) -> dict[str, str]:
    """Name -> version, build and, because a package may be replaced under its own name, channel and hash."""
    return {
        record.name: f"{record.version} {record.build} ({_channel(record)}, sha256 {record.sha256[:12]})"
        for record in records
    }


def _channel(record: LockedConda) -> str:
    return record.channel.removeprefix("https://conda.anaconda.org/")


def _wheels(wheels: Iterable[LockedWheel]) -> dict[str, str]:
    return {wheel.name: f"{wheel.version} ({_kind(wheel)}, sha256 {wheel.sha256[:12]})" for wheel in wheels}


def _kind(wheel: LockedWheel) -> str:
    return "private wheel" if wheel.private else "built from source" if wheel.sdist_url else "wheel"


def _base(pin: BasePin) -> str:
    return f"{pin.reference} {pin.digest or f'rootfs {pin.rootfs}'}"


def _virtual(lock: Lock | None) -> dict[str, str]:
    pairs = (text.partition("=") for text in (lock.virtual_packages if lock else ()))
    return {name: version for name, _, version in pairs}
