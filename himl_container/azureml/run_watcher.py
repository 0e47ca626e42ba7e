"""Keeping a local copy of a run's folder while the run goes on, for a program that reads the files as they grow."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.azureml.blob_reader import BlobReader
from himl_container.azureml.crew import StoppedError
from himl_container.azureml.download_work import TRIES
from himl_container.azureml.downloads import download_all
from himl_container.azureml.failures import WrongValue
from himl_container.azureml.following import ENDED
from himl_container.azureml.remote_files import RemoteFile, checked_name, folders_of, local_path
from himl_container.azureml.retry import is_transient, one_line, retried
from himl_container.azureml.run_files import files_of_run
from himl_container.errors import AzureMLError, HimlError

if TYPE_CHECKING:
    from azureml.core import Run

_log = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two looks at a run."""
_AT_ONCE = 64 << 20


class RunWatcher(threading.Thread):
    """Copies what is below a folder of a run to a local one, until the run has ended or :meth:`stop` is called.

    Files of events grow at their end, here as there: a reader that has one open sees what comes. Every other file is
    replaced in one step when the run has ended, if it is another one by then.

    :param remote_root: the folder in the run.
    :param folder: where its files go, created when the first comes.
    :param interval: seconds between two looks.
    """

    def __init__(self, run: Run, remote_root: str, folder: Path, interval: float = INTERVAL) -> None:
        super().__init__(daemon=True, name=f"watch {run.id}")
        self._run, self._folder, self._interval = run, folder, interval
        root = remote_root.strip("/")
        self._prefix = f"{checked_name(root)}/" if root not in {"", "."} else ""
        self._stop_asked = threading.Event()
        self._known: set[str] = set()
        self._refused: set[str] = set()
        self._reader = BlobReader(2)

    def stop(self) -> None:
        """Ask it to end; :meth:`join` waits for that."""
        self._stop_asked.set()

    def run(self) -> None:
        """Watch. Failures are logged; transient ones, and files that are not there yet, have another look."""
        try:
            while not self._stop_asked.is_set():
                if self._look():
                    return
                self._stop_asked.wait(self._interval)
        except StoppedError:
            return
        finally:
            self._reader.close()

    def _look(self) -> bool:
        """Copy what is new; return whether nothing more can come."""
        ended = False
        try:
            ended = retried(f"asking for the state of run {self._run.id}", self._status, sleep=self._pause) in ENDED
            self.copy(everything=ended)
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001  # a thread has nobody to raise it to
            # While the run goes on, a file that is refused may be one that is about to come.
            if not is_transient(error) and (ended or not isinstance(error, HimlError)):
                _log.error("Run %s is not watched any longer: %s", self._run.id, one_line(error))
                return True
            _log.warning("Run %s: %s", self._run.id, one_line(error))
            return False
        return ended

    def copy(self, *, everything: bool) -> None:
        """Copy what is new now.

        :param everything: replace files that are not of events and have changed, too.
        """
        others = []
        for file in self._usable(files_of_run(self._run, self._prefix)):
            self._check()
            if is_of_events(file.name):
                try:
                    self._grow(file)
                except AzureMLError as error:  # of this file: it keeps no other waiting, and has another look
                    _log.warning("Run %s: %s", self._run.id, error.what)
            elif everything or file.name not in self._known:
                others.append(file)
        if others:
            download_all(others, self._folder)
            self._known.update(file.name for file in others)

    def _usable(self, files: Iterable[RemoteFile]) -> Iterator[RemoteFile]:
        """Yield the files by their names below the folder; one that cannot be on this disk does not hide the others."""
        names: set[str] = set()
        folders: set[str] = set()
        for file in files:
            file.name = name = file.name.removeprefix(self._prefix)
            try:
                above = folders_of(checked_name(name))
                if name in folders or not names.isdisjoint(above):
                    raise WrongValue(f"{name!r} is a file and a folder at once, or is in a file")
            except WrongValue as error:
                if name not in self._refused:
                    self._refused.add(name)
                    _log.warning("Run %s: %s", self._run.id, error.what)
                continue
            names.add(name)
            folders.update(above)
            yield file

    def _grow(self, file: RemoteFile) -> None:
        """Append to a local file what the remote one has more; begin anew where that has become shorter."""
        target = local_path(self._folder, file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab") as output:
            for _ in range(TRIES):
                have = os.fstat(output.fileno()).st_size
                with self._reader.read(file, have, _AT_ONCE) as piece:
                    if piece.facts.size < have:
                        output.truncate(0)
                        continue
                    for chunk in piece.chunks(check=False):
                        self._check()
                        output.write(chunk)
                    output.flush()
                if have + piece.length >= piece.facts.size:
                    return

    def _status(self) -> str:
        return str(self._run.get_status())

    def _check(self) -> None:
        if self._stop_asked.is_set():
            raise StoppedError

    def _pause(self, seconds: float) -> None:
        self._stop_asked.wait(seconds)
        self._check()


def is_of_events(name: str) -> bool:
    """Return whether TensorBoard takes a file for one of events, to which its writer only ever appends."""
    return "tfevents" in name.rpartition("/")[2]
