"""Who may look at the page: who has its key, which is in the address that the emulator prints.

The key becomes a cookie at the first visit, so that it does not stay in the browser's address line. A cookie belongs to
a host and not to a port, so its name has the emulator's id in it, and its value is not the key.
"""

from __future__ import annotations

import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, urlencode

from himl_container.emulator.http import Answer, Request
from himl_container.emulator.names import STUDIO_HOST

_DROPPED = {"wsid", "tid"}
"""What the SDK writes behind the addresses of the portal, and one emulator has no need of."""


class PageKey:
    """The key of one emulator's page.

    :param secret: of the emulator; key and cookie follow from it.
    :param short_id: of the emulator.
    """

    def __init__(self, secret: str, short_id: str) -> None:
        self.key = _derived("key of the page", secret)
        self._name, self._value = f"himl_page_{short_id}", _derived("cookie of the page", secret)

    @property
    def prefix(self) -> str:
        """What stands before a path of the page in an address that opens it."""
        return f"/k/{self.key}"

    def admits(self, request: Request) -> bool:
        """Whether a request has the cookie."""
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(request.headers.get("cookie", ""))
        except CookieError:
            return False
        found = cookies.get(self._name)
        return found is not None and hmac.compare_digest(found.value.encode(), self._value.encode())

    def enter(self, request: Request) -> Answer | None:
        """Answer a request for ``/k/KEY/PATH``: a cookie, and the way on to PATH. None for a wrong key."""
        if not hmac.compare_digest(request.params.get("key", "").encode(), self.key.encode()):
            return None
        # One slash: two would begin the name of another host.
        path = "/" + quote(request.params.get("rest", "").lstrip("/\\"))
        query = urlencode([(n, v) for n, values in request.query.items() if n not in _DROPPED for v in values])
        # Lax and not strict: a link in a notebook's output leads here too, and nothing here can be changed.
        cookie = f"{self._name}={self._value}; Path=/; HttpOnly; SameSite=Lax"
        if request.host == STUDIO_HOST:
            cookie += "; Secure"
        headers = {
            "location": f"{path}?{query}" if query else path,
            "set-cookie": cookie,
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
        }
        return Answer(303, b"", headers)


def _derived(purpose: str, secret: str) -> str:
    return hmac.new(secret.encode(), purpose.encode(), hashlib.sha256).hexdigest()[:40]
