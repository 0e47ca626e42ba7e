"""Requests and their answers: bodies that are sent again where needed, and read within limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from himl_container.errors import RegistryError
from himl_container.registry.headers import readable
from himl_container.registry.refusals import connection_text
from himl_container.registry.retries import Failure, RetryableError

if TYPE_CHECKING:
    import urllib3

ANSWER_LIMIT = 4 << 20
"""Bytes of an answer that is no blob; the distribution specification's limit for manifests."""
_PIECE = 1 << 20


@dataclass(frozen=True)
class Body:
    """A request's body that can be sent again.

    :param pieces: opens it anew each time.
    :param length: bytes.
    """

    pieces: Callable[[], Iterable[bytes]]
    length: int


@dataclass(frozen=True)
class Request:
    """What is asked of a registry.

    :param target: a path (``/v2/...``) or an address of the registry or, without ``scope``, of anybody.
    :param what: the request, for messages.
    :param scope: what the login is for; empty sends none.
    :param expect: statuses that are an answer; all others are errors, or worth another try.
    :param limit: bytes that the answer may have.
    """

    method: str
    target: str
    what: str
    scope: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Body | None = None
    expect: tuple[int, ...] = (200,)
    limit: int = ANSWER_LIMIT


@dataclass(frozen=True)
class Answer:
    """An answer, read to its end.

    :param headers: found by ``get`` in any case of letters.
    :param url: the address that answered, after redirects.
    """

    status: int
    headers: Mapping[str, str]
    data: bytes = field(repr=False)
    url: str = field(repr=False)


class Stream:
    """An answer whose body is still to come."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url = url
        self._response = response

    def pieces(self) -> Iterator[bytes]:
        """Yield the body.

        :raises RetryableError: it is cut.
        """
        import urllib3

        while True:
            try:
                piece = self._response.read(_PIECE)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise RetryableError(Failure(connection_text(error))) from error
            if not piece:
                return
            yield piece

    def read(self, limit: int) -> bytes:
        """Return the body.

        :raises RetryableError: it is cut.
        :raises RegistryError: it has more than ``limit`` bytes.
        """
        found = bytearray()
        for piece in self.pieces():
            found += piece
            if len(found) > limit:
                raise RegistryError(
                    f"The answer is larger than {limit} bytes, which none of its kind may be", where=readable(self.url)
                )
        return bytes(found)

    def close(self) -> None:
        """Give the connection back, when the body was read; otherwise close it."""
        if self._response.length_remaining == 0:
            self._response.drain_conn()  # an answer without a body (HEAD, 202) is read by this, and its connection kept
        self._response.close()


def drained(stream: Stream) -> None:
    """Read the rest of a short answer, so that its connection serves again; a long one is closed."""
    try:
        for seen, piece in enumerate(stream.pieces()):
            if seen or len(piece) >= _PIECE:
                break
    except RetryableError:
        pass
    finally:
        stream.close()
