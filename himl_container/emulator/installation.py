"""What one emulator is: its folder, and the ids, names and secrets that it was given when it was first started."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from himl_container.emulator.names import Workspace
from himl_container.errors import InputError, StorageError

BUNDLE = "bundle.pem"
"""File of the certificates that a client of the emulator trusts; :data:`ROOTS` has the usual ones too."""

ROOTS = "roots.pem"

_VERSION = 1
_HEX = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class Installation:
    """One emulator on this machine.

    :param folder: everything that it keeps is in here; readable by its owner only.
    :param short_id: eight hexadecimal digits, in the names of its Docker network and containers.
    :param client_id: of the service principal that may log in with ``client_secret``; ``object_id`` is its object.
    :param storage_key: of the storage account, base64 as Azure gives it.
    :param registry_passwords: the two of the registry's admin user, whose name is the registry's.
    """

    folder: Path
    short_id: str
    workspace: Workspace
    client_id: str
    object_id: str
    client_secret: str
    storage_key: str
    registry_passwords: tuple[str, str]

    @property
    def network(self) -> str:
        """The name of the Docker network of its jobs."""
        return f"himl-emulator-{self.short_id}"

    @property
    def managed_identity_secret(self) -> str:
        """What the address of the managed identity has in it; follows from the client's secret."""
        return hashlib.sha256(f"managed identity {self.client_secret}".encode()).hexdigest()[:40]

    @property
    def inner_registry_login(self) -> tuple[str, str]:
        """User and password of the registry behind the emulator, which are the emulator's own secret.

        The registry listens on the loopback interface, which other users of the machine reach too.
        """
        return "emulator", hashlib.sha256(f"registry {self.client_secret}".encode()).hexdigest()[:40]

    @property
    def discovery_ticket(self) -> str:
        """What the address of the discovery has in it that users are given.

        Discovery is asked without a token, and tells who has this the page's key.
        """
        return hashlib.sha256(f"discovery {self.client_secret}".encode()).hexdigest()[:40]


def open_installation(folder: Path, *, workspace_name: str, resource_group: str) -> Installation:
    """Return the installation of a folder, made with random keys where there is none.

    The names are those of the first start: what was stored under them stays reachable.

    :raises StorageError: the folder cannot be written.
    :raises InputError: its state cannot be read.
    """
    make_private_folder(folder)
    path = folder / "state.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        made = _make(folder, workspace_name, resource_group)
        write_private(path, json.dumps(_as_json(made), indent=2) + "\n")
        return made
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=str(path)) from None
    try:
        return _from_json(folder, json.loads(text))
    except (ValueError, KeyError, TypeError):
        hint = "'himl-container emulator reset' makes a new emulator; everything in the old one is lost."
        raise InputError("this is not the state of an emulator", where=str(path), hint=hint) from None


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner may open.

    :raises StorageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        hint = "Choose another folder with --data-dir."
        raise StorageError(f"cannot write: {error.strerror}", where=str(folder), hint=hint) from None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write: {error.strerror}", where=str(path)) from None


def _make(folder: Path, workspace_name: str, resource_group: str) -> Installation:
    short_id = secrets.token_hex(4)
    workspace = Workspace(
        tenant_id=str(uuid.uuid4()),
        subscription_id=str(uuid.uuid4()),
        resource_group=resource_group,
        name=workspace_name,
        workspace_id=str(uuid.uuid4()),
        storage_account=f"himl{short_id}",
        registry=f"himl{short_id}",
        key_vault=f"himl-{short_id}",
    )
    return Installation(
        folder=folder,
        short_id=short_id,
        workspace=workspace,
        client_id=str(uuid.uuid4()),
        object_id=str(uuid.uuid4()),
        client_secret=secrets.token_urlsafe(30),
        storage_key=base64.b64encode(secrets.token_bytes(64)).decode(),
        registry_passwords=(secrets.token_urlsafe(30), secrets.token_urlsafe(30)),
    )


def _as_json(made: Installation) -> dict[str, Any]:
    value = {**asdict(made), "version": _VERSION}
    del value["folder"]
    return value


def _from_json(folder: Path, value: dict[str, Any]) -> Installation:
    if value.pop("version") != _VERSION or not _HEX.fullmatch(value["short_id"]):
        raise ValueError
    first, second = value.pop("registry_passwords")
    return Installation(
        folder=folder, workspace=Workspace(**value.pop("workspace")), registry_passwords=(first, second), **value
    )
