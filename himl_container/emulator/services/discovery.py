"""Discovery: at which address each service of the workspace answers."""

from __future__ import annotations

from himl_container.emulator.http import Answer, Request, json_answer
from himl_container.emulator.names import API_HOST
from himl_container.emulator.routes import Route

_NAMES = ("api", "catalog", "experimentation", "gallery", "history", "hyperdrive", "modelmanagement", "pipelines")
"""What ``_restclient/service_context.py`` of the SDK asks for, beside ``studio``."""


class Discovery:
    """Names one host for all services, and the emulator's own address for the page.

    :param studio: address of the page, which becomes the portal addresses of runs (``http://127.0.0.1:PORT``).
    """

    def __init__(self, studio: str) -> None:
        self._studio = studio

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        test = "tests/emulator/test_workspace.py::test_from_config"
        patterns = ("/discovery", "/discovery/workspaces/{id}", "/discovery/v1.0/{ws}", "/discovery/{ws}")
        return tuple(Route("GET", item, self._services, "Discovery.Services", test, public=True) for item in patterns)

    def _services(self, request: Request) -> Answer:
        return json_answer({**dict.fromkeys(_NAMES, f"https://{API_HOST}"), "studio": self._studio})
