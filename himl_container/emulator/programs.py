"""Which servers the emulator starts: programs of this machine, or else their container images."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from himl_container.emulator.config import EmulatorConfig
from himl_container.emulator.installation import Installation, make_private_folder, write_private
from himl_container.errors import InputError

AZURITE_IMAGE = "mcr.microsoft.com/azure-storage/azurite:3.35.0"
REGISTRY_IMAGE = "registry:2.8.3"

_CHECKOUT = Path(__file__).resolve().parents[2]
_LOCAL = Path("azurite-program")
"""In the emulator's folder: where the hint of a missing Azurite has npm install it."""

_PRELOAD = Path(__file__).with_name("azurite_preload.cjs")


@dataclass(frozen=True)
class Program:
    """One server to start.

    :param listening: finds the port in what it writes; it is told to take any free one of the loopback interface.
    :param patience: seconds in which it must listen.
    :param container: name of the container that it runs in; empty for a program of this machine.
    """

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    listening: re.Pattern[str]
    patience: float = 60.0
    container: str = ""


def azurite(installation: Installation, config: EmulatorConfig) -> Program:
    """Return how Azurite's blob service is started.

    :raises InputError: there is neither the program nor Docker.
    """
    folder = installation.folder
    places = azurite_places(folder)
    data = folder / "azurite"
    make_private_folder(data)
    account = f"{installation.workspace.storage_account}:{installation.storage_key}"
    options = ("--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(data), "--silent")
    wanted = _Wanted(
        name="azurite",
        program="azurite-blob",
        arguments=(*options, "--disableTelemetry", "--skipApiVersionCheck"),
        environ={"AZURITE_ACCOUNTS": account, "NODE_OPTIONS": preload_option(_PRELOAD)},
        listening=re.compile(r"successfully listens on http://127\.0\.0\.1:(\d+)\s"),
        files=(data, _PRELOAD),
        image=AZURITE_IMAGE,
        hint=f"npm install --prefix {folder / _LOCAL} azurite   (needs Node.js)",
    )
    return _program(wanted, installation, config.azurite, places, config.azurite_image)


def azurite_places(folder: Path) -> tuple[str, ...]:
    """Return where Azurite's program is looked for: names for the search path, and paths.

    :param folder: the emulator's.
    """
    return ("azurite-blob", *(str(place / "node_modules/.bin/azurite-blob") for place in _azurite_folders(folder)))


def registry(installation: Installation, config: EmulatorConfig) -> Program:
    """Return how the image registry is started.

    :raises InputError: there is neither the program nor Docker.
    """
    import bcrypt

    data = installation.folder / "registry"
    make_private_folder(data)
    user, password = installation.inner_registry_login
    users = installation.folder / "registry.htpasswd"
    # The cheapest that there is: the password is random, nobody guesses it, and it is checked for every request.
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    write_private(users, f"{user}:{hashed}\n")
    settings = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}},
        "auth": {"htpasswd": {"realm": "emulator", "path": str(users)}},
        # Addresses in its answers are then those that the client asked for, not its own.
        "http": {"addr": "127.0.0.1:0", "secret": secrets.token_hex(16), "relativeurls": True},
    }
    path = installation.folder / "registry.yml"
    # JSON is YAML.
    write_private(path, json.dumps(settings, indent=2))
    wanted = _Wanted(
        name="registry",
        program="registry",
        arguments=("serve", str(path)),
        environ={},
        listening=re.compile(r'msg="listening on 127\.0\.0\.1:(\d+)"'),
        files=(data, path, users),
        image=REGISTRY_IMAGE,
        hint="apt-get install docker-registry   (Debian and its relatives)",
    )
    return _program(wanted, installation, config.registry, ("docker-registry",), config.registry_image)


def preload_option(path: Path) -> str:
    """Return an option of Node.js that loads a file first; its path may have any character."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'--require "{escaped}"'


@dataclass(frozen=True)
class _Wanted:
    """A server, wherever its program is.

    :param program: its name in the container image; :param files: what it reads and writes.
    :param image: the one that its makers publish.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    listening: re.Pattern[str]
    files: tuple[Path, ...]
    image: str
    hint: str


def _program(
    wanted: _Wanted, installation: Installation, chosen: str, places: tuple[str, ...], chosen_image: str
) -> Program:
    candidates = (chosen,) if chosen else places
    for place in () if chosen_image else candidates:
        if found := shutil.which(place):
            command = (str(Path(found).absolute()), *wanted.arguments)
            return Program(wanted.name, command, {**_environ(), **wanted.environ}, wanted.listening)
    if chosen and not chosen_image:
        raise InputError(f"{chosen} is no program that can be started", hint=wanted.hint)
    docker = shutil.which("docker")
    if docker is None:
        raise InputError(f"{places[0]} is not installed, and neither is the 'docker' command", hint=wanted.hint)
    name = f"{installation.network}-{wanted.name}"
    options = ["--rm", "--init", "--name", name, "--user", f"{os.getuid()}:{os.getgid()}"]
    # On the host's network it listens on the loopback interface, and on no bridge that other containers are on.
    options += ["--network", "host", "--label", f"himl-container.emulator={installation.short_id}"]
    for path in wanted.files:
        options += ["--mount", _bind(path)]
    for variable in wanted.environ:
        # Docker takes the value from its own variables: nobody reads it off the command line.
        options += ["--env", variable]
    command = (docker, "run", *options, "--entrypoint", wanted.program, chosen_image or wanted.image, *wanted.arguments)
    environ = {**_environ(), **_docker_environ(), **wanted.environ}
    return Program(wanted.name, command, environ, wanted.listening, patience=600, container=name)


def _bind(path: Path) -> str:
    # What the option takes is a line of comma-separated values (docs.docker.com/engine/storage/bind-mounts).
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["type=bind", f"source={path}", f"target={path}"])
    return line.getvalue()


def _azurite_folders(folder: Path) -> tuple[Path, ...]:
    return (_CHECKOUT / ".kit/azurite", folder / _LOCAL)


def _environ() -> dict[str, str]:
    """Return this process's variables without those that would steer the servers, or hold the user's secrets."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _docker_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
