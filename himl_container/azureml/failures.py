"""Exceptions that are both of our family and of the type that hi-ml raised.

A caller's ``except ValueError`` goes on working, and the command line shows the same exception without a traceback.
``str(error)`` contains hi-ml's text.
"""

from __future__ import annotations

from himl_container.errors import AzureMLError, InputError, RunFailedError


class WrongValue(InputError, ValueError):  # noqa: N818  # named for what it says
    """An argument, name or file has a value that cannot be used."""


class WrongType(InputError, TypeError):  # noqa: N818
    """An argument is of another kind than needed: a file in the place of a folder, say."""


class MissingKey(InputError, KeyError):  # noqa: N818
    """A name is not among those that are there."""


class MissingFile(InputError, FileNotFoundError):  # noqa: N818
    """A file that was named is not there."""


class FailedAssertion(InputError, AssertionError):  # noqa: N818
    """What hi-ml checked by an assertion does not hold."""


class MissingSdk(InputError, ModuleNotFoundError):  # noqa: N818
    """The AzureML SDK, or a part of it, is not installed."""


class MissingRun(InputError):  # noqa: N818
    """There is no such run, or it cannot be read (hi-ml raised a plain ``Exception``)."""


class LoginFailed(AzureMLError):  # noqa: N818
    """Nobody is logged in, a login has expired, or its credentials were refused."""


class UnfinishedRun(RunFailedError, ValueError):  # noqa: N818
    """A run for which we waited, or one of its children, did not complete."""
