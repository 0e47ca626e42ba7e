"""Imports that are made when something of them is used, for a library that imports at its top what it rarely calls."""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Collection, Iterator, Sequence
from types import ModuleType


class StandIn:
    """Stands in for a class or function of a module, which is imported when it is called or asked for something."""

    def __init__(self, module: str, name: str, finder: _Finder) -> None:
        self._stand_in_for = (module, name, finder)

    def _real(self) -> object:
        module, name, finder = self._stand_in_for
        return getattr(finder.real(module), name)

    def __call__(self, *args: object, **options: object) -> object:
        """Call the real one."""
        return self._real()(*args, **options)  # type: ignore[operator]

    def __getattr__(self, name: str) -> object:
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._real())  # type: ignore[arg-type]


@contextlib.contextmanager
def imported_later(modules: Collection[str], callables: Collection[str]) -> Iterator[None]:
    """Have what is imported meanwhile get modules that are loaded later.

    :param modules: those of which ``import NAME`` is all that is said. :param callables: those of which names are
        imported (``from NAME import X``) that are then called, asked for attributes or for whose instances something
        is, and nothing else: nothing may inherit from them, or catch them.
    """
    finder = _Finder({*modules} - {*sys.modules}, {*callables} - {*sys.modules})
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        finder.withdraw()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules whose loading is put off; loads those of which names are imported."""

    def __init__(self, modules: set[str], callables: set[str]) -> None:
        self._modules = modules
        self._callables = callables
        self._given: dict[str, ModuleType] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for the modules that may come later."""
        parent = fullname.rpartition(".")[0]
        if parent in self._given:  # a module that is to be an attribute of its parent for good
            self.real(parent)
        if fullname not in self._modules and fullname not in self._callables:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if found is None or found.loader is None:
            return None
        if fullname in self._modules:
            found.loader = importlib.util.LazyLoader(found.loader)
            return found
        stand_in = importlib.machinery.ModuleSpec(fullname, self, origin=found.origin, is_package=True)
        stand_in.submodule_search_locations = found.submodule_search_locations or []
        return stand_in

    def exec_module(self, module: ModuleType) -> None:
        """Have each name of the module be a stand-in."""
        name = module.__name__

        def stand_in(attribute: str) -> StandIn:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            return StandIn(name, attribute, self)

        module.__getattr__ = stand_in  # type: ignore[method-assign]
        self._given[name] = module

    def real(self, name: str) -> ModuleType:
        """Return the module itself."""
        self._withdraw(name)
        return importlib.import_module(name)

    def withdraw(self) -> None:
        """Have whoever imports these modules from now on get the real ones."""
        for name in self._callables:
            self._withdraw(name)

    def _withdraw(self, name: str) -> None:
        self._callables = self._callables - {name}
        given = self._given.pop(name, None)
        if given is None or sys.modules.get(name) is not given:
            return
        del sys.modules[name]
        parent, _, child = name.rpartition(".")
        if getattr(sys.modules.get(parent), child, None) is given:
            delattr(sys.modules[parent], child)
