"""The world outside of an emulator whose variables this process has: where packages and base images come from.

The emulator's variables (``himl-container emulator exec``, ``emulator env``) make it the proxy of this process, and it
lets nothing out. They say too what they replaced, in one variable, so that what solves, fetches and builds can have it
back for as long as it works, while the login, AzureML and the emulator's own registry go on to be reached through it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass

from himl_container.errors import InputError

OUTSIDE = "HIML_EMULATOR_OUTSIDE"
"""What the emulator's variables replaced. A proxy's password may be in it: it is hidden like one."""

REPLACED = (
    *("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"),
    *("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"),
)
"""The variables that have a meaning outside too."""

_turn = threading.RLock()
"""Whose turn it is to be outside."""
_changing = threading.Lock()
_away = False
"""Whether a thread is outside; without the variable, that cannot be told from a process without an emulator."""


@dataclass(frozen=True)
class Outside:
    """What :data:`OUTSIDE` says.

    :param registry: the emulator's registry (``NAME.azurecr.io``), which only the emulator leads to.
    :param variables: those of :data:`REPLACED` that were set, with their values.
    """

    registry: str
    variables: Mapping[str, str]

    def applied(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return variables as they are outside; those that were not replaced stay."""
        kept = {name: value for name, value in environ.items() if name != OUTSIDE and name not in REPLACED}
        return {**kept, **self.variables}


def noted(registry: str, environ: Mapping[str, str]) -> str:
    """Return the value of :data:`OUTSIDE` for a process that is to get an emulator's variables.

    Where the present variables are an emulator's already, what those replaced stays what is outside.

    :raises InputError: the present value was not written by this function.
    """
    before = read_outside(environ)
    variables = {name: environ[name] for name in REPLACED if name in environ} if before is None else before.variables
    return json.dumps({"registry": registry, "variables": dict(variables)})


def read_outside(environ: Mapping[str, str]) -> Outside | None:
    """Return what is outside; None where the variables are no emulator's.

    :raises InputError: :data:`OUTSIDE` is not what :func:`noted` writes. Its value is not part of the message.
    """
    text = environ.get(OUTSIDE, "")
    if not text:
        return None
    try:
        value = json.loads(text)
        registry, variables = value["registry"], value["variables"]
        sound = isinstance(registry, str) and all(
            name in REPLACED and isinstance(item, str) and "\0" not in item for name, item in variables.items()
        )
        found = Outside(registry, variables)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        hint = "Unset it, and set the variables anew: himl-container emulator env."
        raise InputError("this is not what the emulator's variables say of the outside", where=OUTSIDE, hint=hint)
    return found


@contextlib.contextmanager
def undisturbed(environ: MutableMapping[str, str] | None = None) -> Iterator[Outside | None]:
    """Keep other threads from going outside, for work that needs the emulator and the outside in turn.

    Yields what is outside; None, without waiting for anybody, where the variables are no emulator's.

    :raises InputError: as :func:`read_outside`.
    """
    environ = os.environ if environ is None else environ
    with _changing:
        alone = not _away and read_outside(environ) is None
    if alone:
        yield None
        return
    with _turn:
        yield read_outside(environ)


@contextlib.contextmanager
def outside(environ: MutableMapping[str, str] | None = None) -> Iterator[None]:
    """Have the variables of the outside for the length of the context; without an emulator's, nothing changes.

    The variables are the whole process's: native code (rattler), child processes (uv, docker) and every thread read
    them. So one thread at a time is outside, and another that wants to be waits; inside of itself, the context does
    nothing. A thread that was started meanwhile and lives on has the emulator's again afterwards, and gets nowhere by
    mistake. A thread that knows nothing of this should not talk to AzureML meanwhile.

    :param environ: the process's own but for tests.
    :raises InputError: as :func:`read_outside`.
    """
    environ = os.environ if environ is None else environ
    with undisturbed(environ) as there:
        if there is None:
            yield
            return
        here = {name: environ[name] for name in (*REPLACED, OUTSIDE) if name in environ}
        try:
            _change(environ, there.variables, away=True)
            yield
        finally:
            _change(environ, here, away=False)


def go_outside(environ: MutableMapping[str, str] | None = None) -> None:
    """Have the variables of the outside from now on, as a process does that is an emulator itself.

    :raises InputError: as :func:`read_outside`.
    """
    environ = os.environ if environ is None else environ
    there = read_outside(environ)
    if there is not None:
        _change(environ, there.variables, away=False)


def _change(environ: MutableMapping[str, str], values: Mapping[str, str], *, away: bool) -> None:
    """Set the variables, all of which are the given ones or absent afterwards."""
    global _away  # noqa: PLW0603  # as the variables, it is the process's
    with _changing:
        _away = away
        for name in (*REPLACED, OUTSIDE):
            if name in values:
                environ[name] = values[name]
            else:
                environ.pop(name, None)
