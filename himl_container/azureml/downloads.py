"""Downloading many files at once, large ones in parts, over and over until they are whole.

A file gets its name when it is whole, in one step. What has arrived of one that is not stays beside it, and the next
try continues there if the content is still the same one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from himl_container.azureml.crew import Crew
from himl_container.azureml.download_work import DownloadWork
from himl_container.azureml.remote_files import RemoteFile, check_tree
from himl_container.errors import StorageError
from himl_container.progress import Reporter, SilentReporter

WORKERS = 8


@dataclass(frozen=True)
class Downloaded:
    """What was done. :param files: got; :param kept: were there already; :param size: bytes that came."""

    files: int
    kept: int
    size: int


@dataclass(frozen=True)
class DownloadOptions:
    """How to download.

    :param overwrite: replace files that are there, if they are not the same; else they stay, whatever they are.
    :param check: compare what comes with the MD5 that the storage tells of each part.
    """

    overwrite: bool = True
    check: bool = False
    workers: int = WORKERS


def download_all(
    files: Sequence[RemoteFile],
    folder: Path,
    options: DownloadOptions = DownloadOptions(),
    reporter: Reporter | None = None,
) -> Downloaded:
    """Download files to their names below a folder, which is created.

    A file that is there with the same size and the time of the last change (which a download sets), or with
    ``options.check`` the same MD5, is not fetched again.

    :raises WrongValue: a name cannot be a path below the folder; nothing is fetched then.
    :raises AzureMLError: a file cannot be had. :raises ConnectionError: the network, after several tries.
    :raises StorageError: a file cannot be written.
    """
    check_tree(file.name for file in files)
    unique = {file.name: file for file in files}
    crew = Crew(max(1, min(options.workers, len(unique) * 4)))
    count = f"{len(unique)} file" + ("" if len(unique) == 1 else "s")
    with (reporter or SilentReporter()).step("download", count, total=0, unit="bytes") as shown:
        work = DownloadWork(folder, crew, shown, overwrite=options.overwrite, check=options.check)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            crew.work(functools.partial(work.begin, file) for file in unique.values())
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            where = str(error.filename or folder)
            raise StorageError(f"a file cannot be written: {error.strerror or error}", where=where) from error
        finally:
            work.close()
    return Downloaded(work.count.files, work.count.kept, work.count.size)
