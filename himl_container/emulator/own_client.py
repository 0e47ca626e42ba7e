"""Requests of the command line to an emulator that runs here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from himl_container.emulator.folder import existing, find_running
from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.installation import Installation
from himl_container.emulator.names import API_HOST
from himl_container.errors import LaunchError

_LIFETIME = 60.0
"""Seconds for which a token is valid that the command line signs for one request."""


def post(folder: Path, path: str) -> Any:
    """Ask the emulator of a folder for something that only it has, and return its answer.

    Whoever may read the folder's keys may ask.

    :param path: in the workspace's service; ``{ws}`` stands for the workspace.
    :raises LaunchError: none is running, or it refused.
    """
    import httpx

    from himl_container.emulator.tokens import Tokens, token_key

    installation = existing(folder)
    port = running_port(folder)
    tokens = Tokens(token_key(folder), installation, time.time, _LIFETIME)
    token, _ = tokens.issue(Identity(Kind.USER, installation.client_id), "https://ml.azure.com")
    address = f"https://{API_HOST}/{path.format(ws=installation.workspace.path)}"
    try:
        with _client(installation, port) as client:
            answer = client.post(address, headers={"Authorization": f"Bearer {token}"})
    except httpx.HTTPError as error:
        raise LaunchError(f"the emulator does not answer: {error}", where=str(folder)) from None
    if answer.is_success:
        return answer.json() if answer.content else None
    try:
        what = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        what = f"status {answer.status_code}"
    raise LaunchError(f"the emulator refused: {what}", where=str(folder))


def running_port(folder: Path) -> int:
    """Return the port of the emulator that serves a folder.

    :raises LaunchError: none does.
    """
    running = find_running(folder)
    if running is None:
        hint = "'himl-container emulator start --detach' starts it."
        raise LaunchError("no emulator is running", where=str(folder), hint=hint)
    return running.port


def _client(installation: Installation, port: int) -> Any:
    import ssl

    import httpx

    trusted = ssl.create_default_context(cafile=str(installation.folder / "ca.pem"))
    return httpx.Client(proxy=f"http://127.0.0.1:{port}", verify=trusted, trust_env=False, timeout=60)
