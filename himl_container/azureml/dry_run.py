"""The complete request of a submission, for reading: no service and no registry is asked, and nothing is written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from himl_container.azureml.submit import is_built_there
from himl_container.cache import Cache
from himl_container.config.images import has_host
from himl_container.environment.urls import scrub
from himl_container.launch.spec import ImageRef, redacted

if TYPE_CHECKING:
    from himl_container.azureml.datasets import DatasetConfig
    from himl_container.azureml.request import SubmitPlan
    from himl_container.settings import Settings

WORKSPACE_REGISTRY = "REGISTRY-OF-THE-WORKSPACE"
LATER = "KNOWN-WHEN-THE-IMAGE-IS-PUSHED"
WITH_THE_WHEELS = "KNOWN-WHEN-THE-WHEELS-ARE-UPLOADED"
"""Stand for what is not known before the registry or the workspace is asked."""


def request_as_json(plan: SubmitPlan) -> dict[str, object]:
    """Return the request as JSON values, with secrets hidden.

    ``configuration`` is what AzureML gets, in the SDK's own words; of the datasets it has the names, because their ids
    are the workspace's.
    """
    snapshot, target = plan.snapshot, plan.target
    image = _image(plan)
    return {
        "launch": {
            **plan.spec.to_json(),
            "image": "built by AzureML" if is_built_there(plan.settings) else image.digest,
        },
        "experiment": target.experiment,
        "cluster": target.compute,
        "tags": None if target.tags is None else {name: scrub(value) for name, value in target.tags.items()},
        "datasets": [_data(item, f"INPUT_{index}", "download") for index, item in enumerate(target.input_datasets)],
        "outputs": [_data(item, f"OUTPUT_{index}", "upload") for index, item in enumerate(target.output_datasets)],
        "search": plan.search.to_json() if plan.search else None,
        "configuration": _configuration(plan, image),
        "snapshot": {
            "folder": str(snapshot.root),
            "rules": snapshot.ignore_file or "AzureML's defaults",
            "size": snapshot.size,
            "files": [{"path": file.path, "size": file.size} for file in snapshot.files],
            "ignored": [{"path": item.path, "rule": item.rule} for item in snapshot.ignored],
            "links_out": list(snapshot.outside),
        },
    }


def request_as_text(request: Mapping[str, Any]) -> str:
    """Return the request for people: what matters first, then what AzureML gets."""
    launch, snapshot = request["launch"], request["snapshot"]
    duration = f"{launch['max_duration']:g} s" if launch["max_duration"] else "no limit"
    lines = [
        f"experiment     {request['experiment']}",
        f"cluster        {request['cluster']}, {launch['nodes']} nodes, duration: {duration}",
        f"image          {launch['image']}",
        f"command        {' '.join(_word(word) for word in (*launch['command'], *launch['arguments']))}",
    ]
    for name, value in (request["tags"] or {}).items():
        lines.append(f"tag            {_word(name)}={_word(value)}")
    for key in ("datasets", "outputs"):
        for item in request[key]:
            version = f", version {item['version']}" if item["version"] else ""
            place = f" at {item['target']}" if item["target"] else ""
            store = item["datastore"] or "the default datastore"
            lines.append(f"{item['variable']:<14} {item['name']} of {store}{version}, {item['mode']}{place}")
    lines.append("variables")
    lines += [f"  {name}={_word(value)}" for name, value in launch["environment"].items()]
    if request["search"]:
        lines += ["search", *_json(request["search"])]
    lines += ["run configuration", *_json(request["configuration"])]
    lines.append(f"snapshot       {len(snapshot['files'])} files, {snapshot['size']} bytes, by {snapshot['rules']}")
    lines += [f"  {_plain(file['path'])} ({file['size']})" for file in snapshot["files"]]
    lines.append(f"left out       {len(snapshot['ignored'])}")
    lines += [f"  {_plain(item['path'])} by {item['rule']}" for item in snapshot["ignored"]]
    return "\n".join(lines)


def _image(plan: SubmitPlan) -> ImageRef:
    """Return the image as far as it is known here."""
    from himl_container.image.fingerprint import remembered

    settings = plan.settings
    name = settings.remote_name
    if not has_host(name):
        name = f"{WORKSPACE_REGISTRY}/{settings.image_name}"
    fingerprint = remembered(settings, Cache(settings.cache_dir)) or ""
    return ImageRef(settings.image_name, digest=f"{name}@{LATER}", fingerprint=fingerprint)


def _configuration(plan: SubmitPlan, image: ImageRef) -> dict[str, Any]:
    """Return what the SDK would send of the run configuration (``_execution/_commands.py``)."""
    from himl_container.azureml.quick_import import import_sdk
    from himl_container.azureml.service_failures import sdk_needed

    with sdk_needed():
        import_sdk()
    from azureml.core._serialization_utils import _serialize_to_dict

    from himl_container.azureml.configuration import environment_to_build
    from himl_container.azureml.environments import image_environment
    from himl_container.azureml.translate import run_configuration

    built_there = is_built_there(plan.settings)
    environment = environment_to_build(plan.settings, None) if built_there else image_environment(image)
    # Without datasets no workspace is looked into.
    target = dataclasses.replace(plan.target, input_datasets=(), output_datasets=())
    result: dict[str, Any] = _serialize_to_dict(run_configuration(plan.spec, target, environment, None))
    if built_there:
        _complete(result["environment"], plan.settings)
    else:
        result["environment"]["version"] = LATER  # it is made of the digest
    variables = result.get("environmentVariables")
    if isinstance(variables, dict):
        result["environmentVariables"] = dict(redacted(tuple(variables.items())))
    for key in ("arguments", "command"):
        value = result.get(key)
        result[key] = [scrub(word) for word in value] if isinstance(value, list) else scrub(value) if value else value
    return result


def _complete(environment: dict[str, Any], settings: Settings) -> None:
    """Hide logins to private indexes, and name the wheels, whose addresses are known when they are uploaded."""
    dependencies = environment["python"]["condaDependencies"]["dependencies"]
    sections = [item for item in dependencies if isinstance(item, dict)]
    for section in sections:
        section["pip"] = [scrub(line) for line in section.get("pip") or ()]
    if settings.wheels:
        environment["name"] = WITH_THE_WHEELS
        if not sections:
            sections = [{"pip": []}]
            dependencies += sections
        sections[-1]["pip"] += [f"{wheel.name} ({WITH_THE_WHEELS})" for wheel in settings.wheels]


def _data(config: DatasetConfig, variable: str, copied: str) -> dict[str, object]:
    return {
        "variable": variable,
        "name": config.name,
        "datastore": config.datastore,
        "version": config.version,
        "mode": "mount" if config.use_mounting else copied,
        "target": str(config.target_folder),
    }


def _json(value: object) -> list[str]:
    return [f"  {line}" for line in json.dumps(value, indent=2, default=str).splitlines()]


def _word(text: str) -> str:
    import shlex

    return shlex.quote(text) if text.isprintable() else repr(text)


def _plain(text: str) -> str:
    return text if text.isprintable() else repr(text)
