"""Definitions of datasets, as ``azureml-dataprep`` writes them: from which files a dataset is made.

The SDK sends ``{"blocks": [...], "meta": {"RsDataflow": "<YAML>"}}``. The YAML has ``paths`` and, where files are left
out or read as tables, ``transformations``; older SDKs sent blocks alone (``Microsoft.DPrep.GetDatastoreFilesBlock``).
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from himl_container.emulator.http import DEEPEST, parse_json
from himl_container.errors import InputError

LONGEST = 16 * 2**20
"""Characters of a definition."""

Form = Literal["pattern", "file", "folder"]

_ADDRESS = re.compile(
    r"azureml://subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)/(?:providers/[^/]+/)?"
    r"workspaces/(?P<workspace>[^/]+)/datastores/(?P<store>[^/]+)/paths/(?P<path>.*)",
    re.IGNORECASE | re.DOTALL,
)
_SHORT_ADDRESS = re.compile(r"azureml://datastores/(?P<store>[^/]+)/paths/(?P<path>.*)", re.IGNORECASE | re.DOTALL)
_FILES_BLOCK = "Microsoft.DPrep.GetDatastoreFilesBlock"


@dataclass(frozen=True)
class Source:
    """Files of a datastore that a dataset has.

    :param form: ``pattern`` finds a file, everything in a folder, or what fits ``*``, ``**`` and the like; ``file`` and
        ``folder`` name one as it is.
    :param path: below the datastore's root, decoded, without a slash at its beginning.
    :param workspace: subscription, resource group and name, in small letters; empty where the definition names none.
    """

    store: str
    path: str
    form: Form = "pattern"
    workspace: tuple[str, str, str] | tuple[()] = ()


@dataclass(frozen=True)
class Step:
    """Something that is done with the files of a dataset, in order (``take``, ``skip``, ``filter``, ...)."""

    name: str
    arguments: Any = None


@dataclass(frozen=True)
class Dataflow:
    """A definition.

    :param elsewhere: addresses that are in no datastore (``https://...``).
    """

    sources: tuple[Source, ...]
    steps: tuple[Step, ...] = ()
    elsewhere: tuple[str, ...] = ()


def parse_dataflow(text: str) -> Dataflow:
    """Read a definition.

    :raises InputError: it is not one.
    """
    document = _yaml(rslex_yaml(text))
    paths, steps = document.get("paths") or [], document.get("transformations") or []
    if not isinstance(paths, list) or not isinstance(steps, list):
        raise _bad("paths and transformations are lists")
    sources: list[Source] = []
    elsewhere: list[str] = []
    for item in paths:
        found = _source(item)
        if isinstance(found, Source):
            sources.append(found)
        else:
            elsewhere.append(found)
    return Dataflow(tuple(sources), tuple(_step(item) for item in steps), tuple(elsewhere))


def parse_address(address: str, form: Form) -> Source:
    """Read an address of the form ``azureml://datastores/...`` or ``azureml://subscriptions/...``.

    :raises InputError: it is another one.
    """
    found = _read_address(address, form)
    if not isinstance(found, Source):
        raise InputError("this is no address in a datastore of the workspace", where=address.partition("?")[0][:200])
    return found


def rslex_yaml(text: str) -> str:
    """Return a definition as the native engine of the SDK reads it.

    :raises InputError: it is no definition, or one of an old SDK with other blocks than files of datastores.
    """
    if len(text) > LONGEST:
        raise _bad(f"it has more than {LONGEST} characters")
    if not text.lstrip().startswith("{"):
        return text
    document = _json(text)
    meta = document.get("meta")
    found = meta.get("RsDataflow") if isinstance(meta, Mapping) else None
    if isinstance(found, str) and found.strip():
        return found
    return _from_blocks(document.get("blocks"))


def dataflow_of(sources: tuple[Source, ...], transformations: tuple[Mapping[str, Any], ...] = ()) -> str:
    """Return the definition of the files of some datastores, in the shape in which the SDK sends it.

    :param transformations: as the engine names them, each with one key.
    """
    import yaml

    paths = [{source.form: address_of(source)} for source in sources]
    document: dict[str, Any] = {"type": "mltable", "paths": paths}
    if transformations:
        document["transformations"] = [dict(item) for item in transformations]
    document["metadata"] = {"infer_column_types": "False"}
    return json.dumps({"blocks": [], "meta": {"RsDataflow": yaml.safe_dump(document, sort_keys=False)}})


def address_of(source: Source) -> str:
    """Return the address of files in a datastore (``azureml://subscriptions/...``)."""
    path = urllib.parse.quote(source.path, safe="/*")
    if not source.workspace:
        return f"azureml://datastores/{source.store}/paths/{path}"
    subscription, group, name = source.workspace
    where = f"subscriptions/{subscription}/resourcegroups/{group}/workspaces/{name}"
    return f"azureml://{where}/datastores/{source.store}/paths/{path}"


def _source(item: object) -> Source | str:
    if isinstance(item, str):
        item = {"pattern": item}
    if not isinstance(item, Mapping):
        raise _bad("a path is an object")
    forms: tuple[Form, ...] = ("pattern", "file", "folder")
    for form in forms:
        if form in item:
            return _read_address(item[form], form)
    raise _bad("a path is a pattern, a file or a folder")


def _read_address(address: object, form: Form) -> Source | str:
    if isinstance(address, Mapping):
        return _stream(address, form)
    if not isinstance(address, str) or not address:
        raise _bad("a path's address is a text")
    match = _ADDRESS.fullmatch(address)
    if match:
        place = (match["subscription"].lower(), match["group"].lower(), match["workspace"].lower())
        return Source(match["store"].lower(), _path(match["path"]), form, place)
    short = _SHORT_ADDRESS.fullmatch(address)
    return Source(short["store"].lower(), _path(short["path"]), form) if short else address


def _stream(item: Mapping[str, Any], form: Form) -> Source:
    """Read what dataprep calls a stream: a file with the arguments of its handler."""
    arguments = item.get("arguments")
    place = item.get("resourceidentifier", item.get("resource_id"))
    if item.get("handler") != "AmlDatastore" or not isinstance(arguments, Mapping) or not isinstance(place, str):
        raise _bad("a path is in no datastore")
    store, _, path = place.partition("/")
    names = [str(arguments.get(name, "")).lower() for name in ("subscription", "resourceGroup", "workspaceName")]
    workspace = (names[0], names[1], names[2]) if all(names) else ()
    return Source(store.lower(), path.lstrip("/"), form, workspace)


def _path(text: str) -> str:
    # A question mark begins what the engine takes for a query, and leaves out: the SDK does not encode it.
    return urllib.parse.unquote(text.partition("?")[0]).lstrip("/")


def _step(item: object) -> Step:
    if isinstance(item, str):
        return Step(item)
    if isinstance(item, Mapping) and len(item) == 1:
        (name, arguments) = next(iter(item.items()))
        if isinstance(name, str):
            return Step(name, arguments)
    raise _bad("a transformation has one name")


def _from_blocks(blocks: object) -> str:
    """Turn the files of datastores that an old SDK named by a block into the engine's own form."""
    if not isinstance(blocks, list) or not blocks:
        raise _bad("it names no files")
    sources: list[Source] = []
    for block in blocks:
        kind = block.get("type") if isinstance(block, Mapping) else None
        arguments = block.get("arguments") if isinstance(block, Mapping) else None
        if kind != _FILES_BLOCK or not isinstance(arguments, Mapping):
            hint = "Save it with an azureml-dataprep of version 4 or later."
            raise InputError(f"the dataset's definition has a block that is not known: {str(kind)[:100]}", hint=hint)
        stores = arguments.get("datastores")
        sources += [_of_block(store) for store in (stores if isinstance(stores, list) else [])]
    found: str = json.loads(dataflow_of(tuple(sources)))["meta"]["RsDataflow"]
    return found


def _of_block(store: object) -> Source:
    if not isinstance(store, Mapping) or not isinstance(store.get("datastoreName"), str):
        raise _bad("a block's datastore has no name")
    names = [str(store.get(name, "")).lower() for name in ("subscription", "resourceGroup", "workspaceName")]
    workspace = (names[0], names[1], names[2]) if all(names) else ()
    return Source(store["datastoreName"].lower(), str(store.get("path") or "").lstrip("/"), "pattern", workspace)


def _json(text: str) -> Mapping[str, Any]:
    try:
        found = parse_json(text)
    except ValueError:
        raise _bad("it is neither JSON nor YAML") from None
    if not isinstance(found, Mapping):
        raise _bad("it is not an object")
    return found


def _yaml(text: str) -> Mapping[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # The native loader calls itself for each level, and ends the whole process where the stack is full.
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            opens = isinstance(event, yaml.CollectionStartEvent)
            depth += opens - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise _bad(f"it is nested more than {DEEPEST} times")
        found = yaml.load(text, Loader=loader)  # noqa: S506 - both loaders make plain values only
    except (yaml.YAMLError, RecursionError, ValueError):
        raise _bad("it is not YAML") from None
    if not isinstance(found, Mapping):
        raise _bad("it is not an object")
    return found


def _bad(why: str) -> InputError:
    return InputError(f"the dataset's definition cannot be read: {why}")
