"""The servers behind the emulator: Azurite (Microsoft's emulator of Azure Storage) and an image registry."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from himl_container.emulator.config import EmulatorConfig
from himl_container.emulator.installation import Installation, make_private_folder, write_private
from himl_container.emulator.processes import ProcessId, end, identify, spawn
from himl_container.errors import InputError, LaunchError

_PATIENCE = 60.0
"""Seconds in which a child must listen; a machine under load may take some."""

_SAVING = 20.0
"""Seconds in which Azurite, asked to end, has written its tables."""

_CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Program:
    """One server to start.

    :param listening: finds the port in what it writes; it is told to take any free one.
    """

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    listening: re.Pattern[str]


class Children:
    """Starts servers and ends them, also those of an emulator that was killed.

    :param folder: of the emulator; their logs and ``children.json`` are written there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._record = folder, folder / "children.json"
        self._running: list[tuple[Program, subprocess.Popen[bytes], Path, int]] = []

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
        try:
            process = spawn(list(program.command), log=log, environ=dict(program.environ), cwd=self._folder)
        except OSError as error:
            raise LaunchError(f"{program.command[0]} cannot be started: {error.strerror}") from None
        self._running.append((program, process, log, 0))
        known = {item.name: asdict(identify(running.pid)) for item, running, _, _ in self._running}
        write_private(self._record, json.dumps(known))

    def port(self, name: str) -> int:
        """Wait until a server listens on its port of this machine, and return the port.

        :raises LaunchError: it ended, or did not listen in time.
        """
        program, process, log, _ = next(item for item in self._running if item[0].name == name)
        limit = time.monotonic() + _PATIENCE
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
        return next((program.name for program, process, _, _ in self._running if process.poll() is not None), None)

    def close(self) -> None:
        """End all servers: asked first, so that they can save what they hold."""
        for _, process, _, _ in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for _, process, _, _ in self._running:
            _wait(process)
        self._running.clear()
        self._record.unlink(missing_ok=True)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_SAVING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def azurite(installation: Installation, config: EmulatorConfig) -> Program:
    """Return how Azurite's blob service is started.

    :raises InputError: it is not installed.
    """
    places = (_CHECKOUT / ".kit/azurite/node_modules/.bin/azurite-blob", installation.folder / _LOCAL)
    hint = f"npm install --prefix {installation.folder / 'azurite-program'} azurite   (needs Node.js)"
    program = _find("azurite-blob", config.azurite, places, hint)
    data = installation.folder / "azurite"
    make_private_folder(data)
    account = f"{installation.workspace.storage_account}:{installation.storage_key}"
    options = ("--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(data), "--silent")
    return Program(
        "azurite",
        (program, *options, "--disableTelemetry", "--skipApiVersionCheck"),
        {**_environ(), "AZURITE_ACCOUNTS": account, "NODE_OPTIONS": _preload()},
        re.compile(r"successfully listens on http://127\.0\.0\.1:(\d+)"),
    )


def registry(installation: Installation, config: EmulatorConfig) -> Program:
    """Return how the image registry is started.

    :raises InputError: it is not installed.
    """
    hint = "apt-get install docker-registry (Debian, Ubuntu), or the 'registry' program of the distribution project."
    program = _find("docker-registry", config.registry, (), hint)
    settings = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(installation.folder / "registry")},
            "delete": {"enabled": True},
        },
        # Addresses in its answers are then those that the client asked for, not its own.
        "http": {"addr": "127.0.0.1:0", "secret": secrets.token_hex(16), "relativeurls": True},
    }
    path = installation.folder / "registry.yml"
    # JSON is YAML.
    write_private(path, json.dumps(settings, indent=2))
    return Program(
        "registry",
        (program, "serve", str(path)),
        _environ(),
        re.compile(r'msg="listening on 127\.0\.0\.1:(\d+)"'),
    )


_LOCAL = Path("azurite-program/node_modules/.bin/azurite-blob")


def _find(name: str, chosen: str, places: Sequence[Path], hint: str) -> str:
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise InputError(f"{chosen} is no program that can be started", hint=hint)
        return str(Path(found).absolute())
    found = shutil.which(name)
    candidates: list[Callable[[], str | None]] = [lambda: found]
    candidates += [lambda place=place: shutil.which(place) for place in places]  # type: ignore[misc]
    for candidate in candidates:
        if path := candidate():
            return path
    raise InputError(f"{name} is not installed", hint=hint)


def _preload() -> str:
    """Return options of Node.js that load :file:`azurite_preload.cjs`; the path may have any character."""
    path = str(Path(__file__).with_name("azurite_preload.cjs"))
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'--require "{escaped}"'


def _environ() -> dict[str, str]:
    """Return this process's variables without those that would steer the servers, or hold the user's secrets."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SYSTEMROOT")
    return {name: os.environ[name] for name in kept if name in os.environ}
