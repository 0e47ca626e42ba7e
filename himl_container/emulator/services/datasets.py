"""Datasets, as ``Dataset`` of the SDK asks for them (``data/abstract_dataset.py`` and its helpers)."""

from __future__ import annotations

import unicodedata
from typing import Any

from himl_container.emulator.access import Access
from himl_container.emulator.data.dataflow import parse_dataflow, rslex_yaml
from himl_container.emulator.http import Answer, Refusal, Request, json_answer, not_found
from himl_container.emulator.routes import Route
from himl_container.emulator.services.documents import optional_text, page, plain_tags, text
from himl_container.emulator.state.datasets import KINDS, STATES, Datasets, DatasetVersion, Kind, SavedDataset
from himl_container.emulator.state.runs import iso
from himl_container.errors import InputError

_TEST = "tests/emulator/test_datasets.py::"
_UNREGISTERED = "unregistered-"
_LARGEST_PAGE = 1000


class DatasetService:
    """Definitions of datasets, their names, versions and tags. A job registers datasets, and unregisters none."""

    def __init__(self, datasets: Datasets, access: Access) -> None:
        self._datasets, self._access = datasets, access

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        base = "/dataset/v1.0/{ws}"
        one, query = f"{base}/datasets/{{id}}", f"{base}/datasets/query"
        versions, saved, tags = f"{_TEST}test_versions", f"{_TEST}test_by_id", f"{_TEST}test_tags_and_description"
        archive = f"{_TEST}test_archived"
        return (
            Route("GET", f"{base}/datasets", self._list, "Datasets.List", f"{_TEST}test_get_all"),
            Route("POST", f"{base}/datasets", self._register, "Datasets.Register", versions),
            Route("GET", f"{query}/name={{name}}", self._by_name, "Datasets.GetByName", versions),
            Route("GET", f"{query}/savedDatasetId={{id}}", self._by_saved, "Datasets.GetBySavedId", saved),
            Route("GET", one, self._get, "Datasets.Get", archive),
            Route("PUT", one, self._update, "Datasets.Update", tags),
            Route("DELETE", one, self._unregister, "Datasets.Unregister", f"{_TEST}test_unregister"),
            Route("PUT", f"{one}/state", self._set_state, "Datasets.SetState", archive),
            Route("GET", f"{one}/definitions", self._definitions, "Datasets.ListDefinitions", archive),
            Route("POST", f"{base}/saveddatasets", self._save, "SavedDatasets.EnsureSaved", saved),
            Route("GET", f"{base}/saveddatasets/{{id}}", self._get_saved, "SavedDatasets.Get", saved),
            Route(
                "GET",
                "/data/v1.0/{ws}/dataversion/{name}/versions/{version}",
                self._data_version,
                "DataVersion.Get",
                saved,
                how="approximated",
                note="Datasets of this SDK only; no data assets of version 2 of the SDK.",
            ),
        )

    def _list(self, request: Request) -> Answer:
        after, limit = page(request, "pageSize", 100, _LARGEST_PAGE)
        archived = request.first("includeInvisible").lower() == "true"
        names = {name for item in request.query.get("datasetNames", ()) for name in item.split(",") if name}
        found = self._datasets.page(
            after, -1 if names else limit + 1, archived=archived, containing=request.first("searchText")
        )
        found = [item for item in found if not names or item.name in names]
        shown = found[:limit]
        token = shown[-1].name if len(found) > limit else None
        value = [_document(item) for item in shown]
        return json_answer({"value": value, "continuationToken": token, "nextLink": None})

    def _register(self, request: Request) -> Answer:
        document = request.document()
        latest = document.get("latest")
        if not isinstance(latest, dict):
            raise Refusal(400, "UserError", "A dataset is registered with its definition in 'latest'.")
        new_version = all(request.first(name).lower() == "true" for name in ("ifExistsOk", "updateDefinitionIfExists"))
        made = self._datasets.register(
            _name(document.get("name")),
            _kind(document.get("datasetType")),
            _dataflow(latest.get("dataflow")),
            properties=_properties(latest.get("properties")),
            saved_id=optional_text(latest.get("savedDatasetId"), "savedDatasetId", 100),
            description=optional_text(document.get("description"), "description"),
            tags=plain_tags(document.get("tags")),
            new_version=new_version,
        )
        return json_answer(_document(made))

    def _by_name(self, request: Request) -> Answer:
        version = _number(request.first("versionId"))
        return json_answer(_document(self._datasets.get(request.params["name"], version)))

    def _by_saved(self, request: Request) -> Answer:
        found = self._datasets.of_saved(request.params["id"])
        value = [] if found is None else [_document(found)]
        return json_answer({"value": value, "continuationToken": None, "nextLink": None})

    def _get(self, request: Request) -> Answer:
        return json_answer(_document(self._datasets.by_id(request.params["id"])))

    def _update(self, request: Request) -> Answer:
        document = request.document()
        dataset_id = request.params["id"]
        latest = document.get("latest")
        given = latest.get("versionId") if isinstance(latest, dict) else None
        version = _number(str(given)) if given not in (None, "") else None
        version = version or self._datasets.by_id(dataset_id).version
        description = optional_text(document.get("description"), "description")
        tags = plain_tags(document.get("tags"))
        return json_answer(_document(self._datasets.change(dataset_id, version, description, tags)))

    def _unregister(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        # The SDK puts the name where the id is elsewhere.
        self._datasets.unregister(request.params["id"])
        return json_answer({})

    def _set_state(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        wanted = str(request.document().get("state")).lower()
        state = next((known for known in STATES if known.lower() == wanted), None)
        if state is None:
            raise Refusal(400, "UserError", f"A dataset's state is one of {', '.join(STATES)}.")
        self._datasets.set_state(request.params["id"], state)
        return json_answer({})

    def _definitions(self, request: Request) -> Answer:
        versions = self._datasets.versions(self._datasets.by_id(request.params["id"]).dataset_id)
        value = [_definition(item) for item in versions]
        return json_answer({"value": value, "continuationToken": None, "nextLink": None})

    def _save(self, request: Request) -> Answer:
        document = request.document()
        saved = self._datasets.save(
            _kind(document.get("datasetType")),
            _dataflow(document.get("dataflowJson")),
            _properties(document.get("properties")),
        )
        return json_answer(_saved_document(saved))

    def _get_saved(self, request: Request) -> Answer:
        return json_answer(_saved_document(self._datasets.find_saved(request.params["id"])))

    def _data_version(self, request: Request) -> Answer:
        name = request.params["name"]
        if name.startswith(_UNREGISTERED):
            saved = self._datasets.find_saved(name.removeprefix(_UNREGISTERED))
            registered = self._datasets.of_saved(saved.saved_id)
        else:
            # The SDK asks here for an asset of version 2 when it has not found a dataset, with "None" for no version.
            version = request.params["version"]
            if not version.isascii() or not version.isdigit():
                raise not_found(f"Data version {name[:300]!r}")
            registered = self._datasets.get(name, int(version))
            saved = registered.saved
        return json_answer(_data_version(request, name, saved, registered))


def _document(found: DatasetVersion) -> dict[str, Any]:
    """Return a registered dataset in the wire's terms (``_restclient/models/dataset_dto.py``)."""
    state = {"state": found.state.lower(), "deprecatedBy": None, "etag": None}
    return {
        "datasetId": found.dataset_id,
        "datasetState": state,
        "latest": _definition(found),
        "nextVersionId": None,
        "createdTime": iso(found.created),
        "modifiedTime": iso(found.modified),
        "etag": None,
        "name": found.name,
        "description": found.description,
        "tags": dict(found.tags),
        "isVisible": True,
        "defaultCompute": None,
        "datasetType": found.saved.kind,
    }


def _definition(found: DatasetVersion) -> dict[str, Any]:
    return {
        "datasetId": found.dataset_id,
        "versionId": str(found.version),
        "datasetDefinitionState": {"state": found.state.lower(), "deprecatedBy": None, "etag": None},
        "dataflow": found.saved.dataflow,
        "dataflowType": "Json",
        "dataPath": None,
        "partitionFormatInPath": None,
        "notes": None,
        "etag": None,
        "createdTime": iso(found.created),
        "modifiedTime": iso(found.modified),
        "fileType": None,
        "properties": dict(found.saved.properties),
        "savedDatasetId": found.saved.saved_id,
    }


def _saved_document(saved: SavedDataset) -> dict[str, Any]:
    return {
        "id": saved.saved_id,
        "datasetType": saved.kind,
        "properties": dict(saved.properties),
        "dataflowJson": saved.dataflow,
        "dataflowType": "Json",
        "dataChanged": False,
        "dataPath": None,
    }


def _data_version(
    request: Request, name: str, saved: SavedDataset, registered: DatasetVersion | None
) -> dict[str, Any]:
    """Return what the SDK and its native engine read; ``legacyDataflow`` is the definition in the engine's own form."""
    try:
        dataflow = rslex_yaml(saved.dataflow)
    except InputError as error:
        raise Refusal(400, "UserError", str(error)) from None
    version = str(registered.version) if registered else "1"
    place = request.path.partition("/dataversion/")[0].removeprefix("/data/v1.0/")
    return {
        "dataVersion": {
            "assetId": f"azureml://locations/{place}/data/{name}/versions/{version}",
            "dataContainerName": name,
            "dataType": "MLTable" if saved.kind == "tabular" else "UriFolder",
            "dataUri": None,
            "versionId": version,
            "mutableProps": {
                "description": registered.description if registered else None,
                "tags": dict(registered.tags) if registered else {},
                "isArchived": False,
            },
            "referencedDataUris": None,
            "properties": {},
            "isRegistered": registered is not None,
        },
        "entityMetadata": None,
        "legacyDatasetId": registered.dataset_id if registered else None,
        "isV2": False,
        "legacyDatasetType": saved.kind,
        "legacyDataflowType": "Json",
        "legacyDataflow": dataflow,
        "legacySavedDatasetId": saved.saved_id,
        "putAssetLROResponseDto": None,
    }


def _name(value: object) -> str:
    name = text(value, "name", 255)
    if "/" in name or "\\" in name or any(unicodedata.category(letter) == "Cc" for letter in name):
        raise Refusal(400, "UserError", "A dataset's name has no slash, backslash or control character.")
    return name


def _kind(value: object) -> Kind:
    found = next((kind for kind in KINDS if kind == value), None)
    if found is None:
        raise Refusal(400, "UserError", f"A dataset's type is one of {', '.join(KINDS)}.")
    return found


def _dataflow(value: object) -> str:
    """Return a definition that was looked at: one that cannot be read would be found out by the first job."""
    if not isinstance(value, str) or not value:
        raise Refusal(400, "UserError", "A dataset has a definition.")
    try:
        parse_dataflow(value)
    except InputError as error:
        raise Refusal(400, "UserError", str(error)) from None
    return value


def _properties(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refusal(400, "UserError", "A dataset's properties are an object.")
    return value


def _number(value: str) -> int | None:
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise Refusal(400, "UserError", "A dataset's version is a number.")
    return int(value)
