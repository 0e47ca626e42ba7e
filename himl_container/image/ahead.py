"""Layers of private wheels, made while a registry is still being asked for the image.

The most usual change is that of a private wheel. Its layer takes the time of other programs (uv, the environment's own
Python), the questions to the registry that of its answers, so both go on at once. Only what lies on this machine is
used and nothing is fetched, so an empty machine whose image is in the registry does nothing here.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from himl_container.cache import Cache
from himl_container.errors import HimlError
from himl_container.progress import Reporter
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.image.model import LayerPlan
    from himl_container.image.prepare import Prepared

_LARGEST = 64 << 20
"""Bytes of wheels above which nothing is made ahead: who presses Ctrl-C, or has no registry, is not kept waiting."""


class WheelsAhead(AbstractContextManager["WheelsAhead"]):
    """The private wheels of an image on their way into the store; leaving the context waits for the work.

    What fails here fails again, and is told, where the layers are needed.
    """

    def __init__(self, prepared: Prepared, settings: Settings, *, cache: Cache, reporter: Reporter) -> None:
        self._prepared = prepared
        self._settings = settings
        self._cache = cache
        self._reporter = reporter
        self._plans: list[LayerPlan] = []
        self._pool: ThreadPoolExecutor | None = None
        self._made: Future[tuple[str, ...]] | None = None

    def __enter__(self) -> WheelsAhead:
        if self._worthwhile():
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
            self._made = self._pool.submit(self._make)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @property
    def active(self) -> bool:
        """Whether there is anything to make: then the image is most probably new."""
        return self._made is not None

    def made(self) -> tuple[str, ...]:
        """Wait for the layers, and return the names of those that were made."""
        if self._made is None:
            return ()
        try:
            return self._made.result()
        except (HimlError, OSError):
            return ()

    def _worthwhile(self) -> bool:
        from himl_container.image.interpreter import has_interpreter

        self._plans = self._missing()
        wheels = [wheel for plan in self._plans for wheel in plan.wheels]
        small = 0 < sum(wheel.size for wheel in wheels) <= _LARGEST
        return small and has_interpreter(self._prepared.lock.conda, cache=self._cache)

    def _missing(self) -> list[LayerPlan]:
        from himl_container.image.plan import plan_layers
        from himl_container.image.store import LayerStore

        store = LayerStore(self._cache)
        # Which paths Conda packages share decides nothing of a wheel's layer.
        plans = plan_layers(self._prepared.lock)
        return [plan for plan in plans if any(wheel.private for wheel in plan.wheels) and store.get(plan.key) is None]

    def _make(self) -> tuple[str, ...]:
        from himl_container.image.assembly import wheel_paths
        from himl_container.image.layers import build_layers

        layers = build_layers(
            self._plans,
            self._prepared.lock,
            wheel_paths=wheel_paths(self._prepared.spec),
            cache=self._cache,
            settings=self._settings,
            reporter=self._reporter,
            indexes=self._prepared.spec.indexes,
        )
        return tuple(layer.name for layer in layers)
