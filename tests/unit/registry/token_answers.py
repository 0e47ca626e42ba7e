"""A server of tokens without a network, for unit tests of logins."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from himl_container.registry.login import Login, LoginUnavailableError, Place

Answer = tuple[int, Mapping[str, str], bytes]


@dataclass(frozen=True)
class Sent:
    """A request that was made."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The fields of the query or of the form."""
        return parse_qsl(self.body.decode() if self.body else urlsplit(self.url).query)

    @property
    def login(self) -> str:
        """The ``Authorization`` header."""
        return self.headers.get("Authorization", "")


@dataclass
class Server:
    """Answers with what ``reply`` says; by default a new token each time, valid for 300 seconds."""

    reply: Callable[[Sent], Answer] | None = None
    sent: list[Sent] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None) -> Answer:
        sent = Sent(method, url, dict(headers), body or b"")
        with self._lock:
            self.sent.append(sent)
            number = len(self.sent)
        return self.reply(sent) if self.reply else token(f"token-{number}")


def token(value: str, expires_in: object = 300) -> Answer:
    return answer(200, {"token": value, "expires_in": expires_in})


def answer(status: int, value: object) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


@dataclass
class Given:
    """A source with fixed logins: the first time the first, and so on; the last for ever."""

    logins: list[Login | LoginUnavailableError | None]
    asked: list[str] = field(default_factory=list)

    def login(self, place: Place) -> Login | None:
        self.asked.append(place.host)
        found = self.logins[min(len(self.asked), len(self.logins)) - 1]
        if isinstance(found, LoginUnavailableError):
            raise found
        return found


@dataclass
class Clock:
    """A clock that a test turns."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def place(host: str, *, url: str = "", request: Server | None = None, repository: str = "") -> Place:
    return Place(host, url or f"https://{host}", request or Server(), repository)
