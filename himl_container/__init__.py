"""himl-container: from Conda files and private wheels to a tested image that runs the same here and in AzureML.

The public names are imported when they are first used (PEP 562), so that ``import himl_container`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from himl_container.environment.declare import load_environment as load_environment
    from himl_container.errors import HimlError as HimlError
    from himl_container.settings import Settings as Settings
    from himl_container.settings import load_settings as load_settings

__version__ = "0.1.0"

# Public name -> the module that has it.
_PUBLIC = {
    "HimlError": "himl_container.errors",
    "Settings": "himl_container.settings",
    "load_environment": "himl_container.environment.declare",
    "load_settings": "himl_container.settings",
}

__all__ = ["HimlError", "Settings", "__version__", "load_environment", "load_settings"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *_PUBLIC})
