"""Conda packages on their way into layers: laid out in batches, so that the first are written meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from threading import Lock as Mutex
from types import TracebackType

from himl_container.environment.channels import Mirrors
from himl_container.environment.model import LockedConda
from himl_container.errors import BuildError
from himl_container.image.layout import StagedPackage, read_staged
from himl_container.image.model import PREFIX
from himl_container.image.packages import DamagedPackageCacheError, Installation, install
from himl_container.image.plan import python_of
from himl_container.progress import Reporter

_BATCH = 32_000_000
"""Bytes of archives (compressed) of a batch, about a second of work; one layer may have more."""


class Staging(AbstractContextManager["Staging"]):
    """Packages that are being laid out as they are to be below the final prefix. Safe for several threads.

    :param groups: packages that are needed together, in the order in which they are needed.
    :param folder: an empty folder for the work.
    :param conda: all packages of the environment: noarch packages are laid out for its interpreter.
    :param fresh: fetch everything anew instead of trusting rattler's cache.
    """

    def __init__(
        self,
        groups: Iterable[Sequence[LockedConda]],
        folder: Path,
        *,
        conda: Iterable[LockedConda],
        mirrors: Mirrors,
        reporter: Reporter,
        fresh: bool = False,
    ) -> None:
        self._batches = _batches(groups)
        self._number = {package.name: number for number, batch in enumerate(self._batches) for package in batch}
        self._python = python_of(conda)
        self._folder = folder
        self._mirrors = mirrors
        self._reporter = reporter
        self._fresh = fresh
        self._staged: dict[int, dict[str, StagedPackage]] = {}
        self._mutexes = [Mutex() for _ in self._batches]
        self._closed = False
        self._stack = ExitStack()

    def __enter__(self) -> Staging:
        if self._batches:
            (self._folder / "linked").mkdir()
            self._installation = self._stack.enter_context(
                Installation(
                    [self._with_python(batch) for batch in self._batches],
                    self._folder / "linked",
                    prefix=PREFIX,
                    mirrors=self._mirrors,
                    reporter=self._reporter,
                    fresh=self._fresh,
                )
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the work; whoever waits for a package gets an error."""
        self._closed = True
        self._stack.close()

    def packages(self, wanted: Iterable[LockedConda]) -> dict[str, StagedPackage]:
        """Wait until packages are laid out, and return them by name.

        :raises ArtifactError: a package cannot be fetched, is not the one that the lock names, or is malformed.
        """
        names = [package.name for package in wanted]
        for number in sorted({self._number[name] for name in names}):
            with self._mutexes[number]:
                if number not in self._staged:
                    self._staged[number] = self._read(number)
        return {name: self._staged[self._number[name]][name] for name in names}

    def _read(self, number: int) -> dict[str, StagedPackage]:
        try:
            root = self._installation.wait(number)
        except DamagedPackageCacheError as error:
            if self._closed:
                raise BuildError("the build was stopped") from error
            if not self._fresh:
                self._reporter.warn(f"{error}: not what rattler's cache should hold; the packages are fetched again")
            folder = self._folder / f"again-{number}"
            folder.mkdir()
            root = install(
                self._with_python(self._batches[number]),
                folder,
                prefix=PREFIX,
                mirrors=self._mirrors,
                reporter=self._reporter,
                fresh=True,
            )
        return {package.name: read_staged(package, root) for package in self._batches[number]}

    def _with_python(self, packages: Iterable[LockedConda]) -> list[LockedConda]:
        wanted = {package.name: package for package in packages}
        if self._python is not None and any(package.noarch == "python" for package in wanted.values()):
            wanted.setdefault("python", self._python)
        return [wanted[name] for name in sorted(wanted)]


def _batches(groups: Iterable[Sequence[LockedConda]]) -> list[list[LockedConda]]:
    """Join groups in their order; what fills a batch by itself keeps nothing else waiting."""
    batches: list[list[LockedConda]] = []
    room = 0
    for group in filter(None, groups):
        size = sum(package.size for package in group)
        if size > room:
            batches.append([])
            room = _BATCH
        batches[-1] += group
        room -= size
    return batches
