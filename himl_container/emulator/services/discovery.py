"""Discovery: at which address each service of the workspace answers."""

from __future__ import annotations

import hmac

from himl_container.emulator.http import Answer, Request, json_answer
from himl_container.emulator.names import API_HOST
from himl_container.emulator.routes import Route

_NAMES = ("api", "catalog", "experimentation", "gallery", "history", "hyperdrive", "modelmanagement", "pipelines")
"""What ``_restclient/service_context.py`` of the SDK asks for, beside ``studio``."""


class Discovery:
    """Names one host for all services, and the emulator's own address for the page.

    :param studio: address of the page, which becomes the portal addresses of runs (``http://127.0.0.1:PORT``).
    :param ticket: last part of the address of who is to get ``keyed_studio``, the address that opens the page.
    """

    def __init__(self, studio: str, ticket: str, keyed_studio: str) -> None:
        self._studio, self._ticket, self._keyed_studio = studio, ticket, keyed_studio

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        test = "tests/emulator/test_workspace.py::test_from_config"
        patterns = ("/discovery", "/discovery/workspaces/{id}", "/discovery/v1.0/{ws}", "/discovery/{ws}")
        return tuple(Route("GET", item, self._services, "Discovery.Services", test, public=True) for item in patterns)

    def _services(self, request: Request) -> Answer:
        knows = hmac.compare_digest(request.params.get("id", "").encode(), self._ticket.encode())
        studio = self._keyed_studio if knows else self._studio
        return json_answer({**dict.fromkeys(_NAMES, f"https://{API_HOST}"), "studio": studio})
