"""Models and their assets, as ``Model`` of the SDK asks for them (``core/model.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from himl_container.emulator.access import Access
from himl_container.emulator.http import Answer, Refusal, Request, json_answer
from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.routes import Route
from himl_container.emulator.services.documents import optional_text, plain_tags, text
from himl_container.emulator.services.model_queries import filters, flat_refusals, operations, paged
from himl_container.emulator.state.artifacts import RUN_ORIGIN
from himl_container.emulator.state.models import Asset, Model, Models, artifact_parts, latest_only
from himl_container.emulator.state.runs import iso

_TEST = "tests/emulator/test_models.py::"
_KEPT = ("mimeType", "framework", "frameworkVersion", "unpack", "sampleInputData", "sampleOutputData")


class ModelService:
    """Names, versions, tags and files of models.

    A job registers models of its own run and changes those; it reads all, and deletes none.
    """

    def __init__(self, models: Models, access: Access) -> None:
        self._models, self._access = models, access

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        base = "/modelmanagement/v1.0/{ws}"
        assets, asset, one = f"{base}/assets", f"{base}/assets/{{id}}", f"{base}/models/{{id}}"
        file, tags, found = f"{_TEST}test_file", f"{_TEST}test_tags_and_properties", f"{_TEST}test_filters"
        by_id = f"{_TEST}test_assets"
        routes = (
            Route("POST", assets, self._create_asset, "Assets.Create", file),
            Route("GET", assets, self._list_assets, "Assets.List", by_id),
            Route("GET", asset, self._get_asset, "Assets.Get", file),
            Route("PATCH", asset, self._patch_asset, "Assets.Patch", by_id),
            Route("DELETE", asset, self._delete_asset, "Assets.Delete", by_id),
            Route("POST", f"{base}/models", self._register, "Models.Register", file),
            Route("GET", f"{base}/models", self._list, "Models.List", found),
            Route("GET", one, self._get, "Models.Get", file),
            Route("PATCH", one, self._patch, "Models.Patch", tags),
            Route("DELETE", one, self._delete, "Models.Delete", f"{_TEST}test_delete"),
        )
        return tuple(replace(route, handler=flat_refusals(route.handler)) for route in routes)

    # --- assets ---

    def _create_asset(self, request: Request) -> Answer:
        document = request.document()
        artifacts = _references(document.get("artifacts"), "artifacts", ("id", "prefix"))
        for item in artifacts:
            self._may_see(request.identity, item)
        run_id = optional_text(document.get("runid"), "runid", 300)
        if run_id and request.identity.kind is Kind.JOB:
            self._access.may_change(request.identity, run_id)
        made = self._models.create_asset(
            Asset(
                asset_id="",
                name=text(document.get("name"), "name", 255),
                artifacts=artifacts,
                description=optional_text(document.get("description"), "description"),
                kind=optional_text(document.get("type"), "type", 255),
                tags=plain_tags(document.get("kvTags")),
                properties=plain_tags(document.get("properties"), "properties"),
                meta=plain_tags(document.get("meta"), "meta"),
                run_id=run_id,
                owner=request.identity.run_id,
            )
        )
        return json_answer(_asset_document(made))

    def _get_asset(self, request: Request) -> Answer:
        return json_answer(_asset_document(self._models.asset(request.params["id"])))

    def _list_assets(self, request: Request) -> Answer:
        wanted = filters(request)
        name, run, kind = request.first("name"), request.first("runId") or request.first("runid"), request.first("type")
        found = [
            asset
            for asset in self._models.assets()
            if (not name or asset.name == name)
            and (not run or asset.run_id == run)
            and (not kind or asset.kind == kind)
            and wanted(asset.tags, asset.properties)
        ]
        return json_answer(paged(request, [_asset_document(asset) for asset in found]))

    def _patch_asset(self, request: Request) -> Answer:
        asset = self._models.asset(request.params["id"])
        self._may_change(request.identity, asset.owner)
        for path, value in operations(request):
            if path == "/kvTags":
                asset = replace(asset, tags=plain_tags(value))
            elif path == "/properties":
                asset = replace(asset, properties={**asset.properties, **plain_tags(value, "properties")})
            elif path == "/description":
                asset = replace(asset, description=optional_text(value, "description"))
            else:
                raise Refusal(400, "UserError", f"{path[:100]!r} of an asset cannot be changed.")
        self._models.change_asset(asset)
        return json_answer(_asset_document(asset))

    def _delete_asset(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        return json_answer({}, 200 if self._models.delete_asset(request.params["id"]) else 204)

    # --- models ---

    def _register(self, request: Request) -> Answer:
        document = request.document()
        run_id = optional_text(document.get("runId"), "runId", 300)
        if run_id and request.identity.kind is Kind.JOB:
            self._access.may_change(request.identity, run_id)
        values = {name: document[name] for name in _KEPT if _is_plain(document.get(name))}
        requirements = document.get("resourceRequirements")
        if isinstance(requirements, dict) and all(_is_plain(item) for item in requirements.values()):
            values["resourceRequirements"] = requirements
        made = self._models.register(
            Model(
                name=text(document.get("name"), "name", 255),
                version=0,
                url=text(document.get("url"), "url"),
                description=optional_text(document.get("description"), "description"),
                tags=plain_tags(document.get("kvTags")),
                properties=plain_tags(document.get("properties"), "properties"),
                datasets=_references(document.get("datasets") or [], "datasets", ("name", "id")),
                run_id=run_id,
                experiment=optional_text(document.get("experimentName"), "experimentName", 300),
                values=values,
                owner=request.identity.run_id,
                created_by=request.identity.name,
            )
        )
        return json_answer(_document(made))

    def _get(self, request: Request) -> Answer:
        return json_answer(_document(self._models.get(request.params["id"])))

    def _list(self, request: Request) -> Answer:
        wanted = filters(request)
        run, dataset = request.first("runId"), request.first("datasetId")
        framework, description = request.first("framework"), request.first("description")
        found = self._models.all(request.first("name"))
        if request.first("latestVersionOnly").lower() == "true":
            found = latest_only(found)
        found = [
            model
            for model in found
            if (not run or model.run_id == run)
            and (not dataset or any(item.get("id") == dataset for item in model.datasets))
            and (not framework or model.values.get("framework") == framework)
            and (not description or description in model.description)
            and wanted(model.tags, model.properties)
        ]
        if request.first("orderBy").lower().endswith("asc"):
            found.reverse()
        return json_answer(paged(request, [_document(model) for model in found]))

    def _patch(self, request: Request) -> Answer:
        model_id = request.params["id"]
        self._may_change(request.identity, self._models.get(model_id).owner)
        wanted = operations(request)

        def change(model: Model) -> Model:
            for path, value in wanted:
                model = _changed(model, path, value)
            return model

        return json_answer(_document(self._models.change(model_id, change)))

    def _delete(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        return json_answer({}, 200 if self._models.delete(request.params["id"]) else 204)

    # --- parts ---

    def _may_change(self, identity: Identity, owner: str) -> None:
        """Let a user pass, and the job that made something or an ancestor's."""
        if identity.kind is Kind.JOB and owner:
            self._access.may_change(identity, owner)
        else:
            self._access.only_user(identity)

    def _may_see(self, identity: Identity, item: Mapping[str, str]) -> None:
        """Let a job make an asset of nothing but files that it may see: whoever reads models may read an asset's files.

        :raises Refusal: 403, they are another run's.
        """
        origin, container, path, _ = artifact_parts(item)
        if identity.kind is not Kind.JOB or self._models.holds(origin, container, path):
            return
        if origin.lower() == RUN_ORIGIN.lower():
            self._access.may_change(identity, container.removeprefix("dcid."))
        elif self._models.owner(container) != identity.run_id:
            self._access.only_user(identity)


