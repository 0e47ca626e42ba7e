"""What clients ask of lists of models and assets, and how they change one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from himl_container.emulator.http import Answer, Refusal, Request, json_answer
from himl_container.emulator.routes import Handler
from himl_container.emulator.services.documents import page, text

_LARGEST_PAGE = 1000

Filter = Callable[[Mapping[str, str], Mapping[str, str]], bool]
"""Whether tags and properties are as somebody wants them."""


def flat_refusals(handler: Handler) -> Handler:
    """Return a handler whose refusals have what the SDK reads here (``models/model_error_response.py``)."""

    def answer(request: Request) -> Answer:
        try:
            return handler(request)
        except Refusal as refusal:
            detail = {"code": refusal.code, "message": refusal.message, "target": None}
            document = {
                "code": refusal.code,
                "message": refusal.message,
                "statusCode": refusal.status,
                "details": [detail],
                "correlation": {},
                # The other services' form, for the parts of the SDK that read this one.
                "error": {**detail, "details": [], "innerError": None},
            }
            return json_answer(document, refusal.status, refusal.headers)

    return answer


def operations(request: Request) -> list[tuple[str, Any]]:
    """Return paths and values of a patch (RFC 6902), of which the SDK uses ``add`` and ``replace``."""
    document = request.json()
    found: list[tuple[str, Any]] = []
    for item in document if isinstance(document, list) else [None]:
        if not isinstance(item, dict) or item.get("op") not in {"add", "replace"} or not isinstance(item["op"], str):
            raise Refusal(400, "UserError", "A patch is a list of 'add' and 'replace' operations.")
        found.append((text(item.get("path"), "path", 300), item.get("value")))
    return found


def filters(request: Request) -> Filter:
    """Return whether tags and properties are as asked for: ``name`` is there, or ``name=value`` is, all of a list."""
    tags = _pairs(",".join((*request.query.get("tags", ()), *request.query.get("tag", ()))))
    properties = _pairs(",".join(request.query.get("properties", ())))

    def fits(wanted: list[tuple[str, str | None]], present: Mapping[str, str]) -> bool:
        return all(name in present and (value is None or present[name] == value) for name, value in wanted)

    return lambda has_tags, has_properties: fits(tags, has_tags) and fits(properties, has_properties)


def _pairs(query: str) -> list[tuple[str, str | None]]:
    items = [item.partition("=") for item in query.split(",") if item]
    return [(name, value if equals else None) for name, equals, value in items]


def paged(request: Request, value: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one page; the SDK takes ``$skipToken`` out of ``nextLink``."""
    _, limit = page(request, "count", _LARGEST_PAGE, _LARGEST_PAGE)
    token = request.first("$skipToken") or request.first("offset") or "0"
    if not token.isascii() or not token.isdigit() or len(token) > 9:
        raise Refusal(400, "UserError", "The token of the page is not one.")
    start = int(token)
    end = start + limit
    link = f"https://{request.host}{request.path}?$skipToken={end}" if end < len(value) else None
    return {"value": value[start:end], "continuationToken": None, "nextLink": link}
