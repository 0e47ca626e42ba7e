"""What the emulator imitates, operation by operation: the tables of ``docs/emulator.md``, made from the routes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from himl_container.emulator.app import Surroundings, build
from himl_container.emulator.blobs import Blobs
from himl_container.emulator.config import EmulatorConfig
from himl_container.emulator.installation import open_installation
from himl_container.emulator.job_network import Way
from himl_container.emulator.names import AAD_HOST, API_HOST, ARM_HOST
from himl_container.emulator.routes import Route

_HOSTS = {
    "aad": AAD_HOST,
    "arm": ARM_HOST,
    "api": API_HOST,
    "registry": "NAME.azurecr.io",
    "studio": "127.0.0.1:PORT",
    "telemetry": "dc.services.visualstudio.com",
    "vault": "NAME.vault.azure.net",
}


class _NoBlobs:
    """Storage of an emulator that never serves anybody."""

    def make_container(self, container: str) -> None:
        """Do nothing."""


def all_routes() -> tuple[Route, ...]:
    """Return every route of an emulator, in the order of their operations' names; none is running for that."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        installation = open_installation(folder, workspace_name="emulator", resource_group="emulator-group")
        around = Surroundings(cast("Blobs", _NoBlobs()), "http://127.0.0.1:1", "http://127.0.0.1:2", _no_way)
        application = build(installation, EmulatorConfig(), around)
        application.close()
    return tuple(sorted(application.router.routes, key=lambda route: (route.operation, route.method, route.pattern)))


def tables(routes: Iterable[Route]) -> str:
    """Return the routes in Markdown: a heading for each service, and a table of its operations."""
    parts: dict[str, list[str]] = {}
    for route in routes:
        service, _, operation = route.operation.partition(".")
        how = f"{route.how}: {route.note.rstrip('.')}" if route.note else route.how
        test = route.test.removeprefix("tests/emulator/").removesuffix("]").replace("::", " ")
        cells = (operation, f"`{route.method}` `{route.pattern}`", how, f"`{test}`")
        lines = parts.setdefault(f"{service} (`{_HOSTS[route.host]}`)", [])
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    head = "| operation | request | how | test |\n| --- | --- | --- | --- |"
    return "\n".join(f"### {title}\n\n{head}\n" + "\n".join(lines) + "\n" for title, lines in parts.items())


def _no_way() -> Way:
    raise AssertionError("an emulator that is only looked at runs no jobs")
