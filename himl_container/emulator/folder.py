"""The emulator's folder as seen from outside: does one run there, and with which variables does a client reach it?"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from himl_container.emulator.installation import BUNDLE, ROOTS, Installation, make_private_folder, open_installation
from himl_container.emulator.processes import ProcessId
from himl_container.errors import LaunchError
from himl_container.outside import OUTSIDE, noted

RUNNING = "running.json"
CONFIG = "emulator.toml"
LOG = "emulator.log"
_LOCK = "emulator.lock"
_HERE = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Running:
    """An emulator that serves a folder."""

    process: ProcessId
    port: int


def default_folder() -> Path:
    """Return where an emulator lives when nobody says otherwise."""
    import platformdirs

    return Path(platformdirs.user_data_dir("himl-container", appauthor=False)) / "emulator"


def find_running(folder: Path) -> Running | None:
    """Return the emulator that serves a folder; None where none does, or it has not got so far."""
    try:
        value = json.loads((folder / RUNNING).read_text(encoding="utf-8"))
        found = Running(ProcessId(int(value["pid"]), str(value["began"])), int(value["port"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.process.alive() else None


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep a folder for this process. The lock ends with the process, however it ends.

    :raises LaunchError: another process has it.
    """
    make_private_folder(folder)
    with (folder / _LOCK).open("a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = find_running(folder)
            at = f" at port {running.port}" if running else ""
            hint = "'himl-container emulator stop' stops it; --data-dir names another folder for a second one."
            raise LaunchError(f"an emulator runs in this folder already{at}", where=str(folder), hint=hint) from None
        yield


def last_port(folder: Path) -> int:
    """Return the port of the last start, which addresses in clients' caches lead to; 0 where there was none."""
    try:
        return int((folder / "port").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def existing(folder: Path) -> Installation:
    """Return the installation of a folder in which an emulator was started before.

    :raises LaunchError: there is none.
    """
    if not (folder / "state.json").exists():
        hint = "'himl-container emulator start' starts one."
        raise LaunchError("there is no emulator in this folder", where=str(folder), hint=hint)
    return open_installation(folder, workspace_name="", resource_group="")


def client_variables(installation: Installation, port: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which the SDK, Azure's other libraries and curl reach an emulator.

    :param environ: the client's present variables; what it says of hosts without a proxy is kept. What is replaced is
        told, for whoever has to reach others (:mod:`himl_container.outside`).
    :raises InputError: it has such a note, and it is damaged.
    """
    folder, workspace = installation.folder, installation.workspace
    address = f"http://127.0.0.1:{port}"
    direct = [item for item in environ.get("no_proxy", environ.get("NO_PROXY", "")).split(",") if item]
    # Hosts that are reached without the emulator have certificates that others have signed.
    bundle = str(folder / (BUNDLE if set(direct) <= {*_HERE, "::1"} else ROOTS))
    direct += [item for item in _HERE if item not in direct]
    values = {
        # rslex, the native part of azureml-dataprep, reads the small names only, and https_proxy only beside no_proxy.
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), address),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(direct)),
        # requests and azure-core read the first; Python's ssl, aiohttp and rslex the second; curl the third.
        **dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"), bundle),
        "MSI_ENDPOINT": f"{address}/metadata/identity/{installation.managed_identity_secret}/oauth2/token",
        "HIML_EMULATOR_CONFIG": str(folder / "config.json"),
        OUTSIDE: noted(workspace.registry_host, environ),
    }
    principal = {
        "TENANT_ID": workspace.tenant_id,
        "ID": installation.client_id,
        "PASSWORD": installation.client_secret,
    }
    azure = {"ID": "CLIENT_ID", "PASSWORD": "CLIENT_SECRET"}
    for name, value in principal.items():
        values[f"AZUREML_SERVICE_PRINCIPAL_{name}"] = value
        values[f"AZURE_{azure.get(name, name)}"] = value
    return values
