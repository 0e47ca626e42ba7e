"""One light question to the daemon: is there an image of this tag?

This is all that a build with nothing to do asks of Docker, so it imports nothing but light parts of the standard
library: the Docker SDK takes a third of a second, ``http.client`` (which imports ``email`` and ``ssl``) a twentieth,
and even the module ``socket`` longer than the request takes; its core ``_socket`` does not. One request of HTTP/1.0,
which is answered unchunked and ended by closing the connection, needs no more. Where the daemon is not behind a unix
socket, the whole client is used.
"""

from __future__ import annotations

import json
import os
from _socket import AF_UNIX, SOCK_STREAM, socket
from collections.abc import Mapping
from typing import NamedTuple

from himl_container.errors import EngineError
from himl_container.image.endpoint import START_HINT, Endpoint, resolve_endpoint

TIMEOUT = 30.0
"""Seconds after which a daemon that does not answer counts as dead."""


class FoundImage(NamedTuple):
    """What the light question brings back.

    Not an :class:`~himl_container.image.model.ImageInfo`, whose module takes as long to import as all else here.
    """

    id: str
    tags: tuple[str, ...]
    diff_ids: tuple[str, ...]
    labels: dict[str, str]


def image_exists(tag: str, environ: Mapping[str, str] | None = None) -> FoundImage | None:
    """Return what the daemon says of an image; None when it has none of that name.

    :param environ: the variables that choose the daemon; the process's own when not given.
    :raises EngineError: no daemon answers, or it refuses the question. Never "assume that it exists".
    """
    environ = os.environ if environ is None else environ
    endpoint = resolve_endpoint(environ)
    if not endpoint.socket_path:
        from himl_container.image.docker_engine import DockerEngine

        found = DockerEngine.connect(environ).inspect(tag)
        return FoundImage(found.id, found.tags, found.diff_ids, found.labels) if found else None
    status, body = _get(endpoint, f"/images/{_quoted(tag)}/json")
    if status == 404:
        return None
    if status != 200:
        raise EngineError(f"the Docker daemon refused to look up {tag!r}: {_message(body)}", where=str(endpoint))
    try:
        answer = json.loads(body)
        labels = (answer.get("Config") or {}).get("Labels") or {}
        tags, layers = answer["RepoTags"] or (), answer["RootFS"]["Layers"] or ()
        return FoundImage(answer["Id"], tuple(tags), tuple(layers), labels)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError("what answers is not a Docker daemon", where=str(endpoint)) from error


def cannot_connect(endpoint: Endpoint, error: BaseException) -> EngineError:
    """Return the error for a daemon that cannot be reached, with the step that helps in this case."""
    found = causes(error)
    if any(isinstance(cause, PermissionError) for cause in found):
        return EngineError(
            "this user may not talk to the Docker daemon",
            where=str(endpoint),
            hint="Add the user to its group ('sudo usermod -aG docker $USER', then log in again), or use sudo.",
        )
    if any(isinstance(cause, TimeoutError) for cause in found):
        return EngineError("the Docker daemon does not answer", where=str(endpoint), hint=START_HINT)
    if any(isinstance(cause, FileNotFoundError | ConnectionRefusedError) for cause in found):
        return EngineError("no Docker daemon is running", where=str(endpoint), hint=START_HINT)
    return EngineError(f"cannot talk to the Docker daemon: {error}", where=str(endpoint), hint=START_HINT)


def causes(error: BaseException) -> list[BaseException]:
    """Return an error and everything that it was made from: causes, contexts, and exceptions in its arguments."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        item = waiting.pop()
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            waiting += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
    return found


def _get(endpoint: Endpoint, path: str) -> tuple[int, bytes]:
    try:
        connection = socket(AF_UNIX, SOCK_STREAM)
        try:
            connection.settimeout(TIMEOUT)
            connection.connect(endpoint.socket_path)
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode("ascii"))
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        finally:
            connection.close()
    except OSError as error:
        raise cannot_connect(endpoint, error) from error
    head, separator, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if not separator or len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise EngineError("the Docker daemon went away, or what answers is not a Docker daemon", where=str(endpoint))
    return int(words[1]), body


def _quoted(text: str) -> str:
    """Percent-encode everything but what image references are made of, so that no text can end the request line."""
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"%{byte:02X}" for byte in text.encode())


_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/:@")


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
