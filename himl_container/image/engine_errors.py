"""Everything that the Docker SDK can throw becomes one of our errors, at the edge where it happens."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from typing import Any

from himl_container.environment.urls import scrub
from himl_container.errors import EngineError, HimlError
from himl_container.image.endpoint import START_HINT, Endpoint
from himl_container.image.probe import cannot_connect, causes

GONE_HINT = "The daemon stopped or the connection broke; nothing was tagged. " + START_HINT
DISK_HINT = "The daemon's disk is full: 'docker system df' shows what uses it, 'docker system prune' frees some."


@contextlib.contextmanager
def converted(endpoint: Endpoint, doing: str) -> Iterator[None]:
    """Turn the SDK's, the HTTP client's and the system's errors into EngineError.

    :param doing: what is being done (``load the image``), for the message.
    """
    import docker.errors
    import urllib3

    try:
        yield
    except HimlError:
        raise
    except docker.errors.APIError as error:
        raise refused(endpoint, doing, str(error.explanation or error)) from error
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
        if _never_connected(error):
            raise cannot_connect(endpoint, error) from error
        raise _gone(endpoint, doing, error) from error
    except docker.errors.DockerException as error:
        if _never_connected(error):
            raise cannot_connect(endpoint, error) from error
        raise EngineError(f"cannot {doing}: {scrub(str(error))}", where=str(endpoint)) from error


def refused(endpoint: Endpoint, doing: str, message: str) -> EngineError:
    """Return the error for a request that the daemon answered with a failure."""
    hint = DISK_HINT if "no space left on device" in message else ""
    return EngineError(f"cannot {doing}: {scrub(message.strip())}", where=str(endpoint), hint=hint)


def failure(message: dict[str, Any]) -> str:
    """Return the error text of a progress message, or empty."""
    detail = message.get("errorDetail")
    return str((detail.get("message") if isinstance(detail, dict) else "") or message.get("error") or "")


def _gone(endpoint: Endpoint, doing: str, error: BaseException) -> EngineError:
    return EngineError(f"cannot {doing}: the Docker daemon went away ({error})", where=str(endpoint), hint=GONE_HINT)


def _never_connected(error: BaseException) -> bool:
    """Whether no connection came about at all, in contrast to one that broke."""
    kinds = (FileNotFoundError, ConnectionRefusedError, PermissionError, TimeoutError)
    return any(isinstance(cause, kinds) for cause in causes(error))
