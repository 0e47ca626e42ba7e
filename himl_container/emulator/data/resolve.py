"""From a dataset's definition to the blobs that it consists of, and where each of them lies for a script."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from himl_container.emulator.blobs import Blob, Blobs
from himl_container.emulator.data.credentials import Credentials
from himl_container.emulator.data.dataflow import Dataflow, Source, Step
from himl_container.emulator.data.glob import fixed_beginning, fixed_folder, is_pattern, matcher
from himl_container.emulator.data.reach import Reach
from himl_container.emulator.names import Workspace
from himl_container.emulator.state.datastores import BLOB, Datastores
from himl_container.errors import InputError

Mode = Literal["mount", "download"]

_HARMLESS = frozenset({"extract_columns_from_partition_format", "convert_column_types"})
"""Steps that add something to what is known of a file and leave none out."""


@dataclass(frozen=True)
class DatasetFile:
    """One file of a dataset.

    :param place: where it lies below the dataset's folder; not checked yet, a blob may be named ``../x``.
    """

    container: str
    blob: Blob
    place: str


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a dataset.

    :param single: whether the definition names one file, whose path is then the dataset's own.
    """

    files: tuple[DatasetFile, ...]
    single: bool = False


@dataclass(frozen=True)
class _Found:
    """A blob, and by which source it was found."""

    source: Source
    container: str
    blob: Blob


class Resolver:
    """Finds the files of datasets."""

    def __init__(
        self, stores: Datastores, credentials: Credentials, blobs: Blobs, workspace: Workspace, reach: Reach
    ) -> None:
        self._stores, self._credentials, self._blobs, self._reach = stores, credentials, blobs, reach
        names = (workspace.subscription_id, workspace.resource_group, workspace.name)
        self._workspace = tuple(name.lower() for name in names)

    def resolve(self, dataflow: Dataflow, mode: Mode, submitter: str = "") -> DatasetFiles:
        """Return the files of a dataset, by name, and where the SDK would lay them out.

        One source: below the folder that it names. Several: downloaded files lie below ``<datastore>/<path>``; mounted
        ones below the folder that is common to them, and so do downloaded ones only if they are of several datastores.

        :param submitter: as of :meth:`check`.
        :raises InputError: a source has no file, or is elsewhere than in the emulator's storage, or files are chosen in
            a way that only the SDK's own engine can follow.
        :raises Refusal: 403, as :meth:`check`.
        """
        self.check(dataflow, submitter)
        if dataflow.elsewhere:
            raise InputError(
                "the dataset has files outside of the workspace's datastores, which a job here cannot reach",
                where=dataflow.elsewhere[0].partition("?")[0][:200],
            )
        found: list[_Found] = []
        for source in dataflow.sources:
            found += self._of_source(source)
        found = _after(dataflow.steps, found)
        if len(dataflow.sources) == 1:
            source = dataflow.sources[0]
            single = not is_pattern(source.path) and [item.blob.name for item in found] == [source.path]
            base = posixpath.dirname(source.path) if single else _folder(source)
            return DatasetFiles(tuple(_placed(found, base)), single)
        if mode == "mount" and len({source.store for source in dataflow.sources}) == 1:
            folders = [posixpath.dirname(item.blob.name) for item in found]
            return DatasetFiles(tuple(_placed(found, posixpath.commonpath(folders) if folders else "")))
        return DatasetFiles(tuple(_unique((item, f"{item.source.store}/{item.blob.name}") for item in found)))

    def check(self, dataflow: Dataflow, submitter: str) -> None:
        """Find out whether a run may be given a dataset's files.

        :param submitter: the run whose job has submitted that run; empty for a user.
        :raises Refusal: 403, files of other runs may be among them.
        """
        for source in dataflow.sources if submitter else ():
            known = self._stores.find(source.store)
            if known is not None and self._credentials.owns(known):
                self._reach.check(submitter, known.container, source.path)

    def container_of(self, store: str, path: str = "", submitter: str = "") -> str:
        """Return the container of a datastore.

        :param path: of the file or folder there that is wanted; :param submitter: as of :meth:`check`.
        :raises InputError: there is no such datastore, or it is not in the emulator's own storage.
        :raises Refusal: 403, as :meth:`check`.
        """
        known = self._stores.find(store)
        if known is None:
            raise InputError("there is no such datastore", where=store[:100])
        if known.kind != BLOB or not self._credentials.owns(known):
            raise InputError(
                "a job here reaches no datastore but those of the emulator's own blob storage", where=known.name
            )
        self._reach.check(submitter, known.container, path)
        return known.container

    def _of_source(self, source: Source) -> list[_Found]:
        if source.workspace and source.workspace != self._workspace:
            raise InputError("the dataset has files of another workspace", where=source.workspace[2][:100])
        container = self.container_of(source.store)
        found = [_Found(source, container, blob) for blob in self._blobs_of(container, source)]
        if not found:
            raise InputError("the dataset has no files there", where=f"{source.store}/{source.path}"[:300])
        return found

    def _blobs_of(self, container: str, source: Source) -> Iterator[Blob]:
        path = source.path
        if is_pattern(path) and source.form == "pattern":
            fits = matcher(path)
            yield from (
                blob
                for blob in self._blobs.list(container, fixed_beginning(path))
                if fits(blob.name) and _is_file(blob)
            )
            return
        folder = f"{path.rstrip('/')}/" if path.strip("/") else ""
        below = [blob for blob in self._blobs.list(container, folder) if _is_file(blob)]
        exact = (
            self._blobs.stat(container, path) if path and not path.endswith("/") and source.form != "folder" else None
        )
        # What stands for a folder itself, in storage that has none, is an empty blob of its name.
        if exact is not None and (exact.size or not below):
            yield exact
        elif source.form != "file":
            yield from below


def _folder(source: Source) -> str:
    return fixed_folder(source.path) if is_pattern(source.path) else source.path.strip("/")


def _is_file(blob: Blob) -> bool:
    """Whether a blob is more than a mark for an empty folder."""
    return not (blob.name.endswith("/") and blob.size == 0)


def _placed(found: Iterable[_Found], base: str) -> Iterator[DatasetFile]:
    prefix = f"{base}/" if base else ""
    return _unique((item, item.blob.name.removeprefix(prefix)) for item in found)


def _unique(placed: Iterable[tuple[_Found, str]]) -> Iterator[DatasetFile]:
    """Yield files, each place once: a file that two patterns find is laid out once."""
    seen: set[str] = set()
    for item, place in placed:
        if place not in seen:
            seen.add(place)
            yield DatasetFile(item.container, item.blob, place)


def _after(steps: Iterable[Step], found: list[_Found]) -> list[_Found]:
    """Return the files that the steps of a definition leave.

    :raises InputError: a step is not known here.
    """
    for step in steps:
        if step.name in {"take", "skip"}:
            count = step.arguments
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise InputError(f"the dataset's definition has a step {step.name!r} without a number")
            found = found[:count] if step.name == "take" else found[count:]
        elif step.name not in _HARMLESS:
            raise InputError(
                f"the dataset chooses its files by {step.name[:100]!r}, which jobs of the emulator do not follow",
                hint="Give the job the dataset without it (as_named_input(...) alone), and use the SDK in the script.",
            )
    return found
