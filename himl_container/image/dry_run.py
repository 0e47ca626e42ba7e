"""What a build would do, without doing any of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from himl_container.cache import Cache
from himl_container.environment.model import BasePin, LockedConda, LockedWheel
from himl_container.errors import EngineError
from himl_container.image.engine import Engine, connect
from himl_container.image.model import LayerPlan, SystemPlan
from himl_container.progress import Reporter
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.image.store import LayerStore


@dataclass(frozen=True)
class PlannedLayer:
    """A layer of the plan.

    :param cached: whether it is in the store, so that nothing of it is downloaded, laid out or written.
    :param download: bytes of the archives of its packages.
    """

    name: str
    packages: tuple[str, ...]
    cached: bool
    download: int


@dataclass(frozen=True)
class BuildPlan:
    """What ``build`` would do.

    :param stale: why the lock would be made anew; empty when it is current.
    :param exists: whether the daemon has the image; None when no daemon answered.
    """

    tag: str
    fingerprint: str
    stale: tuple[str, ...]
    exists: bool | None
    base: BasePin
    system: SystemPlan
    layers: tuple[PlannedLayer, ...]
    tests: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Return the plan as plain values."""
        return asdict(self)

    def as_text(self) -> str:
        """Return the plan for people."""
        missing = [layer for layer in self.layers if not layer.cached]
        state = {None: "no daemon answers", True: "is there already: nothing to do", False: "is not there yet"}
        lines = [f"image   {self.tag}", f"        {state[self.exists]}"]
        lines.append("lock    " + ("is current" if not self.stale else "would be made anew: " + "; ".join(self.stale)))
        lines.append(f"base    {self.base.reference}  {self.base.digest or self.base.rootfs}")
        lines += [f"system  apt {name}" for name in self.system.apt]
        lines += [f"system  {line}" for line in self.system.lines]
        lines += [f"layer   {'kept' if x.cached else 'MAKE'}  {x.name}  ({_some(x.packages)})" for x in self.layers]
        lines += [f"test    {command}" for command in self.tests]
        lines.append(f"{len(self.layers)} layers, {len(missing)} to make")
        return "\n".join(lines)


def describe_build(
    settings: Settings, *, reporter: Reporter, locked: bool = False, connect_engine: Callable[[Cache], Engine] = connect
) -> BuildPlan:
    """Return what ``build`` would do. A stale lock is solved anew, but not written.

    :raises StaleLockError: ``locked``, and the lock is missing or stale.
    """
    from himl_container.image.prepare import plan_image, prepare
    from himl_container.image.store import LayerStore

    cache = Cache(settings.cache_dir)
    prepared = prepare(settings, engine=lambda: connect_engine(cache), reporter=reporter, locked=locked, write=False)
    plan = plan_image(prepared, settings, cache=cache, reporter=reporter, fetch=False)
    store = LayerStore(cache)
    return BuildPlan(
        tag=prepared.tag,
        fingerprint=prepared.fingerprint,
        stale=prepared.stale,
        exists=_exists(prepared.tag),
        base=plan.base,
        system=plan.system,
        layers=tuple(_planned(layer, store) for layer in plan.layers),
        tests=settings.test,
    )


def _planned(plan: LayerPlan, store: LayerStore) -> PlannedLayer:
    packages: list[LockedConda | LockedWheel] = [*plan.conda, *plan.wheels]
    return PlannedLayer(
        name=plan.name,
        packages=tuple(f"{package.name} {package.version}" for package in packages),
        cached=store.get(plan.key) is not None,
        download=sum(package.size for package in packages),
    )


def _exists(tag: str) -> bool | None:
    from himl_container.image.probe import image_exists

    try:
        return image_exists(tag) is not None
    except EngineError:
        return None


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
