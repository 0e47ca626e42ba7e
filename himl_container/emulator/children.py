"""The servers behind the emulator: Azurite (Microsoft's emulator of Azure Storage) and an image registry."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from himl_container.emulator.installation import write_private
from himl_container.emulator.processes import ProcessId, end, identify, spawn
from himl_container.emulator.programs import Program
from himl_container.errors import LaunchError

_SAVING = 20.0
"""Seconds in which Azurite, asked to end, has written its tables."""

_REMOVING = 60.0
"""Seconds in which a daemon has removed a container."""


class Children:
    """Starts servers and ends them, also those of an emulator that was killed.

    :param folder: of the emulator; their logs and ``children.json`` are written there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._record = folder, folder / "children.json"
        self._running: list[tuple[Program, subprocess.Popen[bytes], Path]] = []

    def end_leftovers(self) -> list[str]:
        """End what an earlier emulator of this folder left running, and return the names.

        :raises LaunchError: one cannot be ended.
        """
        try:
            known = json.loads(self._record.read_text(encoding="utf-8"))
            found = {str(name): ProcessId(int(item["pid"]), str(item["began"])) for name, item in known.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []
        ended = []
        for name, process in found.items():
            if process.alive():
                if not end(process, _SAVING):
                    raise LaunchError(f"{name} of an earlier emulator (process {process.pid}) does not end")
                ended.append(name)
        self._record.unlink(missing_ok=True)
        return ended

    def start(self, program: Program) -> None:
        """Start a server without waiting for it.

        :raises LaunchError: it cannot be started.
        """
        log = self._folder / f"{program.name}.log"
        log.unlink(missing_ok=True)
        if program.container:
            # One of an emulator that was killed together with its 'docker' command.
            _remove_container(program)
        try:
            process = spawn(list(program.command), log=log, environ=dict(program.environ), cwd=self._folder)
        except OSError as error:
            raise LaunchError(f"{program.command[0]} cannot be started: {error.strerror}") from None
        self._running.append((program, process, log))
        known = {item.name: asdict(identify(running.pid)) for item, running, _ in self._running}
        write_private(self._record, json.dumps(known))

    def port(self, name: str) -> int:
        """Wait until a server listens on its port of this machine, and return the port.

        :raises LaunchError: it ended, or did not listen in time.
        """
        program, process, log = next(item for item in self._running if item[0].name == name)
        limit = time.monotonic() + program.patience
        while time.monotonic() < limit:
            text = log.read_text(encoding="utf-8", errors="replace")
            if found := program.listening.search(text):
                return int(found[1])
            if process.poll() is not None:
                break
            time.sleep(0.01)
        text = log.read_text(encoding="utf-8", errors="replace")
        tail = "\n".join(text.strip().splitlines()[-10:])
        raise LaunchError(f"{name} did not start:\n{tail}", hint=f"Its whole log: {log}")

    def ended(self) -> str | None:
        """Return the name of a server that has ended by itself; None where all run."""
        return next((program.name for program, process, _ in self._running if process.poll() is not None), None)

    def close(self) -> None:
        """End all servers: asked first, so that they can save what they hold."""
        for _, process, _ in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for program, process, _ in self._running:
            if not _wait(process) and program.container:
                _remove_container(program)  # the command that would have is dead
        self._running.clear()
        self._record.unlink(missing_ok=True)


def _wait(process: subprocess.Popen[bytes]) -> bool:
    """Wait for a server's end, and say whether it ended by itself; where not, it is killed."""
    try:
        process.wait(_SAVING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def _remove_container(program: Program) -> None:
    """Remove a server's container, and return once its name is free.

    A daemon that removes it already (``docker run --rm``) refuses to do so twice, and keeps the name until it is done.
    """
    words = [program.command[0], "rm", "--force", program.container]
    limit = time.monotonic() + _REMOVING
    while True:
        done = subprocess.run(words, env=dict(program.environ), capture_output=True, check=False)
        if not done.returncode or b"already in progress" not in done.stderr or time.monotonic() >= limit:
            return
        time.sleep(0.1)
