"""From plans to layers in the store: only what is missing is laid out, compiled and written.

Packages are laid out in the order of the layers, and each layer is written as a tar as soon as its packages are
there, two at a time. A layer's content is checked against the packages' own hashes while it is written, because it
comes by hard links from caches that other tools write to; what does not agree is fetched anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from himl_container.cache import Cache
from himl_container.environment.model import Lock, LockedWheel, PipIndexes
from himl_container.errors import ArtifactError, BuildError
from himl_container.image.bytecode import Compiler, DamagedBytecodeError, Module
from himl_container.image.clobber import refuse_link_scripts, remember_paths
from himl_container.image.interpreter import ensure_interpreter
from himl_container.image.layout import StagedPackage, conda_meta, entries_of
from himl_container.image.model import PREFIX, Layer, LayerPlan
from himl_container.image.packages import DamagedPackageCacheError
from himl_container.image.plan import history, needs_python, python_of, state
from himl_container.image.staging import Staging
from himl_container.image.store import LayerStore
from himl_container.image.tar import ContentError, Entry, write_tar
from himl_container.image.wheels import StagedWheel, WheelSource, stage_wheels
from himl_container.progress import Reporter
from himl_container.settings import Settings

_DAMAGES = (ContentError, DamagedPackageCacheError, DamagedBytecodeError)

_WRITERS = 2
"""Layers written at a time: hashing and writing leave the interpreter lock, more than two only compete for the disk."""


def build_layers(
    plans: Sequence[LayerPlan],
    lock: Lock,
    *,
    wheel_paths: Mapping[str, Path],
    cache: Cache,
    settings: Settings,
    reporter: Reporter,
    on_layer: Callable[[Layer], None] | None = None,
    indexes: PipIndexes | None = None,
) -> tuple[Layer, ...]:
    """Return the layers of the plans, in their order; those that the store lacks are made.

    Safe in several processes at once: each layer is made by one of them, the others wait for it. Nothing that a killed
    process leaves is ever taken for a layer.

    :param wheel_paths: where private wheels lie, by sha256.
    :param on_layer: called with each layer, in order, as soon as it and all before it are there.
    :param indexes: package indexes whose credentials a wheel's download may need.
    :raises ArtifactError: a package or wheel cannot be fetched, is another one, does not fit, or is malformed.
    :raises StorageError: the disk is full.
    """
    indexes = indexes or PipIndexes(settings.pip_extra_index_urls, settings.pip_index_url)
    store = LayerStore(cache)
    there = _found(plans, store)
    with ExitStack() as stack:
        for plan in sorted(plans, key=lambda plan: plan.key):  # one order for all processes: no deadlock
            if plan.key not in there:
                stack.enter_context(cache.lock(f"layer-{plan.key[:40]}"))
        there = _found(plans, store)
        missing = [plan for plan in plans if plan.key not in there]
        layers = []
        with _Work(_Source(lock, wheel_paths, indexes), cache, settings, reporter) as work:
            pending = work.start(missing, store) if missing else {}
            for plan in plans:
                layer = there.get(plan.key) or pending[plan.key].result()
                layers.append(layer)
                if on_layer is not None:
                    on_layer(layer)
    return tuple(layers)


def _found(plans: Iterable[LayerPlan], store: LayerStore) -> dict[str, Layer]:
    return {plan.key: layer for plan in plans if (layer := store.get(plan.key, plan.name)) is not None}


@dataclass(frozen=True)
class _Source:
    """What layers are made from; parameters as of :func:`build_layers`."""

    lock: Lock
    wheel_paths: Mapping[str, Path]
    indexes: PipIndexes


@dataclass(frozen=True)
class _Staged:
    """What has been laid out of a layer, by the packages' names."""

    conda: Mapping[str, StagedPackage]
    wheels: Mapping[str, StagedWheel]


@dataclass(frozen=True)
class _Staging:
    """What is being laid out of several layers."""

    conda: Staging
    wheels: Future[Mapping[str, StagedWheel]]

    def of(self, plan: LayerPlan) -> _Staged:
        """Wait for what a layer needs."""
        return _Staged(self.conda.packages(plan.conda), self.wheels.result() if plan.wheels else {})


