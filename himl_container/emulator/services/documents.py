"""Reading what clients send to the data and model services: texts, tags, pages."""

from __future__ import annotations

from typing import Any

from himl_container.emulator.http import Refusal, Request

_LONGEST = 4096


def text(value: object, what: str, longest: int = _LONGEST) -> str:
    """Return a text that is not empty.

    :param longest: how many characters it may have.
    :raises Refusal: 400, it is something else, too long, or has a NUL byte or a lone surrogate.
    """
    if not isinstance(value, str) or not value:
        raise _bad(f"{what} is missing or not a text")
    if len(value) > longest:
        raise _bad(f"{what} has more than {longest} characters")
    if "\0" in value or not _is_unicode(value):
        raise _bad(f"{what} has a NUL byte or is not valid Unicode")
    return value


def optional_text(value: object, what: str, longest: int = _LONGEST) -> str:
    """Return a text; empty for null.

    :raises Refusal: 400, as :func:`text`.
    """
    return text(value, what, longest) if value not in (None, "") else ""


def plain_tags(value: object, what: str = "tags") -> dict[str, str]:
    """Return tags or properties, texts for texts; empty for null.

    Numbers and booleans become texts, as the SDK's own models make them.

    :raises Refusal: 400, they are something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _bad(f"{what} is not an object")
    return {text(name, what, 512): _plain(item, what) for name, item in value.items()}


def page(request: Request, count: str, default: int, most: int) -> tuple[str, int]:
    """Return behind which entry a page begins, and how many entries it has.

    :param count: name of the query parameter for the latter.
    :raises Refusal: 400, the number is none.
    """
    wanted = request.first(count)
    if wanted and not (wanted.isascii() and wanted.isdigit() and len(wanted) < 10):
        raise _bad(f"{count} is not a number")
    return request.first("continuationToken"), max(1, min(int(wanted) if wanted else default, most))


def _plain(value: Any, what: str) -> str:
    if isinstance(value, dict | list):
        raise _bad(f"a value of {what} is not a text")
    found = "" if value is None else value if isinstance(value, str) else str(value)
    return optional_text(found, what)


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad(why: str) -> Refusal:
    return Refusal(400, "UserError", f"The request cannot be used: {why}.")
