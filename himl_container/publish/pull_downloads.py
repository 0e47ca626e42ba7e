"""The layers of a pull: several come in at once, and are handed on in the image's order."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from himl_container.cache import Cache
from himl_container.image.model import Layer
from himl_container.image.store import digest_of
from himl_container.progress import Reporter
from himl_container.publish.pull_layers import fetch_layer
from himl_container.publish.pull_model import PullLayer
from himl_container.registry.api import Repository

AT_ONCE = 6
"""Layers that are fetched at the same time: some wait for the network while others are unpacked."""


class Downloads:
    """Layers on their way into the store. Use it as a context, and iterate over it once for the layers, in order.

    Leaving the context ends what is still under way: whole layers stay, and the begun ones go on next time.

    ``missing`` are the layers to fetch, by their diff id; ``received`` is the number of bytes that came in.

    :param layers: those that the daemon lacks; what the store has is not fetched.
    """

    def __init__(
        self, name: str, layers: Sequence[PullLayer], repository: Repository, *, cache: Cache, reporter: Reporter
    ) -> None:
        self._layers, self._repository, self._cache = layers, repository, cache
        self.missing = {layer.diff_id: layer for layer in layers if layer.where == "registry"}
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._futures: dict[str, Future[Path]] = {}
        self._failure: BaseException | None = None
        self._name, self._reporter = name, reporter
        self.received = 0

    def __enter__(self) -> Downloads:
        if self.missing:
            total = sum(layer.blob.size for layer in self.missing.values())
            subject = f"{self._name}, {len(self.missing)} of {len(self._layers)} layers"
            self._task = self._stack.enter_context(
                self._reporter.step("pull", subject, total=total, unit="bytes"),
            )
            pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pull")
            self._stack.callback(pool.shutdown, cancel_futures=True)
            self._futures = {diff_id: pool.submit(self._fetch, layer) for diff_id, layer in self.missing.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._stack.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Layer]:
        """Yield each layer as soon as it and those before it are there."""
        for layer in self._layers:
            future = self._futures.get(layer.diff_id)
            path = self._result(future) if future else self._cache.blob(layer.diff_id)
            yield Layer(layer.name, "", layer.diff_id, path.stat().st_size, 0, path)

    def _fetch(self, layer: PullLayer) -> Path:
        try:
            return fetch_layer(
                self._repository,
                layer.blob,
                layer.diff_id,
                cache=self._cache,
                received=self._received,
                check=self._check,
                size=layer.size,
            )
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error
            self._stopped.set()  # one layer that cannot be had ends the pull: the others need not go on
            raise

    def _result(self, future: Future[Path]) -> Path:
        try:
            return future.result()
        except StoppedError:
            raise self._failure or StoppedError from None  # what ended the pull is told, not what it ended

    def _received(self, amount: int) -> None:
        self._check()
        with self._lock:
            self.received += amount
            self._task.advance(amount)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise StoppedError


class StoppedError(Exception):
    """The layer is not wanted any more."""


def drop_damaged(layers: Sequence[PullLayer], cache: Cache) -> bool:
    """Remove the blobs that were found in the store and are not what their name says; whether there were any."""
    damaged = False
    for layer in layers:
        path = cache.blob(layer.diff_id)
        if layer.where == "store" and path.is_file() and digest_of(path) != layer.diff_id:
            path.unlink(missing_ok=True)
            damaged = True
    return damaged
