"""Why an image was built: each build records its inputs, and two records compared are the answer.

Values that may be secret (environment variables, Dockerfile lines) are recorded as hashes only.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from himl_container import __version__
from himl_container.cache import Cache
from himl_container.environment.model import EnvironmentSpec, Lock
from himl_container.image.fingerprint import FORMAT
from himl_container.image.model import ImagePlan, Layer, SystemPlan
from himl_container.settings import Settings

_KEPT = 20
_SHORT = 12

_ORDER = (
    *("file", "base image", "platform", "conda", "pip", "private wheel", "variable"),
    *("apt", "Dockerfile lines", "template", "himl-container"),
)

Inputs = Mapping[str, Mapping[str, str]]
"""Kind (``conda``, ``file``, ``base``...) -> name -> what it was: a version with a hash, or a hash."""


@dataclass(frozen=True)
class LayerRecord:
    """A layer as a build left it."""

    name: str
    key: str
    digest: str
    size: int


@dataclass(frozen=True)
class BuildRecord:
    """One build that made an image.

    :param built_at: seconds since 1970.
    :param tag: ``repository:tag``.
    """

    built_at: float
    fingerprint: str
    tag: str
    image_id: str
    inputs: Inputs
    layers: tuple[LayerRecord, ...]


@dataclass(frozen=True)
class Change:
    """One input that is not what it was. ``before`` or ``after`` is empty where it was added or removed."""

    kind: str
    name: str
    before: str
    after: str

    def __str__(self) -> str:
        subject = f"{self.kind} {self.name}".strip()
        if not self.before:
            return f"{subject} added" + (f": {self.after}" if self.after else "")
        if not self.after:
            return f"{subject} removed (was {self.before})"
        return f"{subject}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class LayerChange:
    """A layer of the last build, seen from the build before it."""

    name: str
    size: int
    state: Literal["kept", "made", "removed"]


@dataclass(frozen=True)
class Explanation:
    """Why the last build was needed, and whether the next one is.

    :param previous: the build before the last one of this project; None for the first.
    :param changes: what differs between the two.
    :param layers: of the last build, then those that it no longer has.
    :param now: what differs between the last build and the present inputs.
    :param needed: why the next build is needed; empty when it is not.
    """

    last: BuildRecord
    previous: BuildRecord | None
    changes: tuple[Change, ...]
    layers: tuple[LayerChange, ...]
    now: tuple[Change, ...] = ()
    needed: tuple[str, ...] = field(default=())

    @property
    def reason(self) -> str:
        """Why the last build was needed, as a sentence."""
        if self.previous is None:
            return "It was the first build of this project that this cache knows of."
        if not self.changes:
            return "No input had changed; the daemon no longer had the image."
        number = len(self.changes)
        return f"{number} input{'s' if number > 1 else ''} had changed since the build before."

    def as_json(self) -> dict[str, Any]:
        """Return the explanation as plain values."""
        return {**asdict(self), "reason": self.reason}


def record_build(
    settings: Settings,
    spec: EnvironmentSpec,
    lock: Lock,
    plan: ImagePlan,
    layers: Sequence[Layer],
    *,
    image_id: str,
    cache: Cache,
    now: float | None = None,
) -> None:
    """Keep what an image was made from; the newest twenty builds of a project are kept.

    :param now: seconds since 1970; the present when None.
    """
    record = BuildRecord(
        built_at=time.time() if now is None else now,
        fingerprint=plan.fingerprint,
        tag=plan.tag,
        image_id=image_id,
        inputs=inputs_of(settings, spec.files, lock, plan.system),
        layers=tuple(LayerRecord(layer.name, layer.key, layer.digest, layer.size) for layer in layers),
    )
    name = _project(settings)
    with cache.lock(f"record-{name}"):
        known = cache.read_json("builds", f"{name}.json")
        builds = [*(known["builds"] if _builds(known) else ()), asdict(record)]
        cache.write_json({"format": 1, "builds": builds[-_KEPT:]}, "builds", f"{name}.json")


def builds_of(settings: Settings, cache: Cache) -> tuple[BuildRecord, ...]:
    """Return the recorded builds of a project, oldest first; none where the record is missing or damaged."""
    return _builds(cache.read_json("builds", f"{_project(settings)}.json"))


def _builds(known: Any) -> tuple[BuildRecord, ...]:
    try:
        return tuple(
            BuildRecord(**{**build, "layers": tuple(LayerRecord(**layer) for layer in build["layers"])})
            for build in known["builds"]
        )
    except (TypeError, KeyError):
        return ()


def inputs_of(settings: Settings, files: Iterable[Path], lock: Lock, system: SystemPlan) -> Inputs:
    """Return everything that decides an image, named so that a reader knows it again."""
    inputs: dict[str, dict[str, str]] = {
        "file": {_relative(path, settings.root): _file_hash(path) for path in files},
        "base image": {lock.base.reference: (lock.base.digest or lock.base.rootfs).rpartition(":")[2][:_SHORT]},
        "conda": {p.name: f"{p.version} {p.build} ({p.sha256[:_SHORT]})" for p in lock.conda},
        "pip": {w.name: f"{w.version} ({w.sha256[:_SHORT]})" for w in lock.wheels if not w.private},
        "private wheel": {w.name: f"{w.version} ({w.sha256[:_SHORT]})" for w in lock.wheels if w.private},
        "variable": {name: _hash(value) for name, value in lock.variables},
        "apt": dict.fromkeys(system.apt, "wanted"),
        "Dockerfile lines": {"": _hash("\n".join(system.lines))} if system.lines else {},
        "template": {_relative(settings.template, settings.root): _file_hash(settings.template)}
        if settings.template
        else {},
        "platform": {"": lock.platform},
        "himl-container": {"format": FORMAT, "version": __version__},
    }
    return {kind: values for kind, values in inputs.items() if values}


def changes_between(old: Inputs, new: Inputs) -> tuple[Change, ...]:
    """Return what differs: first the files that the user wrote, then what followed from them."""
    found: list[Change] = []
    for kind in sorted({*old, *new}, key=lambda kind: (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), kind)):
        before, after = old.get(kind, {}), new.get(kind, {})
        different = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
        found += [Change(kind, name, before.get(name, ""), after.get(name, "")) for name in different]
    return tuple(found)


def layer_changes(old: Sequence[LayerRecord], new: Sequence[LayerRecord]) -> tuple[LayerChange, ...]:
    """Return each layer of the new build, made or kept, and then the layers that it no longer has."""
    digests, names = {layer.digest for layer in old}, {layer.name for layer in new}
    changes = [LayerChange(one.name, one.size, "kept" if one.digest in digests else "made") for one in new]
    return (*changes, *(LayerChange(one.name, one.size, "removed") for one in old if one.name not in names))


def explain(settings: Settings, cache: Cache) -> Explanation | None:
    """Return why the last build of a project was needed; None where none is recorded."""
    builds = builds_of(settings, cache)
    if not builds:
        return None
    last, previous = builds[-1], builds[-2] if len(builds) > 1 else None
    return Explanation(
        last=last,
        previous=previous,
        changes=changes_between(previous.inputs, last.inputs) if previous else (),
        layers=layer_changes(previous.layers if previous else (), last.layers),
    )


def _project(settings: Settings) -> str:
    return hashlib.sha256(f"{os.path.realpath(settings.root)}\0{settings.image_name}".encode()).hexdigest()[:32]


def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root) if path.is_relative_to(root) else str(path)


def _file_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:_SHORT]
    except OSError:
        return "unreadable"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_SHORT]
