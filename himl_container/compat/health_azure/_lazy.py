"""Names that are imported when they are first used (PEP 562).

A script that only runs here must start without the AzureML SDK and without torch, and hi-ml's modules name nearly
everything that there is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def exports(module: str, places: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a module that takes its names from others.

    :param module: the module's own name.
    :param places: the module that has them -> names, which stay as they are.
    """
    source = {name: place for place, names in places.items() for name in names}

    def get(name: str) -> Any:
        if name not in source:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(source[name]), name)
        # From now on the module has it, and is not asked again.
        setattr(sys.modules[module], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[module]), *source})

    return get, names