def _changed(model: Model, path: str, value: object) -> Model:
    if path == "/kvTags":
        return replace(model, tags=plain_tags(value))
    if path == "/properties":
        given = plain_tags(value, "properties")
        # The SDK says of them that they cannot be changed, only added to.
        if any(model.properties.get(name, item) != item for name, item in given.items()):
            raise Refusal(400, "UserError", "A property of a model cannot be changed.")
        return replace(model, properties={**model.properties, **given})
    if path == "/description":
        return replace(model, description=optional_text(value, "description"))
    if path == "/datasets":
        return replace(model, datasets=(*model.datasets, *_references(value, "datasets", ("name", "id"))))
    name = path.removeprefix("/")
    plain = isinstance(value, dict) if name == "resourceRequirements" else _is_plain(value)
    if name in (*_KEPT, "resourceRequirements") and plain:
        return replace(model, values={**model.values, name: value})
    raise Refusal(400, "UserError", f"{path[:100]!r} of a model cannot be changed like this.")


def _references(value: object, what: str, names: tuple[str, ...]) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refusal(400, "UserError", f"{what} is not a list of objects.")
    return tuple({name: optional_text(item.get(name), name) for name in names if item.get(name)} for item in value)


def _is_plain(value: object) -> bool:
    return value is not None and isinstance(value, str | int | float)


def _document(model: Model) -> dict[str, Any]:
    """Return a model in the wire's terms (``_restclient/models/model.py``)."""
    return {
        **dict.fromkeys(_KEPT),
        "unpack": False,
        "resourceRequirements": None,
        **model.values,
        "id": model.model_id,
        "name": model.name,
        "version": model.version,
        "url": model.url,
        "description": model.description or None,
        "createdTime": iso(model.created),
        "modifiedTime": iso(model.modified),
        "kvTags": dict(model.tags),
        "properties": dict(model.properties),
        "datasets": [dict(item) for item in model.datasets],
        "runId": model.run_id or None,
        "experimentName": model.experiment or None,
        "parentModelId": None,
        "derivedModelIds": [],
        "createdBy": {"userName": model.created_by},
    }


def _asset_document(asset: Asset) -> dict[str, Any]:
    return {
        "id": asset.asset_id,
        "name": asset.name,
        "type": asset.kind or None,
        "description": asset.description or None,
        "artifacts": [{"id": item.get("id"), "prefix": item.get("prefix")} for item in asset.artifacts],
        "kvTags": dict(asset.tags),
        "properties": dict(asset.properties),
        "runid": asset.run_id or None,
        "meta": dict(asset.meta) or None,
        "createdTime": iso(asset.created),
    }
