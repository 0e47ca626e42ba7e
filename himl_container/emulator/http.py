"""A request and an answer, as the services see them: values, without a server behind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from himl_container.emulator.identity import NOBODY, Identity

DEEPEST = 300
"""Levels of a JSON value. The deepest that is in use is a snapshot: two for each of up to 100 folders in folders."""

_TOO_DEEP = f"it is nested more than {DEEPEST} times"


@dataclass(frozen=True)
class Request:
    """One request of a client.

    :param host: the name that the client asked for, in lower case, without a port (``management.azure.com``).
    :param path: decoded once, begins with a slash.
    :param query: the values of each name, in the order given.
    :param headers: names in lower case.
    :param params: what the route's pattern found in the path.
    :param identity: who asks, as their token says; :data:`~himl_container.emulator.identity.NOBODY` without one.
    """

    method: str
    host: str
    path: str
    query: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    params: Mapping[str, str] = field(default_factory=dict)
    identity: Identity = NOBODY

    def json(self) -> Any:
        """Return the body as a JSON value; None for an empty body.

        :raises Refusal: 400, it is not JSON.
        """
        if not self.body.strip():
            return None
        try:
            value = parse_json(self.body)
            if b"\\ud" in self.body.lower():
                # Half of a surrogate pair is JSON, but no text: neither SQLite nor a blob's name can hold it.
                json.dumps(value, ensure_ascii=False).encode()
            return value
        except ValueError as error:
            raise Refusal(400, "BadArgument", f"The body is not valid JSON: {error}") from None

    def document(self) -> dict[str, Any]:
        """Return the body as a JSON object; empty for an empty body.

        :raises Refusal: 400, it is something else.
        """
        value = self.json()
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise Refusal(400, "BadArgument", "The body is not a JSON object.")
        return value

    def first(self, name: str, default: str = "") -> str:
        """Return the first value of a query parameter."""
        values = self.query.get(name, ())
        return values[0] if values else default


def parse_json(data: bytes | str) -> Any:
    """Return a JSON value that a client sent.

    :raises ValueError: it is none, or is nested more than :data:`DEEPEST` times. Python itself reads some thousand
        levels, and stumbles later where such a value is walked through or written again.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level, depth = [value], 0
    while level := [child for item in level for child in _inside(item) if isinstance(child, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(_TOO_DEEP)
    return value


def _inside(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


@dataclass(frozen=True)
class Answer:
    """What a service answers: whole bytes, or a stream of them."""

    status: int = 200
    body: bytes | Iterator[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):  # noqa: N818  # an answer, not a failure of ours
    """A refusal, which becomes the error document that Azure's services answer with.

    :param code: the word by which Azure names the reason (``UserError``, ``NotFound``, ``AuthorizationFailed``).
    """

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    def answer(self) -> Answer:
        """Return the refusal as an answer."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "details": [], "innerError": None}
        return json_answer({"error": error, "correlation": {}, "statusCode": self.status}, self.status, self.headers)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a JSON value as an answer."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status, body, {"content-type": "application/json; charset=utf-8", **(headers or {})})


def not_found(what: str) -> Refusal:
    """Return Azure's answer for something that does not exist."""
    return Refusal(404, "NotFound", f"{what} was not found.")
