"""Answers and broken connections, turned into errors in words: what, where, and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping

from himl_container.errors import RegistryError
from himl_container.registry.headers import (
    disk_is_full,
    error_codes,
    error_text,
    parse_retry_after,
    printable,
    readable,
)
from himl_container.registry.retries import RETRIED, Failure, RetryableError

_MISSING = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"})
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HINTS = {
    401: "Set a user and password in the environment, log in with 'docker login', or use an Azure login; "
    "docs/registry-login.md says which is tried when.",
    403: "The login lacks the right for this repository (Azure: the role AcrPull to read, AcrPush to write).",
    404: "Check the repository's name, and that it is in this registry.",
    405: "The registry takes no writes: it is read-only, or a mirror of another one.",
    413: "Something in front of the registry limits the size of requests.",
    507: "The registry's disk is full.",
}


class MissingBlobsError(RegistryError):
    """A manifest was refused because the registry lacks blobs that it names, whatever it said of them before.

    :param digests: the blobs that the registry names; empty where it names none.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "", digests: tuple[str, ...] = ()) -> None:
        super().__init__(what, where=where, hint=hint)
        self.digests = digests


def refusal(
    status: int, headers: Mapping[str, str], data: bytes, *, what: str, where: str, now: float
) -> RegistryError | RetryableError:
    """Return the error for an answer that was not expected.

    :param data: its body.
    :param what: the request, for messages.
    :param now: seconds since 1970.
    """
    said = error_text(data)
    text = f"the registry answered {status}{f', {said}' if said else ''}"
    if status in RETRIED:
        hint = _HINTS[507] if disk_is_full(data) else ""
        return RetryableError(Failure(text, status, parse_retry_after(headers.get("Retry-After"), now), hint))
    if _MISSING.intersection(error_codes(data)):
        digests = tuple(dict.fromkeys(_DIGEST.findall(data.decode("utf-8", "replace"))))
        hint = "The registry said before that it has them; push again, or check the registry's storage."
        return MissingBlobsError(f"{what}: {text}", where=where, hint=hint, digests=digests)
    return RegistryError(f"{what}: {text}", where=where, hint=_HINTS.get(status, ""))


def connection_text(error: BaseException) -> str:
    """Return why a connection failed, without addresses, which may hold secrets."""
    import urllib3

    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (urllib3.exceptions.ProxyError, "the proxy does not answer"),
        (urllib3.exceptions.NameResolutionError, "the host's name is not known"),
        (urllib3.exceptions.ReadTimeoutError, "no answer in time"),
        (urllib3.exceptions.NewConnectionError, "no connection"),  # a kind of time-out to urllib3, so before it
        (urllib3.exceptions.ConnectTimeoutError, "no connection in time"),
        (urllib3.exceptions.IncompleteRead, "the answer was cut"),
        (urllib3.exceptions.ProtocolError, "the connection was cut"),
        (urllib3.exceptions.SSLError, "TLS failed"),
    )
    text = next((text for kind, text in kinds if isinstance(error, kind)), "the connection failed")
    reason = _system_reason(error)
    return f"{text}: {reason}" if reason else text


def _system_reason(error: BaseException) -> str:
    """Return what the operating system said, where it did."""
    seen: BaseException | None = error
    for _ in range(6):
        if seen is None:
            return ""
        if isinstance(seen, OSError) and seen.strerror:
            return printable(seen.strerror, 120)
        inner = [value for value in seen.args if isinstance(value, BaseException)]
        seen = inner[0] if inner else seen.__cause__ or seen.__context__
    return ""


def untrusted(error: BaseException, url: str) -> None:
    """Raise when a certificate is the reason: another try changes nothing.

    :raises RegistryError: it is.
    """
    import ssl

    seen: BaseException | None = error
    for _ in range(6):
        if isinstance(seen, ssl.SSLCertVerificationError):
            raise RegistryError(
                f"The registry's certificate is not trusted: {printable(seen.verify_message)}",
                where=readable(url),
                hint="Name the file of its authority in SSL_CERT_FILE or REQUESTS_CA_BUNDLE, or put it into "
                "/etc/docker/certs.d/<host>/ca.crt as for Docker.",
            ) from error
        if seen is None:
            return
        inner = [value for value in seen.args if isinstance(value, BaseException)]
        reason = getattr(seen, "reason", None)
        seen = inner[0] if inner else reason if isinstance(reason, BaseException) else seen.__cause__


def hung_up(error: BaseException | None) -> bool:
    """Whether a server closed the connection, or answered what is not HTTP, instead of refusing it."""
    import urllib3

    return isinstance(error, urllib3.exceptions.ProtocolError)
