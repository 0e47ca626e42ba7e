"""TensorBoard on this machine for runs in AzureML: their event files are copied while the runs go on.

``azureml-tensorboard`` is not needed. TensorBoard itself is, as a program: ``pip install tensorboard``.
"""

from __future__ import annotations

import collections
import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from himl_container.azureml.failures import WrongValue
from himl_container.errors import AzureMLError

if TYPE_CHECKING:
    from azureml.core import Run

    from himl_container.azureml.run_watcher import RunWatcher

_log = logging.getLogger(__name__)

DEFAULT_PORT = 6006
_ADDRESS = re.compile(r"TensorBoard \S+ at (https?://\S+)")
_PATIENCE = 120.0
"""Seconds in which TensorBoard must say that it is ready: the first start on a slow disk takes some."""
_GRACE = 10.0
_LINES = 20
_PROGRAM = """\
import os, sys
here = os.getcwd()
sys.path[:] = [place for place in sys.path if place and os.path.abspath(place) != here]
from tensorboard.main import run_main
run_main()
"""
"""TensorBoard, without its working directory among the places of modules: a run may be called like one, and what was
copied from it must not be imported. (``PYTHONSAFEPATH`` says the same from Python 3.11 on.)"""
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class WrappedTensorboard:
    """A TensorBoard that shows runs.

    :param remote_root: the folder in the runs that has the event files.
    :param runs: one or several.
    :param local_root: where the copies go, each run's to a folder of its id; None for a temporary folder.
    :param port: where it listens, on this machine alone; 0 for any free port.
    :param interval: seconds between two looks at a run.
    :raises WrongValue: no run, a run twice, or an id that cannot be a folder's name.
    """

    def __init__(
        self,
        remote_root: str,
        runs: Sequence[Run],
        local_root: str | Path | None = None,
        port: int = DEFAULT_PORT,
        *,
        interval: float = 5.0,
    ) -> None:
        ids = [str(run.id) for run in runs]
        bad = [one for one in ids if not _SAFE_ID.fullmatch(one) or ids.count(one) > 1]
        if bad or not ids:
            raise WrongValue(f"TensorBoard cannot show {bad[0]!r}" if bad else "There is no run to show in TensorBoard")
        self._remote_root, self._runs, self._port, self._interval = str(remote_root), list(runs), port, interval
        self._local_root = Path(local_root).absolute() if local_root is not None else None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._watchers: list[RunWatcher] = []
        self._last: collections.deque[str] = collections.deque(maxlen=_LINES)

    def start(self, start_browser: bool = False) -> str | None:
        """Start TensorBoard and the copying; return its address, or None where it is running already.

        :param start_browser: open the address in a browser.
        :raises WrongValue: TensorBoard is not installed.
        :raises AzureMLError: it ended, or did not say in time that it is ready; with its last words.
        """
        from himl_container.azureml.run_watcher import RunWatcher

        if self.is_running:
            _log.info("TensorBoard is running already.")
            return None
        if importlib.util.find_spec("tensorboard") is None:
            raise WrongValue("TensorBoard is not installed.", hint="pip install 'himl-container[tensorboard]'")
        root = self._root()
        folders = {str(run.id): root / str(run.id) for run in self._runs}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        # Made before the program is started: a folder that cannot be one of a run leaves nothing behind.
        watchers = [RunWatcher(run, self._remote_root, folders[str(run.id)], self._interval) for run in self._runs]
        address = self._launch(root, folders)
        self._watchers = watchers
        for watcher in watchers:
            watcher.start()
        if start_browser:
            import webbrowser

            webbrowser.open(address)
        return address

    def stop(self) -> None:
        """End TensorBoard and the copying."""
        for watcher in self._watchers:
            watcher.stop()
        if self._process is not None:
            _end(self._process)
            self._process = None
        for watcher in self._watchers:
            watcher.join(_GRACE)
        self._watchers = []
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    @property
    def is_running(self) -> bool:
        """Whether the program runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def is_complete(self) -> bool:
        """Whether all runs have ended and everything of them is here."""
        return not any(watcher.is_alive() for watcher in self._watchers)

    @property
    def last_words(self) -> str:
        """What the program has said last; its own errors alone, where it told any."""
        errors = [line.removeprefix("ERROR: ") for line in self._last if line.startswith("ERROR: ")]
        return "\n".join(errors or self._last)

    def _root(self) -> Path:
        if self._local_root is not None:
            return self._local_root
        self._temporary = tempfile.TemporaryDirectory(prefix="himl-tensorboard-")
        return Path(self._temporary.name)

    def _launch(self, root: Path, folders: dict[str, Path]) -> str:
        if len(folders) == 1:
            where = ["--logdir", str(next(iter(folders.values())))]
        else:
            # By names below the working directory: a path could hold the characters that separate entries.
            _log.info("Several runs are shown: TensorBoard's option --logdir_spec is used.")
            where = ["--logdir_spec", ",".join(f"{one}:{one}" for one in folders)]
        command = [sys.executable, "-c", _PROGRAM, *where, "--port", str(self._port), "--host", "localhost"]
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command,
            cwd=root,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._process = process
        ready: list[str] = []
        told = threading.Event()
        assert process.stderr is not None
        threading.Thread(target=self._listen, args=(process.stderr, ready, told), daemon=True).start()
        try:
            told.wait(_PATIENCE)
            if not ready:
                hint = "Another program may have the port: --port 0 takes any that is free."
                raise AzureMLError(f"TensorBoard did not start:\n{self.last_words}".rstrip(), hint=hint)
        except BaseException:
            self.stop()
            raise
        return ready[0]

    def _listen(self, stream: IO[str], ready: list[str], told: threading.Event) -> None:
        """Read what the program says, until its end: a full pipe would stop it."""
        for line in stream:
            self._last.append(line.rstrip())
            found = _ADDRESS.search(line)
            if found and not ready:
                ready.append(found[1])
                told.set()
        told.set()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