class _Work:
    """Missing layers in the making: temporary folders, the compiler, and the threads that write."""

    def __init__(self, source: _Source, cache: Cache, settings: Settings, reporter: Reporter) -> None:
        self.lock = source.lock
        self.source = source
        self.cache = cache
        self.settings = settings
        self.reporter = reporter
        self.stop = threading.Event()
        self.interpreter: Path | None = None
        self.compiler: Compiler | None = None
        self.staging: _Staging | None = None
        self.stack = ExitStack()

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, *details: object) -> None:
        self.stop.set()
        try:
            if self.staging is not None:
                self.staging.conda.close()  # or a thread that writes would wait for packages that nobody wants any more
        finally:
            self.stack.close()  # also where Ctrl-C came in the middle of that

    def start(self, missing: Sequence[LayerPlan], store: LayerStore) -> dict[str, Future[Layer]]:
        """Begin to lay out and to write all that is missing; return the layers to come, by key."""
        task = self.stack.enter_context(self.reporter.step("assemble", "layers", total=len(missing), unit="layers"))
        folder = self.stack.enter_context(self.cache.new_folder())
        self.staging = staging = self.stack.enter_context(self._stage(missing, folder, fresh=False))
        pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="layer")
        self.stack.callback(pool.shutdown, cancel_futures=True)

        def make(plan: LayerPlan) -> Layer:
            staged = staging.of(plan)
            paths = {
                name: remember_paths(package, self.lock, cache=self.cache) for name, package in staged.conda.items()
            }
            refuse_link_scripts(plan.conda, paths, self.settings)
            task.note(plan.name)
            layer = self._make(plan, staged, store)
            task.advance(1)
            return layer

        return {plan.key: pool.submit(make, plan) for plan in missing}

    @contextmanager
    def _stage(self, plans: Sequence[LayerPlan], folder: Path, *, fresh: bool) -> Iterator[_Staging]:
        """Begin to lay out the packages of layers: Conda's by rattler, wheels by uv, beside each other."""
        for name in ("conda", "pip"):
            (folder / name).mkdir()
        conda = Staging(
            [plan.conda for plan in plans],
            folder / "conda",
            conda=self.lock.conda,
            mirrors=self.settings.channel_mirrors,
            reporter=self.reporter,
            fresh=fresh,
        )
        wheels = [wheel for plan in plans for wheel in plan.wheels]
        with ThreadPoolExecutor(1, thread_name_prefix="wheels") as pool, conda:
            self._prepare_python(plans)
            yield _Staging(conda, pool.submit(self._stage_wheels, wheels, folder / "pip", fresh))

    def _prepare_python(self, missing: Sequence[LayerPlan]) -> None:
        """Lay out the interpreter and start the compiler, where any missing layer has modules."""
        python = python_of(self.lock.conda)
        wheels = any(plan.wheels for plan in missing)
        if python is None and wheels:
            raise BuildError("the environment has wheels but no Python", hint="Add 'python' to the dependencies.")
        if (
            self.compiler is not None
            or python is None
            or not (wheels or any(needs_python(p) for plan in missing for p in plan.conda))
        ):
            return
        self.interpreter = ensure_interpreter(
            self.lock.conda, cache=self.cache, mirrors=self.settings.channel_mirrors, reporter=self.reporter
        )
        self.compiler = self.stack.enter_context(Compiler(self.interpreter, python.sha256, cache=self.cache))

    def _stage_wheels(self, wheels: Sequence[LockedWheel], folder: Path, fresh: bool) -> Mapping[str, StagedWheel]:
        if not wheels:
            return {}
        assert self.interpreter is not None
        source = WheelSource(self.lock, self.interpreter, self.source.wheel_paths, self.cache, self.source.indexes)
        with self.reporter.step("unpack", "wheels", total=len(wheels), unit="wheels") as task:
            staged = stage_wheels(wheels, folder, source, fresh=fresh)
            task.advance(len(wheels))
        return staged

    def _make(self, plan: LayerPlan, staged: _Staged, store: LayerStore) -> Layer:
        try:
            return self._write(plan, staged, store, fresh=False)
        except _DAMAGES as error:
            self.reporter.warn(f"a package in a shared cache was changed ({error}); it is fetched again")
        with self.cache.new_folder() as folder, self._stage([plan], folder, fresh=True) as staging:
            try:
                return self._write(plan, staging.of(plan), store, fresh=True)
            except _DAMAGES as error:
                raise ArtifactError(f"the package is malformed: {error}", where=plan.name) from error

    def _write(self, plan: LayerPlan, staged: _Staged, store: LayerStore, *, fresh: bool) -> Layer:
        entries = self._entries(plan, staged, fresh=fresh)
        with self.cache.new_file() as temporary:
            with temporary.open("wb", buffering=0) as file:
                try:
                    written = write_tar(entries, _Stoppable(file, self.stop))  # type: ignore[arg-type]  # only write()
                except ValueError as error:
                    raise ArtifactError(
                        f"the packages cannot share one file system: {error}", where=plan.name
                    ) from error
            return store.put(plan.key, plan.name, written, temporary)

    def _entries(self, plan: LayerPlan, staged: _Staged, *, fresh: bool) -> Iterable[Entry]:
        """Return a layer's entries. Where two packages have one path, the contents are equal (see ``clobber``)."""
        entries: list[Entry] = []
        for package in plan.conda:
            without = frozenset(path for name, path in plan.lost if name == package.name)
            entries += self._conda_entries(staged.conda[package.name], without, fresh=fresh)
        for wheel in plan.wheels:
            content = staged.wheels[wheel.name].entries
            entries += content
            entries += self._compiled(wheel.sha256, content, Module, fresh=fresh)
        if not plan.conda and not plan.wheels:
            entries.append(Entry(f"{PREFIX[1:]}/conda-meta/history", data=history(self.lock)))
            if state(self.lock):
                entries.append(Entry(f"{PREFIX[1:]}/conda-meta/state", data=state(self.lock)))
        return {entry.path: entry for entry in entries}.values()

    def _conda_entries(self, staged: StagedPackage, without: frozenset[str], *, fresh: bool) -> list[Entry]:
        entries = entries_of(staged)
        compiled = []
        if needs_python(staged.package):
            compiled = self._compiled(staged.package.sha256, entries, staged.module, fresh=fresh)
        if without:
            entries = [entry for entry in entries if entry.path[len(PREFIX) :] not in without]
            compiled = [entry for entry in compiled if _source(entry.path)[len(PREFIX) :] not in without]
        meta = conda_meta(staged, without=without, compiled=[entry.path[len(PREFIX) :] for entry in compiled])
        return [*entries, *compiled, meta]

    def _compiled(
        self, package: str, entries: Iterable[Entry], module: Callable[[str, Path], Module], *, fresh: bool
    ) -> list[Entry]:
        """Return the bytecode of what the interpreter may import: the modules below ``lib/pythonX.Y``."""
        if self.compiler is None:
            return []
        library = f"{PREFIX[1:]}/lib/python{'.'.join(self.lock.python_version.split('.')[:2])}/"
        modules = [
            module(entry.path[len(PREFIX) :], entry.source)
            for entry in entries
            if entry.source is not None and entry.path.startswith(library) and entry.path.endswith(".py")
        ]
        return self.compiler.compile(package, modules, fresh=fresh)


def _source(path: str) -> str:
    """Return the module of a ``__pycache__/NAME.TAG.pyc``."""
    folder, _, name = path.rpartition("/")
    return f"{folder.rpartition('/')[0]}/{name.removesuffix('.pyc').rpartition('.')[0]}.py"


class _Stoppable:
    """A file whose next write fails once the build has failed elsewhere or was interrupted."""

    def __init__(self, file: BinaryIO, stop: threading.Event) -> None:
        self._file = file
        self._stop = stop

    def write(self, data: bytes) -> int:
        if self._stop.is_set():
            raise BuildError("the build was stopped")
        view = memoryview(data)
        written = 0
        while written < len(view):  # unbuffered: a nearly full disk takes less than it is given
            written += self._file.write(view[written:])
        return written
