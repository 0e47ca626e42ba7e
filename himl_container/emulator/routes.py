"""Which function answers which request: patterns of paths by host, and what ``docs/emulator.md`` says of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from himl_container.emulator.http import Answer, Refusal, Request
from himl_container.emulator.names import WORKSPACE_PATH

Handler = Callable[[Request], Answer]
Host = Literal["aad", "arm", "api", "registry", "studio", "telemetry", "vault"]
How = Literal["imitated", "approximated"]

_PARAMETER = re.compile(r"\{(\w+)(\*?)\}")


@dataclass(frozen=True)
class Route:
    """One operation.

    :param pattern: ``{name}`` stands for one segment of the path, ``{name*}`` for the rest of it, and ``{ws}`` for the
        whole resource path of a workspace (``subscriptions/.../workspaces/name``).
    :param operation: its name in ``docs/emulator.md`` and in the log (``RunHistory.GetRun``).
    :param test: the test that shows it (``tests/emulator/test_runs.py::test_tags``).
    :param how: whether the answer is what Azure's would be, as far as the SDK can tell, or only near it.
    :param note: what is approximated.
    :param public: answers without a token (login, discovery of the login, telemetry).
    """

    method: str
    pattern: str
    handler: Handler
    operation: str
    test: str
    host: Host = "api"
    how: How = "imitated"
    note: str = ""
    public: bool = False


@dataclass(frozen=True)
class Found:
    """A route and the request with the parameters that its pattern found."""

    route: Route
    request: Request


class Router:
    """All routes. The first that fits wins, so more exact ones are registered before."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: Sequence[Route] = tuple(routes)
        self._compiled = [(route, _compile(route.pattern)) for route in self.routes]

    def find(self, host: Host, request: Request) -> Found:
        """Return the route of a request.

        :raises Refusal: 404 for a path that nothing answers, 405 for one that answers other verbs.
        """
        verbs = set()
        for route, pattern in self._compiled:
            if route.host != host:
                continue
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            if route.method == request.method:
                return Found(route, replace(request, params=match.groupdict()))
            verbs.add(route.method)
        if verbs:
            raise Refusal(
                405,
                "MethodNotAllowed",
                "The path does not answer this verb.",
                headers={"allow": ", ".join(sorted(verbs))},
            )
        raise Refusal(404, "NotFound", "There is no such operation.")


def _compile(pattern: str) -> re.Pattern[str]:
    text = pattern.replace("{ws}", WORKSPACE_PATH)
    parts, end = [], 0
    for match in _PARAMETER.finditer(text):
        parts.append(re.escape(text[end : match.start()]))
        parts.append(f"(?P<{match[1]}>{'.*' if match[2] else '[^/]+'})")
        end = match.end()
    parts.append(re.escape(text[end:]))
    # Azure's paths do not distinguish case, and the SDK writes resourceGroups and resourcegroups both.
    return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)
