"""A daemon that refuses what it was asked, or answers no more, as our errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from himl_container.environment.urls import scrub
from himl_container.errors import EngineError, HimlError
from himl_container.image.docker_http import GoneError
from himl_container.image.endpoint import START_HINT, Endpoint

GONE_HINT = "The daemon stopped or the connection broke; nothing was tagged. " + START_HINT
DISK_HINT = "The daemon's disk is full: 'docker system df' shows what uses it, 'docker system prune' frees some."


@contextlib.contextmanager
def converted(endpoint: Endpoint, doing: str) -> Iterator[None]:
    """Say of a daemon that goes away what it was doing; a broken connection becomes EngineError too.

    :param doing: what is being done (``load the image``), for the message.
    """
    try:
        yield
    except GoneError as error:
        raise EngineError(f"cannot {doing}: {error.what}", where=str(endpoint), hint=GONE_HINT) from error
    except HimlError:
        raise
    except OSError as error:
        raise gone(endpoint, doing, error) from error


def refused(endpoint: Endpoint, doing: str, message: str) -> EngineError:
    """Return the error for a request that the daemon answered with a failure."""
    hint = DISK_HINT if "no space left on device" in message else ""
    return EngineError(f"cannot {doing}: {scrub(message.strip())}", where=str(endpoint), hint=hint)


def failure(message: dict[str, Any]) -> str:
    """Return the error text of a progress message, or empty."""
    detail = message.get("errorDetail")
    return str((detail.get("message") if isinstance(detail, dict) else "") or message.get("error") or "")


def gone(endpoint: Endpoint, doing: str, error: BaseException) -> EngineError:
    """Return the error for a connection that broke."""
    return EngineError(f"cannot {doing}: the Docker daemon went away ({error})", where=str(endpoint), hint=GONE_HINT)
