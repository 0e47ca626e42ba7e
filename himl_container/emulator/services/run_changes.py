"""What a client may set of a run (``CreateRunDto`` of the SDK), checked and applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from himl_container.emulator.http import Refusal
from himl_container.emulator.services.experiments import object_of
from himl_container.emulator.state.run import Run, Status, tag_map, text_map
from himl_container.emulator.state.snapshots import NOTHING

_TEXTS = {
    "displayName": "display_name",
    "description": "description",
    "name": "name",
    "target": "target",
    "scriptName": "script_name",
    "runType": "run_type",
}
_OPTIONS = ("primaryMetricName", "heartbeatEnabled", "createdFrom")


def values_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of :class:`Run` that a new run gets from a request.

    :raises Refusal: 400, something has the wrong form.
    """
    values: dict[str, Any] = {field: str(asked[name]) for name, field in _TEXTS.items() if asked.get(name) is not None}
    values["tags"] = tag_map(object_of(asked.get("tags") or {}, "tags"))
    values["properties"] = _properties(asked)
    if asked.get("runTypeV2") is not None:
        values["run_type_v2"] = object_of(asked["runTypeV2"], "runTypeV2")
    if asked.get("hidden") is not None:
        values["hidden"] = bool(asked["hidden"])
    if asked.get("runDefinition") is not None:
        values["definition"] = object_of(asked["runDefinition"], "runDefinition")
    for name, field in (("inputDatasets", "input_datasets"), ("outputDatasets", "output_datasets")):
        if asked.get(name) is not None:
            values[field] = _lineage(asked[name], name)
    values["options"] = {name: asked[name] for name in _OPTIONS if asked.get(name) is not None}
    snapshot = values["properties"].get("ContentSnapshotId")
    # The SDK notes it after the submission: a job that still waits would look for what there is not.
    if snapshot and snapshot != NOTHING:
        values["snapshot_id"] = snapshot
    return values


def status_of(asked: Mapping[str, Any]) -> Status | None:
    """Return the status that a request sets; None where it sets none.

    :raises Refusal: 400, there is no such status.
    """
    if asked.get("status") is None:
        return None
    try:
        return Status(asked["status"])
    except ValueError:
        raise Refusal(400, "UserError", "There is no such status of a run.") from None


def changed(run: Run, values: Mapping[str, Any]) -> Run:
    """Return a run with values of :func:`values_of`: tags and lineage are added, properties stay as they are.

    What a job was submitted with stays too: a preempted one is started again with it, and could otherwise ask for data
    that it may not read.

    :raises Refusal: 400, a property would change (``Run.add_properties`` of the SDK calls them immutable), or the
        definition or the compute target of a run with a job.
    """
    merged = dict(values)
    for field in ("definition", "target") if run.definition else ():
        if merged.get(field, getattr(run, field)) != getattr(run, field):
            raise Refusal(400, "UserError", f"The {field} of run {run.run_id} was submitted and cannot be changed.")
    for name, value in values["properties"].items():
        if run.properties.get(name, value) != value:
            raise Refusal(400, "UserError", f"Property {name} is set already, and properties cannot be changed.")
    merged["tags"] = {**run.tags, **values["tags"]}
    merged["properties"] = {**run.properties, **values["properties"]}
    merged["options"] = {**run.options, **values["options"]}
    for field in ("input_datasets", "output_datasets"):
        if field in values:
            old = getattr(run, field)
            merged[field] = (*old, *(item for item in values[field] if item not in old))
    return replace(run, **merged)


def _properties(asked: Mapping[str, Any]) -> dict[str, str]:
    given = object_of(asked.get("properties") or {}, "properties")
    return text_map({name: "" if value is None else value for name, value in given.items()})


def _lineage(value: object, what: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list):
        raise Refusal(400, "UserError", f"{what} is not a list.")
    return tuple(object_of(item, what) for item in value)
