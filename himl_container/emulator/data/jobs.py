"""The data of jobs: datasets laid out before the start, outputs stored and registered at the end."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from himl_container.emulator.blobs import Blobs
from himl_container.emulator.compute.model import Definition, JobInput, JobOutput
from himl_container.emulator.data.dataflow import Dataflow, Source, dataflow_of, parse_address, parse_dataflow
from himl_container.emulator.data.request import (
    DEFAULT_DESTINATION,
    WantedInput,
    WantedOutput,
    read_inputs,
    read_outputs,
)
from himl_container.emulator.data.resolve import Mode, Resolver
from himl_container.emulator.data.transfer import LocalFile, download, is_stored, local_files, upload
from himl_container.emulator.data.transformations import Transformation, is_tabular, transformations_of
from himl_container.emulator.http import Refusal
from himl_container.emulator.names import Workspace
from himl_container.emulator.state.datasets import Datasets, DatasetVersion, Kind, SavedDataset
from himl_container.emulator.state.datastores import DEFAULT_STORE
from himl_container.emulator.state.paths import checked_path
from himl_container.emulator.state.runs import Run, Runs
from himl_container.errors import InputError


class WorkspaceData:
    """The data of jobs, as :class:`himl_container.emulator.compute.model.JobData`.

    What is mounted in AzureML is copied here before the job starts, and is read-only; what is written to a mounted
    output is uploaded when the job ends, and not while it is written.
    """

    def __init__(self, datasets: Datasets, runs: Runs, resolver: Resolver, blobs: Blobs, workspace: Workspace) -> None:
        self._datasets, self._runs, self._resolver, self._blobs = datasets, runs, resolver, blobs
        names = (workspace.subscription_id, workspace.resource_group, workspace.name)
        self._workspace = (names[0].lower(), names[1].lower(), names[2].lower())

    def check(self, run_id: str, definition: Definition, submitter: str) -> None:
        """Find out, before a run is made, whether a job may submit it with its data.

        What cannot be read is told when the run fails, as for users; and all is checked again when it is laid out,
        because a name may stand for another dataset by then.

        :param run_id: of the run to be; :param submitter: the run whose job submits it.
        :raises Refusal: 403, the data are or would be files of other runs.
        """
        for wanted in _readable(read_inputs, definition):
            with _only_forbidden():
                item = self._input(wanted, submitter)
                if (
                    item.mode != "direct"
                ):  # nothing is laid out, and in the script the SDK has the job's own credentials
                    self._resolver.check(self._dataflow(item), submitter)
        for going in _readable(read_outputs, definition):
            with _only_forbidden():
                self._output(run_id, going, submitter)

    def inputs(self, definition: Definition, submitter: str = "") -> tuple[JobInput, ...]:
        """Return the datasets and data references that a job reads.

        :param submitter: the run whose job has submitted this one; empty for a user.
        :raises InputError: one cannot be read, or cannot be had in the way that is asked for.
        :raises Refusal: 404, there is no such dataset.
        """
        return tuple(self._input(wanted, submitter) for wanted in read_inputs(definition))

    def outputs(self, run_id: str, definition: Definition, submitter: str = "") -> tuple[JobOutput, ...]:
        """Return the folders that a job writes.

        :raises InputError: one cannot be read, or its destination does not exist.
        :raises Refusal: 400, its destination is no path in a datastore; 403, it is in another run's files.
        """
        return tuple(self._output(run_id, wanted, submitter) for wanted in read_outputs(definition))

    def fetch(self, item: JobInput, folder: Path) -> str:
        """Lay an input's files out in an empty folder.

        :return: the name of the file, where the dataset is a single file and is mounted: its path is then that of the
            file, as in AzureML; else empty.
        :raises InputError: there are no such files, or their names cannot be those of files.
        :raises StorageError: the storage or the disk fails.
        """
        mode: Mode = "download" if item.mode == "download" else "mount"
        found = self._resolver.resolve(self._dataflow(item), mode, item.source.get("submitter", ""))
        download(self._blobs, found.files, folder)
        # A downloaded dataset stays a folder (``_mount_or_download`` in ``data/context_managers.py`` of the SDK).
        follows_file = found.single and (mode == "mount" or not item.dataset_id)
        return found.files[0].place if follows_file else ""

    def store(self, run_id: str, item: JobOutput, folder: Path) -> None:
        """Upload an output, make a dataset of it, and note the lineage in the run.

        :raises InputError: a file is there already and must not be replaced, or cannot be uploaded.
        :raises StorageError: the storage fails.
        """
        wanted, store, path = _target(item)
        container = self._resolver.container_of(store)
        files = [file for file in local_files(folder) if _goes_up(file, wanted.globs)]
        if item.mode == "upload" and not wanted.overwrite:
            for file in files:
                name = f"{path}/{file.path}" if path else file.path
                blob = self._blobs.stat(container, name)
                # With the same bytes it is no conflict: where the emulator was killed while it stored an output, its
                # next start stores it again.
                if blob is not None and not is_stored(self._blobs, container, blob, folder, file):
                    hint = "as_upload(overwrite=True) replaces it."
                    raise InputError("the destination has this file already", where=f"{store}/{name}"[:300], hint=hint)
        upload(self._blobs, folder, files, container, path)
        if wanted.dataset:
            self._register(run_id, item, wanted, Source(store, path, "pattern", self._workspace))

    # --- in ---

    def _input(self, wanted: WantedInput, submitter: str) -> JobInput:
        if wanted.mode not in {"mount", "download", "direct"}:
            raise InputError(
                f"an input cannot be had by {wanted.mode[:50]!r} here, only by mount, download or direct",
                where=wanted.name,
            )
        source: dict[str, Any] = {"is_file": wanted.is_file, "submitter": submitter}
        if wanted.dataset_id or wanted.dataset_name:
            saved = self._saved(wanted)
            if wanted.mode != "direct" and saved.kind == "tabular":
                raise InputError("a tabular dataset cannot be mounted or downloaded", where=wanted.name)
            return JobInput(wanted.name, wanted.mode, wanted.path, saved.saved_id, source, saved.saved_id)
        source |= {"address": wanted.address, "store": wanted.store, "path": wanted.store_path.lstrip("/")}
        return JobInput(wanted.name, wanted.mode, wanted.path, source=source, value=wanted.address)

    def _saved(self, wanted: WantedInput) -> SavedDataset:
        if wanted.dataset_id:
            return self._datasets.find_saved(wanted.dataset_id)
        return self._datasets.get(wanted.dataset_name, wanted.version or None).saved

    def _dataflow(self, item: JobInput) -> Dataflow:
        if item.dataset_id:
            return parse_dataflow(self._datasets.find_saved(item.dataset_id).dataflow)
        if item.source["address"]:
            source = parse_address(item.source["address"], "file" if item.source["is_file"] else "folder")
            return Dataflow((source,))
        path = item.source["path"]
        return Dataflow((Source(item.source["store"].lower(), "" if path in {".", "./"} else path),))

    # --- out ---

    def _output(self, run_id: str, wanted: WantedOutput, submitter: str) -> JobOutput:
        if wanted.mode not in {"mount", "upload"}:
            raise InputError(
                f"an output cannot be had by {wanted.mode[:50]!r} here, only by mount or upload", where=wanted.name
            )
        if wanted.transformation:
            transformations_of(wanted.transformation)  # what cannot be read is told before the job runs
        store = (wanted.store or DEFAULT_STORE).lower()
        path = (wanted.store_path if wanted.store else "") or ("" if not wanted.dataset else DEFAULT_DESTINATION)
        path = path.replace("{run-id}", run_id).replace("{output-name}", wanted.name).strip("/")
        path = checked_path(path, "output's destination") if path else ""
        self._resolver.container_of(store, path, submitter)
        target = {"wanted": wanted, "store": store, "path": path}
        return JobOutput(wanted.name, wanted.mode, wanted.path, target)

    def _register(self, run_id: str, item: JobOutput, wanted: WantedOutput, source: Source) -> None:
        steps: tuple[Transformation, ...] = ()
        if wanted.transformation:
            steps = transformations_of(wanted.transformation)
        kind: Kind = "tabular" if is_tabular(steps) else "file"
        dataflow = dataflow_of((source,), steps)
        identifier: dict[str, Any]
        if wanted.register_as:
            made: DatasetVersion = self._datasets.register(
                wanted.register_as,
                kind,
                dataflow,
                description=wanted.description,
                tags=wanted.tags,
                new_version=True,
            )
            identifier = {
                "savedId": made.saved.saved_id,
                "registeredId": made.dataset_id,
                "registeredVersion": str(made.version),
            }
        else:
            saved = self._datasets.save(kind, dataflow, {})
            identifier = {"savedId": saved.saved_id, "registeredId": None, "registeredVersion": None}
        lineage = {
            "identifier": identifier,
            "outputType": "RunOutput",
            "outputDetails": {"outputName": item.name, "mechanism": item.mode.capitalize()},
        }

        def note(run: Run) -> Run:
            # Where the emulator was killed after this, the output is stored again at its next start.
            others = tuple(one for one in run.output_datasets if _output_name(one) != item.name)
            return replace(run, output_datasets=(*others, lineage))

        self._runs.change(run_id, note)


_Wanted = TypeVar("_Wanted")


def _readable(read: Callable[[Definition], tuple[_Wanted, ...]], definition: Definition) -> tuple[_Wanted, ...]:
    try:
        return read(definition)
    except InputError:
        return ()


@contextlib.contextmanager
def _only_forbidden() -> Iterator[None]:
    """Let pass what is wrong for another reason than that it is forbidden."""
    try:
        yield
    except InputError:
        return
    except Refusal as refusal:
        if refusal.status == HTTPStatus.FORBIDDEN:
            raise


def _target(item: JobOutput) -> tuple[WantedOutput, str, str]:
    wanted, store, path = item.target["wanted"], item.target["store"], item.target["path"]
    return wanted, store, path


def _goes_up(file: LocalFile, globs: tuple[str, ...]) -> bool:
    """Whether a file is one of those that an output uploads.

    The SDK compares patterns with whole paths of the machine; here a pattern may fit the path in the output's folder,
    with or without a slash before it, so that both ``*.csv`` and ``**/*.csv`` find ``table.csv``.
    """
    names = (file.path, f"/{file.path}")
    return not globs or any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in globs)


def _output_name(lineage: Any) -> str:
    details = lineage.get("outputDetails") or {}
    return str(details.get("outputName") or "")
