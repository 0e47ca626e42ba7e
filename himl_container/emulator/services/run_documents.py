"""Runs and experiments as JSON, and what of a run a filter may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from himl_container.emulator.names import API_HOST, Workspace
from himl_container.emulator.services.odata import Fields
from himl_container.emulator.state.experiments import Experiment
from himl_container.emulator.state.run import Run, iso

SCRIPT_RUN = "azureml.scriptrun"


def run_document(run: Run, workspace: Workspace) -> dict[str, Any]:
    """Return a run as the SDK's ``RunDto``."""
    options = dict(run.options)
    return {
        "runNumber": run.number,
        "rootRunId": run.root_id,
        "rootRunUuid": run.root_id,
        "experimentId": run.experiment_id,
        "createdUtc": iso(run.created),
        "userId": run.created_by or None,
        "token": None,
        "tokenExpiryTimeUtc": None,
        "runId": run.run_id,
        "runUuid": run.run_id,
        "parentRunId": run.parent_id or None,
        "parentRunUuid": run.parent_id or None,
        "status": run.status.value,
        "startTimeUtc": iso(run.started),
        "endTimeUtc": iso(run.ended),
        "heartbeatEnabled": bool(options.get("heartbeatEnabled")),
        "options": {"generateDataContainerIdIfNotSpecified": True},
        "name": run.name or None,
        # Azure makes up two words for a run that was given no name; the id is what is known of it here.
        "displayName": run.display_name or run.run_id,
        "dataContainerId": run.data_container_id,
        "description": run.description or None,
        "hidden": run.hidden,
        "runType": run.run_type or None,
        "runTypeV2": dict(run.run_type_v2) or None,
        "properties": dict(run.properties),
        "scriptName": run.script_name or None,
        "target": run.target or None,
        "tags": dict(run.tags),
        # The whole of it is in the details.
        "runDefinition": None,
        "primaryMetricName": options.get("primaryMetricName"),
        "createdFrom": options.get("createdFrom"),
        "createdBy": {"userObjectId": run.created_by, "userTenantId": workspace.tenant_id, "userName": run.created_by},
        "cancelUri": cancel_uri(run, workspace),
        "completeUri": None,
        "diagnosticsUri": None,
        "inputDatasets": [dict(item) for item in run.input_datasets],
        "outputDatasets": [dict(item) for item in run.output_datasets],
        "error": error_document(run.error),
        "warnings": [dict(item) for item in run.warnings],
        "queueingInfo": {"code": run.status.value, "message": run.queueing_info} if run.queueing_info else None,
    }


def details_document(run: Run, logs: Mapping[str, str]) -> dict[str, Any]:
    """Return what ``get_details`` asks for.

    :param logs: path of each log file → its address.
    """
    return {
        "runId": run.run_id,
        "target": run.target or None,
        "status": run.status.value,
        "startTimeUtc": iso(run.started),
        "endTimeUtc": iso(run.ended),
        "services": {},
        "error": error_document(run.error),
        "warnings": [dict(item) for item in run.warnings],
        "properties": dict(run.properties),
        "inputDatasets": [dict(item) for item in run.input_datasets],
        "outputDatasets": [dict(item) for item in run.output_datasets],
        "runDefinition": dict(run.definition) or None,
        "logFiles": dict(logs),
        "submittedBy": run.created_by or None,
    }


def error_document(error: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an error as the SDK's ``ErrorResponse``; None where there is none."""
    if not error:
        return None
    return dict(error) if "error" in error else {"error": dict(error)}


def cancel_uri(run: Run, workspace: Workspace) -> str | None:
    """Return the address that stops a run's job; None for a run without one, which the SDK cancels by an event."""
    if not run.definition or run.run_type != SCRIPT_RUN:
        return None
    return f"https://{API_HOST}/execution/v1.0/{workspace.path}/experiments/{run.experiment}/runId/{run.run_id}/cancel"


def run_fields(run: Run) -> Fields:
    """Return what a filter or an order may ask of a run."""
    return {
        "runid": run.run_id,
        "rootrunid": run.root_id,
        "parentrunid": run.parent_id or None,
        "experimentid": run.experiment_id,
        "runnumber": float(run.number),
        "status": run.status.value,
        "runtype": run.run_type or None,
        "target": run.target or None,
        "name": run.name or None,
        "displayname": run.display_name or None,
        "userid": run.created_by or None,
        "hidden": "true" if run.hidden else "false",
        "createdutc": run.created,
        # The SDK lists by start, the newest first, and expects to see what has not started too.
        "starttimeutc": run.created if run.started is None else run.started,
        "endtimeutc": run.ended,
        "runtypev2/orchestrator": run.run_type_v2.get("orchestrator"),
        **{f"runtypev2/traits/{str(trait).lower()}": str(trait) for trait in run.run_type_v2.get("traits") or ()},
        **{f"tags/{name}": value for name, value in run.tags.items()},
        **{f"properties/{name}": value for name, value in run.properties.items()},
    }


def experiment_document(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as the SDK's ``ExperimentDto``."""
    return {
        "experimentId": experiment.experiment_id,
        "name": experiment.name,
        "description": experiment.description or None,
        "createdUtc": iso(experiment.created),
        "archivedTime": iso(experiment.archived_time),
        "tags": dict(experiment.tags),
    }


def experiment_fields(experiment: Experiment) -> Fields:
    """Return what a filter or an order may ask of an experiment."""
    return {
        "name": experiment.name,
        "experimentid": experiment.experiment_id,
        "createdutc": experiment.created,
        **{f"tags/{name}": value for name, value in experiment.tags.items()},
    }
