"""A login that the user makes now: in a browser, or with a code where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from himl_container.azureml.constants import ENV_TENANT_ID

if TYPE_CHECKING:
    from azureml.core.authentication import AbstractAuthentication


class Stream(Protocol):
    """What is asked of standard input and standard error."""

    def isatty(self) -> bool:
        """Return whether somebody sits there."""


def can_ask(modules: Mapping[str, Any], stdin: Stream | None, stderr: Stream | None) -> bool:
    """Return whether somebody can be asked to log in: at a terminal, or in a notebook that is not run by a program.

    :param modules: those that are loaded (``sys.modules``); a notebook has no terminal, and shows what is printed.
    """
    if "IPython" in modules and (kernel := getattr(modules["IPython"].get_ipython(), "kernel", None)) is not None:
        # nbconvert and papermill tell the kernel that there is nobody to ask (Jupyter's messaging, "allow_stdin").
        return bool(getattr(kernel, "_allow_stdin", True))
    return stdin is not None and stderr is not None and stdin.isatty() and stderr.isatty()


def interactive_login(environ: Mapping[str, str]) -> AbstractAuthentication:
    """Return a login made in a browser; where none can be opened, the SDK prints a code to type in elsewhere.

    The SDK remembers it, so that the next process finds it.
    """
    from azureml.core.authentication import InteractiveLoginAuthentication

    return InteractiveLoginAuthentication(tenant_id=environ.get(ENV_TENANT_ID) or None)
