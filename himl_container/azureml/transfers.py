"""hi-ml's downloads and uploads: files of runs, checkpoints, folders of datastores.

Files get their names when they are whole; what a try that was cut has brought is not fetched again. In a distributed
job, the files of a run are downloaded by one process of each machine, and no process goes on before they are there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.azureml.failures import MissingFile, WrongType, WrongValue

if TYPE_CHECKING:
    from azureml.core import Run, Workspace

    from himl_container.azureml.downloads import Downloaded
    from himl_container.progress import Reporter

_log = logging.getLogger(__name__)

NO_SUCH_FILES = "No such files were found for this Run."


def get_run_file_names(run: Run, prefix: str = "") -> list[str]:
    """Return the names of a run's files that begin with ``prefix``, which is plain text."""
    from himl_container.azureml.retry import retried

    names: list[str] = retried(f"listing the files of run {run.id}", run.get_file_names)
    return [name for name in names if name.startswith(prefix)]


def download_files_from_run_id(  # noqa: PLR0917  # hi-ml's
    run_id: str,
    output_folder: Path,
    prefix: str = "",
    workspace: Workspace | None = None,
    workspace_config_path: Path | None = None,
    validate_checksum: bool = False,
) -> None:
    """Download the files of a run to ``output_folder``, each below its full name in the run.

    In a distributed job the process with local rank 0 of each machine downloads, and all leave together.

    :param prefix: plain text that the names of the files begin with.
    :param workspace: see :func:`himl_container.azureml.workspace.get_workspace`, for the config file too.
    :param validate_checksum: compare what comes with the MD5 that the storage tells of each part.
    :raises WrongValue: the run has no such file, or one whose name is no path below a folder.
    :raises MissingRun: there is no such run. :raises MissingFile: the process that downloads has failed.
    """
    from himl_container.azureml.runs import get_run_by_id
    from himl_container.azureml.workspace import get_workspace

    run = get_run_by_id(get_workspace(workspace, workspace_config_path), run_id)
    download_run_files(run, Path(output_folder), prefix, validate_checksum=validate_checksum)


def download_checkpoints_from_run_id(
    run_id: str,
    checkpoint_dir: str,
    output_folder: Path,
    aml_workspace: Workspace | None = None,
    workspace_config_path: Path | None = None,
) -> None:
    """Download the files of a run's checkpoint folder, and compare them with their checksums.

    :param checkpoint_dir: what their names in the run begin with; see :func:`download_files_from_run_id` for the rest.
    """
    download_files_from_run_id(
        run_id,
        output_folder,
        prefix=str(checkpoint_dir),
        workspace=aml_workspace,
        workspace_config_path=workspace_config_path,
        validate_checksum=True,
    )


def download_run_files(
    run: Run,
    output_folder: Path,
    prefix: str = "",
    *,
    validate_checksum: bool = False,
    reporter: Reporter | None = None,
) -> Downloaded | None:
    """As :func:`download_files_from_run_id`, of a run that is known; return what was done, None in other processes.

    :param reporter: shows the progress.
    """
    from himl_container.azureml.distributed import is_local_rank_zero, torch_barrier
    from himl_container.azureml.downloads import DownloadOptions, download_all
    from himl_container.azureml.remote_files import local_path
    from himl_container.azureml.run_files import files_of_run

    files = files_of_run(run, prefix)
    if not files:
        raise WrongValue(NO_SUCH_FILES, where=f"run {run.id}", hint=_which(run, prefix))
    done: Downloaded | None = None
    try:
        if is_local_rank_zero():
            options = DownloadOptions(check=validate_checksum)
            done = download_all(files, output_folder, options, reporter)
            _log.info("Downloaded %d files of run %s; %d were there already.", done.files, run.id, done.kept)
    finally:
        torch_barrier()  # after a failure too, or the other processes would wait for ever
    if done is None:
        _require([local_path(output_folder, file.name) for file in files])
    return done


