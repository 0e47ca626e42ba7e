"""What registries write into headers and error bodies, read as the hostile input that it is."""

from __future__ import annotations

import email.utils
import json
import re
from datetime import timezone
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from himl_container.errors import RegistryError
from himl_container.registry.addresses import is_loopback

_RANGE = re.compile(r"(?:bytes=)?([0-9]{1,18})-([0-9]{1,18})\Z")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)\Z")
_LINK = re.compile(r"\s*<([^<>]*)>([^,<]*)(?:,|\Z)")
_NEXT = re.compile(r";\s*rel\s*=\s*(?:\"next\"|next)\s*(?:;|\Z)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_upload_range(value: str | None) -> int | None:
    """Return how many bytes a registry has of an upload, from its ``Range`` header (``0-<last>``).

    ``0-0`` means one byte by the specification, but registries answer it for an upload without any byte too; it is read
    as none, so that at worst one byte is refused instead of one being lost. None when the header makes no sense.
    """
    found = _RANGE.match((value or "").strip())
    if not found or int(found[1]) != 0:
        return None
    last = int(found[2])
    return last + 1 if last else 0


def parse_content_range(value: str | None) -> tuple[int, int | None] | None:
    """Return the first byte and the whole size (where known) of a ``Content-Range``; None when it makes no sense."""
    found = _CONTENT_RANGE.match((value or "").strip())
    if not found or int(found[2]) < int(found[1]):
        return None
    return int(found[1]), int(found[3]) if found[3] else None


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, given as seconds or as a date (RFC 9110, 10.2.3).

    :param now: seconds since 1970.
    :return: never negative; None when the header is missing or makes no sense.
    """
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return max(0.0, moment.timestamp() - now)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def next_page(value: str | None, base: str) -> str | None:
    """Return the address of the next page that a ``Link`` header names (RFC 8288), None on the last page.

    :raises RegistryError: the next page would be on another host.
    """
    for found in _LINK.finditer(value or ""):
        if _NEXT.search(found[2]):
            return location(found[1], base)
    return None


def location(value: str | None, base: str, *, elsewhere: bool = False) -> str:
    """Return the address that a ``Location`` (or ``Link``) of an answer means.

    Only the origin that was asked is accepted, because what follows carries the login or the layer itself. An answer
    that names the same host by http where https was asked comes from a registry that does not know of the TLS proxy
    in front of it; https is kept. With ``elsewhere`` another host is accepted too, by https (a blob store; from a
    registry on this machine also another port of this machine); the caller must leave the login out then.

    :param base: the address that was asked.
    :raises RegistryError: no address, or one that leads where it must not.
    """
    where = readable(base)
    if not value or any(ord(sign) <= 32 or ord(sign) == 127 for sign in value):
        raise RegistryError("The registry answered without a usable Location", where=where)
    try:
        asked = urlsplit(base)
        target = _behind_tls(urlsplit(urljoin(base, value)), asked)
        allowed = origin(target) == origin(asked) or (elsewhere and _may_redirect(target, asked))
    except ValueError as error:
        raise RegistryError("The registry answered without a usable Location", where=where) from error
    if not allowed or target.username is not None or target.password is not None:
        raise RegistryError(
            f"The registry wants the next request to go to {readable(target.geturl())}, which is not itself",
            where=where,
            hint="A login or a layer is only sent to the registry that was named; a proxy in front of the registry "
            "must keep scheme, host and port of addresses.",
        )
    return urlunsplit(target._replace(fragment=""))


def _behind_tls(target: SplitResult, asked: SplitResult) -> SplitResult:
    downgraded = (asked.scheme, target.scheme) == ("https", "http") and target.hostname == asked.hostname
    if downgraded and target.port in (None, 80, asked.port) and "@" not in target.netloc:
        return target._replace(scheme=asked.scheme, netloc=asked.netloc)
    return target


def _may_redirect(target: SplitResult, asked: SplitResult) -> bool:
    origin(target)
    local = is_loopback(target.hostname or "") and is_loopback(asked.hostname or "")
    return target.scheme == "https" or local


def origin(url: str | SplitResult) -> tuple[str, str, int]:
    """Return scheme, host and port of an address (RFC 6454).

    :raises ValueError: it is no http address.
    """
    parts = urlsplit(url) if isinstance(url, str) else url
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("not an http address")
    return parts.scheme, parts.hostname.lower(), parts.port or _DEFAULT_PORTS[parts.scheme]


def readable(url: str) -> str:
    """Return an address for messages: without user, password, query and fragment, which may all be secrets."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(an address that makes no sense)"
    return printable(f"{parts.scheme}://{host}{port}{parts.path}")


def printable(text: str, limit: int = 300) -> str:
    """Return a text of a server in one line, without control characters, cut where it is long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def error_text(data: bytes) -> str:
    """Return what the body of an error says (distribution specification, "Error Codes"); empty where nothing useful."""
    parts = [f"{code}: {message}" if message else code for code, message in _errors(data)]
    return printable("; ".join([*parts, "its disk is full"] if disk_is_full(data) else parts))


def disk_is_full(data: bytes) -> bool:
    """Whether the body of an error is about a full disk of the registry.

    The ``distribution`` server calls it an unknown error; its ``detail`` has the text or the number of ENOSPC.
    """
    return b"no space left on device" in data or re.search(rb'"Err": ?28\b', data) is not None


def error_codes(data: bytes) -> tuple[str, ...]:
    """Return the codes in the body of an error (``BLOB_UNKNOWN``)."""
    return tuple(code for code, _ in _errors(data))


def _errors(data: bytes) -> list[tuple[str, str]]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return []
    errors = value.get("errors") if isinstance(value, dict) else None
    found: list[tuple[str, str]] = []
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            code, message = error.get("code"), error.get("message")
            code_text = code if isinstance(code, str) else ""
            message_text = message if isinstance(message, str) else ""
            if code_text or message_text:
                found.append((code_text or message_text, message_text if code_text else ""))
    return found
