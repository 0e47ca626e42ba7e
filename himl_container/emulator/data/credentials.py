"""What a client needs to reach a datastore's blobs: the account's key for a user, a signature for a job."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from himl_container.emulator.blobs import Blobs
from himl_container.emulator.data.reach import CLOSED_TO_JOBS
from himl_container.emulator.http import Refusal
from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.installation import Installation
from himl_container.emulator.state.datastores import BLOB, Datastore

ENDPOINT = "core.windows.net"

_SECRETS = frozenset({"accountKey", "sasToken", "credential", "clientSecret", "userPassword", "credentialValue"})


class Credentials:
    """The credentials of datastores.

    :param lifetime: seconds for which a job's signature is valid.
    """

    def __init__(
        self, installation: Installation, blobs: Blobs, clock: Callable[[], float], lifetime: float = 7 * 24 * 3600
    ) -> None:
        self._account, self._key = installation.workspace.storage_account, installation.storage_key
        self._workspace = installation.workspace
        self._blobs, self._clock, self._lifetime = blobs, clock, lifetime

    def section(self, store: Datastore, identity: Identity) -> dict[str, Any]:
        """Return a datastore's section of the wire with the credentials that somebody is given.

        A user gets what was registered. A job gets a signature for the one container where Azure gives it the account's
        key, because with the key it could read the files of other jobs; and nothing for the containers of those files.
        """
        if store.kind not in (BLOB, "AzureFile"):
            return dict(store.section) if identity.kind is Kind.USER else without_secrets(store.section)
        key, sas = str(store.section.get("accountKey") or ""), str(store.section.get("sasToken") or "")
        if store.built_in:
            key = self._key
        if identity.kind is not Kind.USER and self.owns(store) and not sas:
            key, sas = "", "" if store.container in CLOSED_TO_JOBS else self._signature(store.container)
        kind = "Sas" if sas else "AccountKey" if key else "None"
        return {
            **self._place(store),
            "credentialType": kind,
            "credential": sas or key or None,
            "isSas": bool(sas),
            "accountKey": key or None,
            "sasToken": sas or None,
        }

    def listed(self, store: Datastore) -> dict[str, Any]:
        """Return a datastore's section as a list has it, without credentials."""
        section = without_secrets(store.section)
        if store.kind not in (BLOB, "AzureFile"):
            return section
        kind = "AccountKey" if store.built_in else section.get("credentialType") or "None"
        # The SDK's list makes a client of each, so the fields must be there.
        empty = {"credential": None, "accountKey": None, "sasToken": None}
        return {**self._place(store), "credentialType": kind, "isSas": kind == "Sas", **empty}

    def owns(self, store: Datastore) -> bool:
        """Whether a datastore is in the emulator's own storage account."""
        return store.account.lower() == self._account and store.kind == BLOB

    def check(self, store: Datastore, *, make_container: bool) -> None:
        """Find out whether a datastore of blobs can be reached with its credentials, as Azure does at registration.

        :raises Refusal: 400, with the reason.
        """
        if not self.owns(store):
            why = (
                f"the emulator has one storage account, {self._account}, and no file shares; a datastore elsewhere is "
                "only a name here and is registered with skip_validation=True"
            )
            raise _unreachable(store, why)
        key, sas = str(store.section.get("accountKey") or ""), str(store.section.get("sasToken") or "")
        if not sas and key != self._key:
            raise _unreachable(store, "the account key is not valid" if key else "neither a key nor a SAS is given")
        if make_container:
            self._blobs.make_container(store.container)
        found = self._blobs.reach(store.container, sas)
        if found == "missing":
            raise _unreachable(store, f"there is no container {store.container!r}")
        if found == "denied":
            raise _unreachable(store, "the SAS does not allow to read the container")

    def _place(self, store: Datastore) -> dict[str, Any]:
        section = store.section
        return {
            "accountName": store.account,
            "containerName": store.container,
            "endpoint": section.get("endpoint") or ENDPOINT,
            "protocol": section.get("protocol") or "https",
            "clientCredentials": None,
            "blobCacheTimeout": section.get("blobCacheTimeout"),
            "areWorkspaceManagedIdentitiesAllowed": False,
            "subscriptionId": section.get("subscriptionId") or self._workspace.subscription_id,
            "resourceGroup": section.get("resourceGroup") or self._workspace.resource_group,
            "serviceDataAccessAuthIdentity": "None",
        }

    def _signature(self, container: str) -> str:
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.timezone.utc)
        signature: str = generate_container_sas(
            self._account,
            container,
            account_key=self._key,
            permission=ContainerSasPermissions.from_string("racwdl"),
            start=now - datetime.timedelta(minutes=10),
            expiry=now + datetime.timedelta(seconds=self._lifetime),
        )
        return signature


def without_secrets(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section of the wire without keys, signatures and passwords."""
    kept = {name: value for name, value in section.items() if name not in _SECRETS}
    if isinstance(kept.get("clientCredentials"), Mapping):
        kept["clientCredentials"] = without_secrets(kept["clientCredentials"])
    return kept


def _unreachable(store: Datastore, why: str) -> Refusal:
    return Refusal(400, "UserError", f"Datastore {store.name} cannot be reached: {why}.")
