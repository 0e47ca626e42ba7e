"""Transient failures of AzureML are tried again; permanent ones are not.

Only what may be repeated without harm belongs here: reading, and writing that gives the same result each time. A
request that starts something (submitting a run) must not be wrapped: when its answer is lost, nobody knows whether it
was carried out, and a second one would start a second run.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from himl_container.errors import HimlError

T = TypeVar("T")

DELAYS = (1.0, 2.0, 5.0, 10.0)
"""Seconds before the second, third, ... attempt: five attempts, and 18 s of waiting in all."""
LONGEST_DELAY = 60.0
"""Seconds at most, whatever a server asks for."""

_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS = 408, 429
_NEVER = (501, 505)  # "not implemented" and "HTTP version not supported" will be so tomorrow
_STATUS_IN_TEXT = r"(?:\bCode: \(?|\bHTTP (?:Error|status): |\"status_code\": )([1-5]\d\d)\b"
_INTERRUPTED = {
    "requests": {"ConnectionError", "Timeout", "ChunkedEncodingError", "ContentDecodingError"},
    "urllib3": {"ProtocolError", "TimeoutError", "NewConnectionError", "MaxRetryError"},
    "msrest": {"ClientRequestError"},
    "azure": {"ServiceRequestError", "ServiceResponseError", "IncompleteReadError"},
    "http": {"RemoteDisconnected", "IncompleteRead", "BadStatusLine"},
}
"""Package -> exceptions (with what derives from them) that say that an answer did not come, or not whole."""

_LOG = logging.getLogger(__name__)


def retried(
    what: str,
    action: Callable[[], T],
    *,
    delays: Sequence[float] = DELAYS,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Return what ``action`` returns; call it again after a transient failure.

    :param what: what is being done, for the log: "downloading outputs/model.pt".
    :param action: something that can be done twice without harm; see above what cannot.
    :param delays: seconds before each further attempt, used where the server does not say how long (``Retry-After``).
    :param sleep: how to wait.
    :raises Exception: a permanent failure, at once; or the last transient one, as it came.
    """
    attempts = len(delays) + 1
    for attempt, delay in enumerate(delays, start=2):
        try:
            return action()
        except Exception as error:  # whatever a client library raises is judged by is_transient
            if not is_transient(error):
                raise
            seconds = min(_asked_delay(error) or delay, LONGEST_DELAY)
            _LOG.warning("%s: %s. Attempt %d of %d in %g s.", what, one_line(error), attempt, attempts, seconds)
        sleep(seconds)
    return action()


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may soon succeed: no connection, a time-out, 408, 429, most of 5xx."""
    for one in _chain(error):
        if (status := status_of(one)) is not None:
            again = status in (_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS)
            return again or (500 <= status <= 599 and status not in _NEVER)
        if _is_refusal_of_certificate(one):
            return False
    return any(_is_interrupted(one) for one in _chain(error))


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an exception of requests, msrest, azure-core or the AzureML SDK carries, or None."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status"):
            status = getattr(holder, name, None)
            if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599:
                return int(status)
    # Those of compute targets and of Resource Manager, and msal's, have the status in their text alone.
    package, text = _package(type(error)), _text(error)
    if package in ("azureml", "msal") or text.startswith("OIDC Discovery failed"):
        found = re.search(_STATUS_IN_TEXT, text)
        return int(found[1]) if found else None
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised for, outermost first."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        # The SDK and msal raise anew without "from"; we never do so for a failure of a service.
        context = None if one.__suppress_context__ or isinstance(one, HimlError) else one.__context__
        causes = (one.__cause__, getattr(one, "inner_exception", None), *one.args, context)
        waiting += [cause for cause in causes if isinstance(cause, BaseException)]


def _is_interrupted(error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    return any(kind.__name__ in _INTERRUPTED.get(_package(kind), ()) for kind in type(error).__mro__)


def _is_refusal_of_certificate(error: BaseException) -> bool:
    return any(kind.__name__ in ("SSLError", "SSLCertVerificationError") for kind in type(error).__mro__)


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _asked_delay(error: BaseException) -> float | None:
    """Return the seconds for which a server asks in ``Retry-After``, or None."""
    for one in _chain(error):
        headers: Any = getattr(getattr(one, "response", None), "headers", None)
        if isinstance(headers, Mapping) and (value := headers.get("Retry-After")):
            return _seconds(str(value))
    return None


def _seconds(value: str) -> float | None:
    """Return the seconds of a ``Retry-After`` (RFC 9110, 10.2.3): a number, or a date."""
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    if re.fullmatch(r"\s*\d{1,6}(\.\d{1,6})?\s*", value):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())


def one_line(error: BaseException) -> str:
    """Return one line that says what happened, without credentials.

    The SDK's exceptions print a report of many lines, with the answer's JSON and an inner exception; what happened is
    in the message of the service (msrest's ``error.error.message``) or of the exception.
    """
    from himl_container.environment.urls import scrub

    answer = getattr(getattr(error, "error", None), "error", None)
    said = _of_json(_message(answer) or _message(error) or _text(error))
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    name = type(error).__name__
    return scrub(f"{name}: {lines[0]}" if lines and not lines[0].startswith(name) else (lines or [name])[0])[:300]


def _of_json(text: str) -> str:
    """Return the message in an answer that the SDK made the whole text of its exception."""
    try:
        found = json.loads(text) if text.startswith("{") else None
    except ValueError:
        return text
    for name in ("error_details", "error", "message"):
        found = found.get(name, found) if isinstance(found, dict) else found
    return found if isinstance(found, str) else " ".join(text.split())


def _message(holder: object) -> str:
    message = getattr(holder, "message", "")
    return message if isinstance(message, str) else ""


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # str() of the SDK's ServiceException fails where the answer has no details
        return ""
