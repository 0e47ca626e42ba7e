"""A search as the SDK submits it (``CreateExperimentDto`` of ``train/restclients/hyperdrive/models``)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from himl_container.emulator.compute.definition import section, value
from himl_container.emulator.hyperdrive.policies import Goal, Policy, read_policy
from himl_container.emulator.hyperdrive.sampling import Sampling, argument_words, read_method
from himl_container.emulator.hyperdrive.space import Expression, bad, read_space

MAX_CONCURRENT = 100
MAX_TOTAL = 1000
MAX_MINUTES = 10080
"""``MAX_DURATION_MINUTES`` of the SDK: more is taken as this."""

_RESUMED = 5  # ``MAX_PARENT_RUNS`` of the SDK
_MODEL = "MODEL_LOCATION"
_MODEL_WORD = f"$AZUREML_DATAREFERENCE_{_MODEL}"
_DATASTORE = "blobstorage_datastore"
_SEARCH_SPACE = re.compile(r"\$\{\{\s*search_space\.([\w-]+)\s*\}\}", re.ASCII)


@dataclass(frozen=True)
class Search:
    """What a search is to do.

    :param document: the whole of it as it was sent, for the tags of the run.
    :param seed: with equal seeds two searches of one space draw the same values; empty for the run's own.
    :param max_minutes: after which running children are cancelled.
    :param definition: run configuration of the children, without their parameters.
    :param resumed: earlier children whose parameters and outputs the first children take over.
    :param notes: what is done otherwise than in Azure, one sentence each.
    """

    document: Mapping[str, Any]
    method: Sampling
    space: Mapping[str, Expression]
    seed: str
    metric: str
    goal: Goal
    policy: Policy
    max_total: int
    max_concurrent: int
    max_minutes: int
    definition: Mapping[str, Any]
    snapshot_id: str
    resumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_search(document: Mapping[str, Any]) -> Search:
    """Read what the SDK sends.

    :raises Refusal: 400, something is missing, out of range, or cannot be done.
    """
    if document.get("platform") not in (None, "AML"):
        raise bad("a search over pipelines is not imitated; search over a script's run configuration")
    generator, primary = _object(document, "generator_config"), _object(document, "primary_metric_config")
    space = read_space(generator.get("parameter_space"))
    method = read_method(generator.get("name"), space)
    policy = read_policy(_object(document, "policy_config"))
    if method == "bayesian" and policy.kind != "none":
        # "Bayesian sampling does not support early termination policies" (``BayesianParameterSampling``).
        raise bad("Bayesian sampling does not support early termination policies")
    metric, goal = primary.get("name"), str(primary.get("goal")).lower()
    if not isinstance(metric, str) or not 0 < len(metric) <= 512:
        raise bad("the primary metric has no name")
    if goal not in ("maximize", "minimize"):
        raise bad("the goal of the primary metric is neither maximize nor minimize")
    total = _whole(document, "max_total_jobs", MAX_TOTAL, MAX_TOTAL)
    concurrent = _whole(document, "max_concurrent_jobs", min(total, MAX_CONCURRENT), MAX_CONCURRENT)
    minutes = _whole(document, "max_duration_minutes", MAX_MINUTES, 10**9)
    job = _object(_object(document, "platform_config"), "Definition")
    resumed = tuple(_run_of(item) for item in _list(document, "resume_child_runs"))
    if len(resumed) > total:
        raise bad("there are more runs in resume_child_runs than max_total_runs")
    warm = [_run_of(item) for item in _list(document, "resume_from")]
    if len(warm) > _RESUMED:
        raise bad(f"resume_from has more than {_RESUMED} runs")
    return Search(
        document=document,
        method=method,
        space=space,
        seed=_seed(generator),
        metric=metric,
        goal=cast("Goal", goal),
        policy=policy,
        max_total=total,
        max_concurrent=concurrent,
        max_minutes=min(minutes, MAX_MINUTES),
        definition=_object(job, "Overrides"),
        snapshot_id=_text(job, "SnapshotId"),
        resumed=resumed,
        notes=tuple(_notes(method, bool(warm), minutes)),
    )


def child_definition(search: Search, parameters: Mapping[str, Any], resumed: str = "") -> dict[str, Any]:
    """Return the run configuration of a child: that of the search with the parameters behind the other arguments.

    A command gets them behind its words too, unless it names them itself (``${{search_space.lr}}``).

    :param resumed: the run whose outputs the child finds under ``--resume-from``.
    """
    definition = json.loads(json.dumps(search.definition))
    words = argument_words(parameters)
    if resumed:
        words += ["--resume-from", _MODEL_WORD]
        _set(definition, "dataReferences", {**section(definition, "dataReferences"), _MODEL: _outputs_of(resumed)})
    command = value(definition, "command", "")
    if not command:
        _set(definition, "arguments", [*(value(definition, "arguments") or []), *words])
        return cast("dict[str, Any]", definition)
    if isinstance(command, list):
        command = " ".join(str(word) for word in command)
    _set(definition, "command", _command(str(command), parameters, words))
    return cast("dict[str, Any]", definition)


def _command(command: str, parameters: Mapping[str, Any], words: list[str]) -> str:
    import shlex

    named = {name.lstrip("-"): value for name, value in zip(parameters, words[1::2], strict=False)}
    used: set[str] = set()

    def put(match: re.Match[str]) -> str:
        if match[1] not in named:
            return match[0]
        used.add(match[1])
        return shlex.quote(named[match[1]])

    command = _SEARCH_SPACE.sub(put, command)
    pairs = list(zip(words[::2], words[1::2], strict=True))
    rest = [word for pair in pairs if pair[0].lstrip("-") not in used for word in pair]
    # This word is replaced by the compute, which quotes the path itself.
    return " ".join([command, *(word if word == _MODEL_WORD else shlex.quote(word) for word in rest)])


def _outputs_of(run_id: str) -> dict[str, Any]:
    """Return the reference to a run's outputs, in the shape of the SDK's ``DataReferenceConfiguration``.

    Before it submits a search with ``resume_child_runs`` the SDK registers the datastore
    (``Run._get_blob_datastore_from_run``); under which name the service mounts it is not in the SDK.
    """
    return {
        "dataStoreName": _DATASTORE,
        "mode": "Mount",
        "pathOnDataStore": f"ExperimentRun/dcid.{run_id}/outputs",
        "pathOnCompute": None,
        "overwrite": False,
    }


def _set(definition: dict[str, Any], name: str, new: object) -> None:
    """Set a field under the spelling that it has."""
    plain = name.lower()
    key = next((key for key in definition if key.replace("_", "").lower() == plain), name)
    definition[key] = new


def _notes(method: Sampling, warm: bool, minutes: int) -> list[str]:
    notes = []
    if method == "bayesian":
        notes.append("Bayesian sampling is not imitated: the parameters are sampled at random.")
    if warm:
        notes.append("Earlier searches (resume_from) do not influence the sampling here.")
    if minutes > MAX_MINUTES:
        notes.append(f"The maximum duration of {minutes} minutes is taken as {MAX_MINUTES}.")
    return notes


def _seed(generator: Mapping[str, Any]) -> str:
    properties = generator.get("properties")
    found = properties.get("seed") if isinstance(properties, Mapping) else None
    if found is None:
        return ""
    if isinstance(found, bool) or not isinstance(found, int | float | str) or len(str(found)) > 100:
        raise bad("the seed of the sampling is neither a number nor a short text")
    if isinstance(found, float) and not math.isfinite(found):
        raise bad("the seed of the sampling is not a finite number")
    return str(found)


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name)
    if not isinstance(found, Mapping):
        raise bad(f"{name} is missing or not an object")
    return found


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    found = document.get(name)
    if found is not None and not isinstance(found, list):
        raise bad(f"{name} is not a list")
    return found or []


def _run_of(key: object) -> str:
    run_id = key.get("run_id") if isinstance(key, Mapping) else None
    if not isinstance(run_id, str) or not run_id:
        raise bad("an earlier run is named without its id")
    return run_id


def _text(document: Mapping[str, Any], name: str) -> str:
    found = document.get(name)
    if found is not None and not isinstance(found, str):
        raise bad(f"{name} is not text")
    return found or ""


def _whole(document: Mapping[str, Any], name: str, default: int, most: int) -> int:
    found = document.get(name)
    number = default if found is None else found
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
        raise bad(f"{name} is a whole number from 1 to {most}")
    return number
