"""Start, stop, look at and throw away an emulator, from another process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from himl_container import errors
from himl_container.emulator.config import load_config
from himl_container.emulator.folder import CONFIG, LOG, Running, find_running, lock_folder
from himl_container.emulator.installation import make_private_folder
from himl_container.emulator.processes import end
from himl_container.emulator.server import Ready
from himl_container.errors import HimlError, InputError, LaunchError, StorageError
from himl_container.outside import read_outside

_STOPPING = 60.0
"""Seconds in which an emulator ends its jobs and children."""


@dataclass(frozen=True)
class Stopped:
    """What a stop found: nothing to stop, or the process that it ended."""

    pid: int | None
    killed: bool = False


def start_detached(folder: Path, port: int) -> Ready:
    """Start an emulator that lives on after this process, and return when it answers.

    :raises HimlError: it did not start; the same error as in the foreground.
    """
    load_config(folder / CONFIG)
    make_private_folder(folder)
    log = folder / LOG
    there = read_outside(os.environ)  # of another emulator, which would keep this one from fetching packages
    environ = there.applied(os.environ) if there is not None else dict(os.environ)
    with log.open("ab") as output:
        log.chmod(0o600)
        # Its folder is not where somebody else may put a module that it would import.
        process = subprocess.Popen(
            [sys.executable, "-m", "himl_container.emulator", str(folder), str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
            cwd=folder,
            env={**environ, "PYTHONUNBUFFERED": "1"},
        )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    try:
        said = json.loads(line)
    except ValueError:
        process.wait()
        raise LaunchError(f"the emulator did not start:\n{_tail(log)}", where=str(log)) from None
    if "error" in said:
        process.wait()
        raise _error_of(said["error"])
    return Ready(folder, int(said["ready"]["port"]), float(said["ready"]["seconds"]))


def stop(folder: Path) -> Stopped:
    """Stop the emulator of a folder; its jobs are ended, and everything that it acknowledged stays.

    :raises LaunchError: it does not end.
    """
    running = find_running(folder)
    if running is None:
        return Stopped(None)
    began = time.monotonic()
    if not end(running.process, _STOPPING):
        raise LaunchError(f"process {running.process.pid} does not end", where=str(folder))
    return Stopped(running.process.pid, killed=time.monotonic() - began >= _STOPPING)


def reset(folder: Path) -> bool:
    """Remove everything that the emulator of a folder has stored but its configuration; say whether there was any.

    :raises LaunchError: it runs. :raises InputError: the folder is not an emulator's.
    :raises StorageError: something cannot be removed.
    """
    if not folder.exists():
        return False
    known = (folder / "state.json").exists()
    if not known and any(item.name not in {CONFIG, LOG, "emulator.lock"} for item in folder.iterdir()):
        raise InputError("this is not the folder of an emulator", where=str(folder), hint="Nothing was removed.")
    with lock_folder(folder):
        from himl_container.emulator.children import Children

        Children(folder).end_leftovers()
        try:
            for item in folder.iterdir():
                if item.name in {CONFIG, "emulator.lock", "azurite-program"}:
                    continue
                if item.is_dir() and not item.is_symlink():
                    shutil.rmtree(item)
                else:
                    item.unlink()
        except OSError as error:
            raise StorageError(f"cannot remove: {error.strerror}", where=str(error.filename)) from None
    return known


def status(folder: Path) -> Running | None:
    """Return the emulator that serves a folder; None where none does."""
    return find_running(folder)


def _error_of(value: dict[str, str]) -> HimlError:
    family = getattr(errors, value.get("family", ""), LaunchError)
    if not (isinstance(family, type) and issubclass(family, HimlError)):
        family = LaunchError
    return family(value["what"], where=value.get("where", ""), hint=value.get("hint", ""))


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:])
