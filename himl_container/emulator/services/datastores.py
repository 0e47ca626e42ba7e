"""Datastores, as ``Datastore`` of the SDK asks for them (``data/datastore_client.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from himl_container.emulator.access import Access
from himl_container.emulator.data.credentials import Credentials
from himl_container.emulator.http import Answer, Refusal, Request, json_answer
from himl_container.emulator.identity import Identity
from himl_container.emulator.routes import Route
from himl_container.emulator.services.documents import page, plain_tags, text
from himl_container.emulator.state.datastores import BLOB, SECTIONS, Datastore, Datastores, checked_name

_CONTAINER_MARK = "$web", "$root", "$logs"
_TEST = "tests/emulator/test_datastores.py::"
_LARGEST_PAGE = 1000


class DatastoreService:
    """Names, places and credentials of datastores. A job reads them and changes none."""

    def __init__(self, stores: Datastores, credentials: Credentials, access: Access) -> None:
        self._stores, self._credentials, self._access = stores, credentials, access

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        base = "/datastore/v1.0/{ws}"
        one, register = f"{base}/datastores/{{name}}", f"{_TEST}test_register_by_key_and_by_sas"
        names = "Blobs of the emulator's own account are checked; every other kind of datastore is only a name."
        return (
            Route("GET", f"{base}/datastores", self._list, "Datastores.List", f"{_TEST}test_built_in"),
            Route(
                "POST",
                f"{base}/datastores",
                self._create,
                "Datastores.Create",
                register,
                how="approximated",
                note=names,
            ),
            Route("GET", one, self._get, "Datastores.Get", f"{_TEST}test_built_in"),
            Route("PUT", one, self._update, "Datastores.Update", f"{_TEST}test_overwrite"),
            Route("DELETE", one, self._delete, "Datastores.Delete", f"{_TEST}test_unregister"),
            Route("GET", f"{base}/default", self._default, "Datastores.GetDefault", f"{_TEST}test_default"),
            Route("PUT", f"{base}/default/{{name}}", self._choose, "Datastores.SetDefault", f"{_TEST}test_default"),
        )

    def _list(self, request: Request) -> Answer:
        secrets = request.first("includeSecret").lower() == "true"
        after, limit = page(request, "count", 100, _LARGEST_PAGE)
        wanted = {name.lower() for item in request.query.get("dataStoreNames", ()) for name in item.split(",") if name}
        found = [store for store in self._stores.page(after) if not wanted or store.name in wanted]
        shown = found[:limit]
        token = shown[-1].name if len(found) > limit else None
        value = [self._document(store, request.identity if secrets else None) for store in shown]
        return json_answer({"value": value, "continuationToken": token, "nextLink": None})

    def _get(self, request: Request) -> Answer:
        return json_answer(self._document(self._stores.get(request.params["name"]), request.identity))

    def _default(self, request: Request) -> Answer:
        return json_answer(self._document(self._stores.default(), request.identity))

    def _choose(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        self._stores.set_default(request.params["name"])
        return json_answer({})

    def _create(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        wanted = self._read(request, None)
        if self._stores.find(wanted.name) is None:  # the conflict is told first, because the SDK acts on it
            self._check(request, wanted)
        self._stores.create(wanted.name, wanted.kind, wanted.section, wanted.tags)
        # 201 makes the SDK fail (``operations/data_stores_operations.py``).
        return json_answer({})

    def _update(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        wanted = self._read(request, self._stores.get(request.params["name"]).name)
        self._check(request, wanted)
        self._stores.replace(wanted.name, wanted.kind, wanted.section, wanted.tags)
        return json_answer({})

    def _delete(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        return json_answer({}, 200 if self._stores.delete(request.params["name"]) else 204)

    def _check(self, request: Request, store: Datastore) -> None:
        if store.kind in (BLOB, "AzureFile") and request.first("skipValidation").lower() != "true":
            create = request.first("createIfNotExists").lower() == "true"
            self._credentials.check(store, make_container=create)

    def _read(self, request: Request, name: str | None) -> Datastore:
        document = request.document()
        name = name or checked_name(document.get("name"))
        kind = document.get("dataStoreType")
        if not isinstance(kind, str) or kind not in SECTIONS:
            raise Refusal(400, "UserError", f"A datastore is one of {', '.join(sorted(SECTIONS))}.")
        section: Mapping[str, Any] = {}
        if SECTIONS[kind]:
            found = document.get(SECTIONS[kind])
            if not isinstance(found, dict):
                raise Refusal(400, "UserError", f"A datastore of the type {kind} needs {SECTIONS[kind]}.")
            section = _storage(found) if SECTIONS[kind] == "azureStorageSection" else found
        return Datastore(name, kind, section, plain_tags(document.get("tags")))

    def _document(self, store: Datastore, identity: Identity | None) -> dict[str, Any]:
        """Return a datastore in the wire's terms; without credentials where nobody is named."""
        section = self._credentials.listed(store) if identity is None else self._credentials.section(store, identity)
        document: dict[str, Any] = dict.fromkeys(filter(None, SECTIONS.values()))
        if SECTIONS[store.kind]:
            document[SECTIONS[store.kind]] = section
        return {
            "name": store.name,
            "dataStoreType": store.kind,
            "hasBeenValidated": True,
            "tags": store.tags,
            **document,
        }


def _storage(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a storage section with its credential where the SDK reads it.

    The SDK sends ``credential`` with ``credentialType`` and reads ``accountKey`` or ``sasToken``.
    """
    account, container = (
        text(section.get("accountName"), "accountName", 24),
        text(section.get("containerName"), "containerName", 63),
    )
    if not account.isalnum() or not account.isascii():
        raise Refusal(400, "UserError", "A storage account's name has letters and digits.")
    plain = container.replace("-", "")
    if container not in _CONTAINER_MARK and not (
        plain.isalnum() and plain.isascii() and container == container.lower()
    ):
        raise Refusal(400, "UserError", "A container's name has small letters, digits and '-'.")
    kind, credential = section.get("credentialType"), section.get("credential")
    kept = dict(section)
    if kind == "AccountKey" and credential:
        kept["accountKey"] = text(credential, "credential", 1024)
    if kind == "Sas" and credential:
        kept["sasToken"] = text(credential, "credential", 8192).lstrip("?")
    kept.pop("credential", None)
    return kept
