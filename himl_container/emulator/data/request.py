"""Reading the data of a run configuration: its ``data``, ``dataReferences`` and ``outputData``.

The names are those of ``core/runconfig.py`` of the SDK (``Data``, ``DataReferenceConfiguration``, ``OutputData``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from himl_container.emulator.compute.definition import section, value
from himl_container.emulator.compute.model import Definition
from himl_container.errors import InputError

DEFAULT_DESTINATION = "dataset/{run-id}/{output-name}"
"""Where an output goes that has no destination (``OutputFileDatasetConfig`` of the SDK)."""


@dataclass(frozen=True)
class WantedInput:
    """What a run configuration says of one dataset or data reference.

    :param dataset_id: else ``dataset_name`` with ``version`` (0 for the newest), else ``address``, else ``store``.
    :param mode: in small letters.
    """

    name: str
    mode: str
    path: str = ""
    dataset_id: str = ""
    dataset_name: str = ""
    version: int = 0
    address: str = ""
    is_file: bool = False
    store: str = ""
    store_path: str = ""


@dataclass(frozen=True)
class WantedOutput:
    """What a run configuration says of one output.

    :param store: empty for the default of the SDK; :param store_path: may have ``{run-id}`` and ``{output-name}``.
    :param overwrite: whether files that are there may be replaced; :param globs: which files go up, all where empty.
    :param register_as: name of the dataset to register; empty for none.
    :param transformation: blocks of the SDK, what is done with the files; empty for nothing.
    :param dataset: whether a dataset is made of it; a data reference is none.
    """

    name: str
    mode: str
    path: str = ""
    store: str = ""
    store_path: str = ""
    overwrite: bool = False
    globs: tuple[str, ...] = ()
    register_as: str = ""
    description: str = ""
    tags: Mapping[str, str] | None = None
    transformation: str = ""
    dataset: bool = True


def read_inputs(definition: Definition) -> tuple[WantedInput, ...]:
    """Return the datasets and data references that come into a job.

    :raises InputError: one cannot be read.
    """
    found = [_input(name, item) for name, item in _items(definition, "data")]
    for name, item in _items(definition, "dataReferences"):
        if _mode(item, name, "mode", "mount") != "upload":
            found.append(_reference(name, item))
    return tuple(found)


def read_outputs(definition: Definition) -> tuple[WantedOutput, ...]:
    """Return the outputs and data references that go out of a job.

    :raises InputError: one cannot be read.
    """
    found = [_output(name, item) for name, item in _items(definition, "outputData")]
    for name, item in _items(definition, "dataReferences"):
        if _mode(item, name, "mode", "mount") == "upload":
            wanted = _reference(name, item)
            overwrite = bool(value(item, "overwrite", False))
            place = (wanted.store, wanted.store_path)
            found.append(WantedOutput(name, "upload", wanted.path, *place, overwrite, dataset=False))
    return tuple(found)


def _items(definition: Definition, name: str) -> list[tuple[str, Mapping[str, Any]]]:
    found = section(definition, name)
    if not all(isinstance(item, Mapping) for item in found.values()):
        raise InputError(f"{name} of the run configuration is not made of objects")
    return [(str(key), item) for key, item in found.items()]


def _input(name: str, item: Mapping[str, Any]) -> WantedInput:
    place = section(item, "dataLocation")
    dataset, uri, path = section(place, "dataset"), section(place, "uri"), section(place, "dataPath")
    version = str(value(dataset, "version", "") or "")
    if version.lower() == "latest":
        version = ""
    if version and not (version.isascii() and version.isdigit() and len(version) < 10):
        raise InputError("the version of a dataset is a number or 'latest'", where=name)
    wanted = WantedInput(
        name=name,
        mode=_mode(item, name, "mechanism", "direct"),
        path=_text(item, "pathOnCompute", name),
        dataset_id=_text(dataset, "id", name),
        dataset_name=_text(dataset, "name", name),
        version=int(version or 0),
        address=_text(uri, "path", name),
        is_file=str(value(uri, "isFile", False)).lower() == "true",
        store=_text(path, "datastoreName", name),
        store_path=_text(path, "relativePath", name),
    )
    if not (wanted.dataset_id or wanted.dataset_name or wanted.address or wanted.store):
        raise InputError("an input names neither a dataset nor a place in a datastore", where=name)
    return wanted


def _reference(name: str, item: Mapping[str, Any]) -> WantedInput:
    return WantedInput(
        name=name,
        mode=_mode(item, name, "mode", "mount"),
        path=_text(item, "pathOnCompute", name),
        store=_text(item, "dataStoreName", name) or _missing(name, "a data reference names no datastore"),
        store_path=_text(item, "pathOnDataStore", name),
    )


def _output(name: str, item: Mapping[str, Any]) -> WantedOutput:
    place, options = section(item, "outputLocation"), section(item, "additionalOptions")
    path, uri = section(place, "dataPath"), _text(section(place, "uri"), "path", name)
    upload, registration = section(options, "uploadOptions"), section(options, "registrationOptions")
    globs = section(upload, "sourceGlobs")
    tags = section(registration, "tags")
    if uri:
        raise InputError("an output's destination is a datastore and a path, no address", where=name)
    return WantedOutput(
        name=name,
        mode=_mode(item, name, "mechanism", "mount"),
        path=_text(options, "pathOnCompute", name),
        store=_text(path, "datastoreName", name),
        store_path=_text(path, "relativePath", name),
        overwrite=bool(value(upload, "overwrite", False)),
        globs=_texts(value(globs, "patterns") or value(globs, "globPatterns") or [], name),
        register_as=_text(registration, "name", name),
        description=_text(registration, "description", name),
        tags={str(key): "" if item is None else str(item) for key, item in tags.items()},
        transformation=_text(section(registration, "datasetRegistrationOptions"), "additionalTransformation", name),
    )


def _mode(item: Mapping[str, Any], name: str, key: str, default: str) -> str:
    return (_text(item, key, name) or default).lower()


def _text(item: Mapping[str, Any], key: str, name: str) -> str:
    found = value(item, key, "")
    if not isinstance(found, str) or "\0" in found:
        raise InputError(f"{key} is not a text", where=name)
    return found


def _texts(items: object, name: str) -> tuple[str, ...]:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise InputError("the patterns of an output's files are texts", where=name)
    return tuple(items)


def _missing(name: str, what: str) -> str:
    raise InputError(what, where=name)
