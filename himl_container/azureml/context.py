"""The run that this process is a part of, asked for as late as possible.

hi-ml called ``Run.get_context()`` at import, which loads the whole SDK. Here ``RUN_CONTEXT`` stands for that run and
asks for it at the first use.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from azureml.core import Run

_IN_A_RUN = ("AZUREML_RUN_ID", "AZUREML_ARM_SUBSCRIPTION")
"""Variables without which the SDK itself takes a process for one outside of AzureML (``azureml/core/run.py``)."""

_LOCK = threading.Lock()
_CURRENT: list[Run] = []


def current_run() -> Run:
    """Return the run of this process: of AzureML inside a job, else the SDK's offline run. Always the same object."""
    if not _CURRENT:
        with _LOCK:
            if not _CURRENT:
                from azureml.core import Run

                from himl_container.azureml.retry import retried

                _CURRENT.append(retried("asking AzureML for the run of this process", Run.get_context))
    return _CURRENT[0]


class _RunContext:
    """Stands for :func:`current_run`: attributes, comparison, and ``isinstance`` once the SDK is loaded."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(current_run(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(current_run(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(current_run(), name)

    def __dir__(self) -> list[str]:
        return dir(current_run())

    @property
    def __class__(self) -> type:
        # Whoever compares with a class of the SDK has loaded it; everybody else must not be made to.
        return type(current_run()) if "azureml.core.run" in sys.modules else _RunContext

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise TypeError("RUN_CONTEXT stands for the run of this process; its class cannot be changed")

    def __eq__(self, other: object) -> bool:
        return other is self or bool(current_run() == other)

    def __hash__(self) -> int:
        return hash(current_run())

    def __repr__(self) -> str:
        return repr(current_run())

    def __str__(self) -> str:
        return str(current_run())

    def __reduce__(self) -> str:
        return "RUN_CONTEXT"


RUN_CONTEXT = cast("Run", _RunContext())
"""The run of this process, as hi-ml's users know it: ``RUN_CONTEXT.log("loss", loss)``."""


def is_running_in_azure_ml(aml_run: Run = RUN_CONTEXT) -> bool:
    """Return whether a run, by default that of this process, is one of AzureML and not the SDK's offline run.

    Outside of AzureML the SDK is not loaded to find that out.
    """
    if aml_run is RUN_CONTEXT and not all(os.environ.get(name) for name in _IN_A_RUN):
        return False
    return hasattr(aml_run, "experiment")
