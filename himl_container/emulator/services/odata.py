"""Filters and orders of lists, as the SDK writes them (``_restclient/_odata``): OData without most of its quotes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TypeVar

from himl_container.emulator.http import Refusal, parse_json

T = TypeVar("T")

Value = str | float | None
"""What a field may be; a time is in seconds since the epoch."""

Fields = Mapping[str, Value]
"""The fields of one item by lower-case path (``status``, ``createdutc``); names of tags and properties keep their case
(``tags/Mine``). What has no such tag compares to nothing, not even to null: that is how the SDK asks for existence."""

Filter = Callable[[Fields], bool]

TIMES = frozenset({"createdutc", "starttimeutc", "endtimeutc"})

_LONGEST = 100_000
_DEEPEST = 50
_OPERATOR = re.compile(r" +(eq|ne|gt|ge|lt|le) +")
_QUOTE_ENDS = re.compile(r'" *(?=$|\)| +(?:and|or) )')
_JOINS = re.compile(r" +(and|or) +")


def parse_filter(text: str) -> Filter:
    """Return a filter; an empty text lets everything pass.

    :raises Refusal: 400, it is not a filter.
    """
    if len(text) > _LONGEST:
        raise Refusal(400, "UserError", "The filter is too long.")
    if not text.strip():
        return lambda fields: True
    parser = _Parser(text.strip())
    found = parser.either(0)
    if parser.rest():
        raise parser.refusal()
    return found


class _Parser:
    """Recursive descent; ``and`` binds before ``or``."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def rest(self) -> str:
        return self._text[self._at :].strip()

    def refusal(self) -> Refusal:
        return Refusal(400, "UserError", f"The filter is not understood at character {self._at + 1}.")

    def either(self, depth: int) -> Filter:
        return self._joined("or", any, lambda: self._joined("and", all, lambda: self._one(depth)))

    def _joined(self, word: str, how: Callable[[Sequence[bool]], bool], part: Callable[[], Filter]) -> Filter:
        parts = [part()]
        while (match := _JOINS.match(self._text, self._at)) and match[1] == word:
            self._at = match.end()
            parts.append(part())
        return parts[0] if len(parts) == 1 else lambda fields: how([one(fields) for one in parts])

    def _one(self, depth: int) -> Filter:
        if depth > _DEEPEST:
            raise self.refusal()
        while self._text.startswith(" ", self._at):
            self._at += 1
        if not self._text.startswith("(", self._at):
            return self._comparison()
        self._at += 1
        found = self.either(depth + 1)
        while self._text.startswith(" ", self._at):
            self._at += 1
        if not self._text.startswith(")", self._at):
            raise self.refusal()
        self._at += 1
        return found

    def _comparison(self) -> Filter:
        match = _OPERATOR.search(self._text, self._at)
        if match is None or match.start() == self._at:
            raise self.refusal()
        path, operator = field_path(self._text[self._at : match.start()]), match[1]
        self._at = match.end()
        value = self._value()
        wanted: Value = seconds(value) if value is not None and path in TIMES else value
        return lambda fields: path in fields and _compare(fields[path], operator, wanted)

    def _value(self) -> str | None:
        start = self._at
        if self._text.startswith('"', start):
            # A quote inside the value is not marked by the SDK: the value ends where something else can follow.
            end = _QUOTE_ENDS.search(self._text, start + 1)
            if end is None:
                raise self.refusal()
            self._at = end.start() + 1
            return self._text[start + 1 : end.start()]
        depth = 0
        while self._at < len(self._text) and not _JOINS.match(self._text, self._at):
            letter = self._text[self._at]
            if letter == ")" and depth == 0:
                break
            depth += {"(": 1, ")": -1}.get(letter, 0)
            self._at += 1
        value = self._text[start : self._at].strip()
        return None if value == "null" else value


def field_path(text: str) -> str:
    """Return the path of a field as :data:`Fields` has it."""
    head, slash, name = text.strip().partition("/")
    head = head.lower()
    return f"{head}{slash}{name if head in ('tags', 'properties') else name.lower()}"


def seconds(text: str) -> float:
    """Return a time of a filter as seconds since the epoch; without a zone it is UTC.

    :raises Refusal: 400, it is not a time.
    """
    try:
        # Python 3.10 knows neither Z nor seven digits.
        time = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.strip().replace("Z", "+00:00")))
        # The last and the first year in another zone are no time in this one.
        return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).astimezone(timezone.utc).timestamp()
    except (ValueError, OverflowError):
        raise Refusal(400, "UserError", f"{text[:40]!r} is not a time.") from None


def _compare(value: Value, operator: str, wanted: Value) -> bool:
    if operator == "eq":
        return value == wanted
    if operator == "ne":
        return value != wanted
    if value is None or wanted is None or isinstance(value, str) is not isinstance(wanted, str):
        return False
    order = (value > wanted) - (value < wanted)  # type: ignore[operator]  # of one type, as was just seen
    return {"gt": order > 0, "ge": order >= 0, "lt": order < 0, "le": order <= 0}[operator]


def page(
    items: Sequence[T], fields: Callable[[T], Fields], *, order: str, top: int, token: str, key: Callable[[T], str]
) -> tuple[list[T], str | None]:
    """Return one page of items, and the token of the next; None for the last.

    A page begins behind the last item of the one before, so that what is added meanwhile moves nothing.

    :param order: ``StartTimeUtc desc``; :param top: how many at most; :param key: what is different for all.
    :raises Refusal: 400, a bad order or token.
    """
    name, _, direction = order.strip().partition(" ")
    down = direction.strip().lower() == "desc"
    if direction.strip().lower() not in ("", "asc", "desc"):
        raise Refusal(400, "UserError", "An order ends in asc or desc.")
    path = field_path(name)
    ranked = [((*_rank(fields(item).get(path)), key(item)), item) for item in items]
    ranked.sort(key=lambda pair: pair[0], reverse=down)
    if token:
        last = _read_token(token)
        ranked = [(rank, item) for rank, item in ranked if (rank < last if down else rank > last)]
    shown = ranked[:top]
    return [item for _, item in shown], (_write_token(shown[-1][0]) if shown and len(ranked) > top else None)


_Rank = tuple[float, str, str]


def _rank(value: Value) -> tuple[float, str]:
    """Nothing comes before everything."""
    if isinstance(value, str):
        return 0.0, value
    return (float("-inf") if value is None else value), ""


def _write_token(rank: _Rank) -> str:
    return base64.urlsafe_b64encode(json.dumps(rank).encode()).decode()


def _read_token(token: str) -> _Rank:
    try:
        number, text, key = parse_json(base64.urlsafe_b64decode(token.encode()))
        return float(number), str(text), str(key)
    except (ValueError, TypeError):
        raise Refusal(400, "UserError", "The continuation token is not one of this service.") from None