def download_from_datastore(  # noqa: PLR0917  # hi-ml's
    datastore_name: str,
    file_prefix: str,
    output_folder: Path,
    aml_workspace: Workspace | None = None,
    workspace_config_path: Path | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> None:
    """Download the files of a datastore to ``output_folder``, each below its full path in the datastore.

    Every process that calls this downloads, in a distributed job too: processes may want different files. Where they
    want the same one, each gets it whole.

    :param file_prefix: plain text that the paths of the files begin with.
    :param overwrite: replace files that are there; else they stay as they are.
    :param show_progress: show a bar on the terminal, where there is one.
    :raises MissingKey: there is no such datastore. :raises FailedAssertion: it is not one of blobs.
    :raises WrongValue: a name is no path below a folder, or the datastore has no key.
    """
    from himl_container.azureml.datastore_files import blob_datastore, container_client, list_blobs, remote_files
    from himl_container.azureml.downloads import DownloadOptions, download_all
    from himl_container.azureml.service_failures import explained
    from himl_container.azureml.transfer_progress import progress_of
    from himl_container.azureml.workspace import get_workspace

    workspace = get_workspace(aml_workspace, workspace_config_path)
    with explained(f"the datastore {datastore_name}"):
        datastore = blob_datastore(workspace, datastore_name, "download from")
        with container_client(datastore) as client:
            names = [entry.name for entry in list_blobs(client, str(file_prefix))]
    if not names:
        _log.warning("No file in the datastore '%s' has a path that begins with '%s'.", datastore_name, file_prefix)
    done = download_all(
        remote_files(datastore, names),
        Path(output_folder),
        DownloadOptions(overwrite=overwrite),
        progress_of(show_progress),
    )
    _log.info("Downloaded %d files from '%s'; %d were there already.", done.files, datastore_name, done.kept)


def upload_to_datastore(  # noqa: PLR0917  # hi-ml's
    datastore_name: str,
    local_data_folder: Path,
    remote_path: Path,
    aml_workspace: Workspace | None = None,
    workspace_config_path: Path | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> None:
    """Upload the files of a folder to a path in a datastore. The folder's own name is not part of their paths.

    :param overwrite: replace files that are there; else they stay as they are.
    :param show_progress: show a bar on the terminal, where there is one.
    :raises WrongType: (a TypeError) ``local_data_folder`` is not a folder. :raises MissingKey: no such datastore.
    :raises FailedAssertion: it is not one of blobs. :raises WrongValue: a file or the path cannot be used.
    """
    folder = Path(local_data_folder)
    if not folder.is_dir():
        raise WrongType("local_path must be a directory", where=str(folder))
    from himl_container.azureml.datastore_files import blob_datastore, container_client, list_blobs
    from himl_container.azureml.remote_files import checked_name
    from himl_container.azureml.service_failures import explained
    from himl_container.azureml.transfer_progress import progress_of
    from himl_container.azureml.uploads import upload_all
    from himl_container.azureml.workspace import get_workspace

    base = _remote_folder(remote_path)
    # A name that no download would take is refused here, before anything is sent.
    files = [(path, base + checked_name(path.relative_to(folder).as_posix())) for path in _files_below(folder)]
    workspace = get_workspace(aml_workspace, workspace_config_path)
    with explained(f"the datastore {datastore_name}"):
        datastore = blob_datastore(workspace, datastore_name, "upload to")
        with container_client(datastore) as client:
            there = frozenset() if overwrite else frozenset(entry.name for entry in list_blobs(client, base))
            reporter = progress_of(show_progress)
            done = upload_all(files, client, overwrite=overwrite, there=there, reporter=reporter)
    _log.info("Uploaded %d files to '%s'; %d were there already.", done.files, datastore_name, done.kept)


def _which(run: Run, prefix: str) -> str:
    names = get_run_file_names(run)
    if not names:
        return "The run has no files yet."
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"No name begins with {prefix!r}; its {len(names)} files are {shown}"


def _require(paths: Sequence[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise MissingFile(
            f"{len(missing)} of {len(paths)} files are not there after the download",
            where=str(missing[0]),
            hint="The process with local rank 0 downloads; its output says what went wrong.",
        )


def _remote_folder(remote_path: Path | str) -> str:
    """Return a path in a datastore with a slash at its end; nothing for the root.

    :raises WrongValue: it leads upwards or has a control character.
    """
    from himl_container.azureml.remote_files import checked_name

    text = Path(remote_path).as_posix().strip("/")
    return "" if text in {"", "."} else f"{checked_name(text)}/"


def _files_below(folder: Path) -> list[Path]:
    """Return the files below a folder; links to files count as files, and links to folders are not followed."""
    found = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    return sorted(found)
