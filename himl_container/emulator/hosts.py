"""Which host names the emulator answers for, and what answers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from himl_container.emulator.names import AAD_HOST, ARM_HOST, STUDIO_HOST, Workspace
from himl_container.emulator.routes import Host
from himl_container.emulator.tokens import ARM_AUDIENCES, ML_AUDIENCES, VAULT_AUDIENCES

Service = Host | Literal["blob"]

AUDIENCES: dict[str, frozenset[str]] = {
    "arm": ARM_AUDIENCES,
    # The SDK shows its Resource Manager token to the workspace's services too.
    "api": ARM_AUDIENCES | ML_AUDIENCES,
    "vault": VAULT_AUDIENCES,
    "studio": ARM_AUDIENCES | ML_AUDIENCES,
    "registry": ARM_AUDIENCES,
}
"""For which services a token must be meant that is shown to a host."""

_EXACT: dict[str, Service] = {
    AAD_HOST: "aad",
    "login.windows.net": "aad",
    "login.microsoft.com": "aad",
    "sts.windows.net": "aad",
    ARM_HOST: "arm",
    STUDIO_HOST: "studio",
    "dc.services.visualstudio.com": "telemetry",
    "dc.applicationinsights.azure.com": "telemetry",
    "dc.applicationinsights.microsoft.com": "telemetry",
}
_ENDS: tuple[tuple[str, Service], ...] = (
    (".api.azureml.ms", "api"),
    (".experiments.azureml.net", "api"),
    (".modelmanagement.azureml.net", "api"),
    (".workspace.api.azureml.ms", "api"),
    (".in.applicationinsights.azure.com", "telemetry"),
)


@dataclass(frozen=True)
class Hosts:
    """The hosts of one emulator. Storage accounts, registries and vaults of others do not exist for it.

    :param local: the emulator's own addresses, at which the page answers without TLS (``127.0.0.1``).
    """

    workspace: Workspace
    local: tuple[str, ...] = ("127.0.0.1", "localhost")

    def kind(self, host: str) -> Service | None:
        """Return what answers a host name (small letters, no port); None where nothing does."""
        own: dict[str, Service] = {
            self.workspace.blob_host: "blob",
            self.workspace.registry_host: "registry",
            f"{self.workspace.key_vault}.vault.azure.net": "vault",
        }
        found = _EXACT.get(host) or own.get(host)
        if found is None:
            return next((kind for end, kind in _ENDS if host.endswith(end)), None)
        return found
