"""Which imports need not be tried again: those that succeeded before with the same inputs.

What an import can depend on is more than what its package declares: a module uses others where it finds them, and
another package's program or library. So the inputs of every import are

- all that Python is made of: each Conda package that needs Python, all that these depend on, and every wheel. For the
  import of a Conda package only that of a private wheel counts which can reach it: the names of its modules, and what
  runs or registers itself at a start (``.pth`` files, entry points);
- each other package that puts files among Python's, or that disagrees with another package about a file;
- the names of the other packages' programs and libraries, so that one that comes or goes is noticed;
- what the import was seen to use of the other packages (:mod:`himl_container.image.inside.trials`), with what these
  depend on;
- the base image's pin, the layers that are not the environment's, and the image's variables;
- the layers' format and the sources of the test.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment.model import Lock, LockedWheel
from himl_container.image import smoke_container
from himl_container.image.clobber import excluded_paths
from himl_container.image.model import PREFIX, ImageInfo, LayerPlan
from himl_container.image.plan import FORMAT, plan_layers
from himl_container.image.smoke_inputs import inputs_of_imports, owners_of_paths
from himl_container.image.store import LayerStore
from himl_container.progress import SilentReporter
from himl_container.settings import Settings

Import = tuple[str, str]
"""A kind of import (a declared package's modules, or a module that the settings name) and its name."""

DECLARED = "declared"
"""The kind of import that stands for a declared package."""

_FORMAT = 3
_VARIANTS = 8  # successes that are kept of one import, for going back and forth between versions of what it used


class Memory:
    """The successful imports of images like this one.

    :param key: sha256 (hex) of the inputs that all imports share; empty means that nothing can be remembered.
    :param conda_key: the same for the imports of declared Conda packages.
    :param conda: names of these packages.
    :param others: digest of each package that is not among these, with what it depends on.
    :param owners: gives the package of each path (relative to the prefix); asked only where a path was used.
    """

    def __init__(
        self,
        cache: Cache,
        key: str,
        others: Mapping[str, str],
        owners: Callable[[], Mapping[str, str]],
        *,
        conda_key: str = "",
        conda: frozenset[str] = frozenset(),
    ) -> None:
        self._cache = cache
        self._key = key
        self._conda_key = conda_key
        self._conda = conda
        self._others = others
        self._owners = owners

    def known(self, imports: Iterable[Import]) -> set[Import]:
        """Return those of the imports that succeeded before with the inputs that they have now."""
        return {one for one in imports if self._key and any(map(self._holds, self._read(one)))}

    def keep(self, imports: Iterable[Import], uses: Iterable[str] | None) -> None:
        """Remember that these imports succeeded.

        :param uses: files of the environment that were used; None where that could not be seen, so that nothing is
            remembered.
        """
        if not self._key or uses is None:
            return
        paths = {path.removeprefix(PREFIX + "/") for path in uses}
        known = self._owners() if paths else {}
        owners = {known.get(path) for path in paths}
        if None in owners:  # a shell, or a list of what is installed: it may depend on everything
            return
        used = {name: digest for name, digest in self._others.items() if name in owners}
        for one in imports:
            earlier = [uses for uses in self._read(one) if uses != used]
            self._cache.write_json([used, *earlier[: _VARIANTS - 1]], *self._place(one))

    def _place(self, one: Import) -> tuple[str, ...]:
        key = self._conda_key if one[0] == DECLARED and one[1] in self._conda else self._key
        return ("memo", "imports", f"{_digest([key, *one])}.json")

    def _read(self, one: Import) -> list[dict[str, str]]:
        """Return what an import used of the other packages, each time that it succeeded with different ones."""
        value = self._cache.read_json(*self._place(one))
        return [uses for uses in value if isinstance(uses, dict)] if isinstance(value, list) else []

    def _holds(self, uses: Mapping[str, str]) -> bool:
        return all(self._others.get(name) == digest for name, digest in uses.items())


def memory_of(info: ImageInfo, lock: Lock, settings: Settings, cache: Cache) -> Memory:
    """Return what is remembered for an image.

    :param info: of the image; it counts as a whole where its layers are not those of the lock in the cache's store.
    """
    inputs = inputs_of_imports(lock, settings, cache)
    if inputs is None:
        return Memory(cache, "", {}, dict)
    content = [
        [_FORMAT, FORMAT],
        smoke_container.sources(),
        sorted(package.sha256 for package in lock.conda if package.name in inputs.python),
        sorted(wheel.sha256 for wheel in lock.wheels if not wheel.private),
        inputs.code,
        astuple(lock.base),
        _foreign(info, plan_layers(lock, excluded=_excluded(lock, settings, cache) if inputs.contested else {}), cache),
        sorted(info.config.get("Env") or ()),  # type: ignore[call-overload]  # a list of texts (Engine API)
    ]
    private = [wheel for wheel in lock.wheels if wheel.private]
    wheels = {wheel.name for wheel in lock.wheels}
    return Memory(
        cache,
        _digest([*content, sorted(wheel.sha256 for wheel in private)]),
        inputs.others,
        functools.partial(owners_of_paths, lock, settings, cache),
        conda_key=_digest([*content, _reach(private, settings)]),
        conda=frozenset(package.name for package in lock.conda if package.name not in wheels),
    )


def _reach(private: Iterable[LockedWheel], settings: Settings) -> list[object]:
    """Return what of private wheels can have an effect on a module that does not import them."""
    files = {path.name: path for path in settings.wheels}
    return [[wheel.name, _reach_of(files.get(wheel.filename), wheel.sha256)] for wheel in private]


def _reach_of(path: Path | None, sha256: str) -> list[object]:
    """Return that of one wheel; where it cannot be read, all of it counts."""
    try:
        with zipfile.ZipFile(path or "") as archive:
            names = archive.namelist()
            active = [n for n in names if n.endswith((".pth", ".dist-info/entry_points.txt")) or ".data/" in n]
            # The metadata's folder has the version in its name.
            tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
            hashes = [[n.rpartition("/")[2], hashlib.sha256(archive.read(n)).hexdigest()] for n in sorted(active)]
            return [sorted(tops), hashes]
    except (OSError, zipfile.BadZipFile):
        return [sha256]


def _excluded(lock: Lock, settings: Settings, cache: Cache) -> dict[str, tuple[str, ...]]:
    return excluded_paths(lock, cache=cache, settings=settings, reporter=SilentReporter(), fetch=False)


def _foreign(info: ImageInfo, plans: tuple[LayerPlan, ...], cache: Cache) -> list[str]:
    """Return the diff ids of the layers below the environment.

    All of the image's diff ids where its environment is not, layer by layer, what the lock says.
    """
    found = [LayerStore(cache).get(plan.key, plan.name) for plan in plans]
    ours = tuple(layer.digest for layer in found if layer is not None)
    if len(ours) < len(plans) or info.diff_ids[-len(ours) :] != ours:
        return ["whole", *info.diff_ids]
    return list(info.diff_ids[: -len(ours)])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
