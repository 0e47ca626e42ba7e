"""Registries beside an emulator's, for a process whose variables lead to it."""

from __future__ import annotations

import os
from typing import Any

from himl_container.outside import Outside
from himl_container.publish.remote import Connect
from himl_container.registry.addresses import parse_address
from himl_container.registry.api import Repository
from himl_container.settings import Settings


def is_in(registry: str, settings: Settings) -> bool:
    """Whether images of these settings are in a registry (``NAME.azurecr.io``).

    :raises InputError: the settings' name is not that of a repository.
    """
    return parse_address(settings.remote_name).host.lower() == registry.lower()


def beside(there: Outside, settings: Settings, connect_to: Connect) -> Connect:
    """Return how to reach repositories: the project's registry through the emulator, others (the base's) outside."""
    ours = parse_address(settings.remote_name).host.lower()
    environ = there.applied(os.environ)

    def connect(name: str, **more: Any) -> Repository:
        if parse_address(name).host.lower() != ours:
            more = {"environ": environ, **more}
        return connect_to(name, **more)

    return connect
