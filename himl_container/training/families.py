"""The classes of Lightning that ours derive from, whichever of its two packages a script uses.

Lightning is published twice: ``pytorch_lightning`` and ``lightning.pytorch`` have the same classes, and a Trainer of
the one does not know a callback of the other as its own. So a class of ours gets its base when an object of it is made,
when the script has imported the package of its Trainer: the one that is imported, both where both are, and where none
is the first that is installed. Until then nothing of Lightning or PyTorch is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any

from himl_container.errors import InputError

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


def packages_in_use() -> tuple[str, ...]:
    """Return Lightning's packages that are imported; where none is, the first that is installed.

    :raises InputError: Lightning is not installed.
    """
    imported = tuple(name for name in PACKAGES if name in sys.modules)
    if imported:
        return imported
    for name in PACKAGES:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            return (name,)
    raise InputError(
        "PyTorch Lightning is not installed in this environment",
        hint="add pytorch-lightning to environment.yml, or run: pip install 'himl-container[lightning]'",
    )


class _Late:
    """A class whose base in Lightning is decided when an object is made."""

    lightning_name = ""

    def __new__(cls, *_arguments: Any, **_words: Any) -> Any:
        return object.__new__(_bound(cls, packages_in_use()))

    def __reduce__(self) -> tuple[Any, ...]:
        # A bound class has no name of its own in any module; the one it was made of is found again by its name.
        return _made_again, (getattr(type(self), "_unbound", type(self)),), dict(self.__dict__)


def _made_again(cls: type[_Late]) -> Any:
    return cls.__new__(cls)


_BOUND: dict[tuple[object, tuple[str, ...]], type] = {}


def _bound(cls: type[_Late], packages: tuple[str, ...]) -> type:
    """Return the class with its bases in Lightning; the same one each time, because Lightning compares types."""
    if (cls, packages) not in _BOUND:
        _BOUND[cls, packages] = _bind(cls, packages)
    return _BOUND[cls, packages]


def _bind(cls: type[_Late], packages: tuple[str, ...]) -> type:
    module_name, _, name = cls.lightning_name.rpartition(".")
    found = [getattr(importlib.import_module(f"{package}.{module_name}"), name) for package in packages]
    missing = [base for base in found if not issubclass(cls, base)]
    if not missing:
        return cls
    # The names stay: Lightning keeps the state of a callback in checkpoints under them.
    words = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return types.new_class(cls.__name__, (cls, *missing), {}, lambda space: space.update(words, _unbound=cls))


if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback, Checkpoint, ProgressBar
    from pytorch_lightning.loggers import Logger
else:

    class Callback(_Late):
        """Base of callbacks."""

        lightning_name = "callbacks.Callback"

    class Checkpoint(_Late):
        """Base of callbacks that write checkpoints: Lightning runs them after all others."""

        lightning_name = "callbacks.Checkpoint"

    class ProgressBar(_Late):
        """Base of progress bars: a Trainer that has one makes none of its own."""

        lightning_name = "callbacks.ProgressBar"

    class Logger(_Late):
        """Base of loggers."""

        lightning_name = "loggers.Logger"


__all__ = ["PACKAGES", "Callback", "Checkpoint", "Logger", "ProgressBar", "packages_in_use"]
