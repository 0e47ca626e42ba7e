"""Programs that keep logins for Docker: ``docker-credential-<name> get``, the registry's address on standard input.

The protocol is that of the ``docker-credential-helpers`` project: a JSON object on standard output and exit code 0, or
a message on standard output and another code. No secret is ever an argument of a program.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping

from himl_container.registry.login import Login, LoginUnavailableError, cleaned

TIME_LIMIT = 60.0
"""Seconds. A helper may ask its user to unlock a keyring."""
_LONGEST = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_NOT_FOUND = re.compile(r"credentials? not found|no credentials? (?:server|found)|not logged in", re.IGNORECASE)
_NO_USER = "<token>"


def ask_helper(
    name: str, server: str, *, environ: Mapping[str, str], source: str, time_limit: float = TIME_LIMIT
) -> Login | None:
    """Return the login that a helper has for a registry, or None when it has none.

    :param name: the part of the program's name after ``docker-credential-``.
    :param server: the key under which the login is kept.
    :param source: what names the helper, for messages.
    :raises LoginUnavailableError: there is no such program, it fails, or does not answer in time.
    """
    if not _NAME.match(name):
        raise LoginUnavailableError(f"{source}: {cleaned(repr(name), limit=60)} is not the name of a helper")
    program = f"docker-credential-{name}"
    path = shutil.which(program, path=environ.get("PATH", os.defpath))
    if path is None:
        raise LoginUnavailableError(f"{source}: the program {program} is not installed")
    if any(character < " " for character in server):
        raise LoginUnavailableError(f"{source}: {server!r} is not the address of a registry")
    code, output = _run(path, server, environ, program, time_limit)
    if code != 0:
        if _NOT_FOUND.search(output):
            return None
        # JSON is no message but a login that came with the wrong code.
        reason = "" if output.lstrip().startswith(("{", "[")) else cleaned(output)
        raise LoginUnavailableError(f"{program} fails (exit code {code}){f': {reason}' if reason else ''}")
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise LoginUnavailableError(f"{program} answers something else than a login")
    user, secret = value.get("Username"), value.get("Secret")
    if not isinstance(user, str) or not isinstance(secret, str) or not secret:
        return None
    named = f"{program} ({source})"
    return Login("", "", secret, named) if user == _NO_USER else Login(user, secret, source=named)


def _run(path: str, server: str, environ: Mapping[str, str], program: str, time_limit: float) -> tuple[int, str]:
    # A session of its own, so that what the helper has started can be ended with it.
    try:
        process = subprocess.Popen(
            [path, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as error:
        raise LoginUnavailableError(f"{program} cannot be started: {error.strerror}") from None
    try:
        output, _ = process.communicate(f"{server}\n".encode(), timeout=time_limit)
    except subprocess.TimeoutExpired:
        raise LoginUnavailableError(f"{program} did not answer within {time_limit:g} seconds") from None
    finally:
        _end(process)
    return process.returncode, output[:_LONGEST].decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a helper that still runs (time limit, Ctrl-C), with everything that it has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
