"""Which Docker daemon to talk to: the rules of the ``docker`` command, without the Docker SDK.

``DOCKER_HOST`` decides; else ``DOCKER_CONTEXT``; else ``currentContext`` of the client's ``config.json``; else the
default socket (``docker help context``, and the layout of the ``contexts`` folder beside ``config.json``).
Only the standard library is imported, because every build asks this first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from himl_container.errors import EngineError

DEFAULT_HOST = "unix:///var/run/docker.sock"
START_HINT = (
    "Start the daemon ('sudo systemctl start docker', 'sudo dockerd &' where there is no systemd, or the application "
    "Docker Desktop), or point DOCKER_HOST or 'docker context use' at one that runs."
)


class Endpoint(NamedTuple):
    """The address of a daemon.

    :param url: ``unix://``, ``tcp://``, ``ssh://`` or ``npipe://``.
    :param source: what named it, for messages.
    :param tls_folder: folder with ``ca.pem``, ``cert.pem`` and ``key.pem``; None for a connection without TLS.
    :param tls_verify: whether the daemon's certificate is checked.
    """

    url: str
    source: str
    tls_folder: Path | None = None
    tls_verify: bool = True

    @property
    def socket_path(self) -> str:
        """The path of the unix socket, or empty for another kind of address."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else ""

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead Docker's own programs to this daemon, whatever their context says."""
        values = {"DOCKER_HOST": self.url}
        if self.tls_folder is not None:
            values["DOCKER_CERT_PATH"] = str(self.tls_folder)
            values["DOCKER_TLS_VERIFY"] = "1" if self.tls_verify else ""
        return values

    def __str__(self) -> str:
        return f"{self.url} ({self.source})"


def resolve_endpoint(environ: Mapping[str, str]) -> Endpoint:
    """Return the daemon's address as the ``docker`` command would choose it.

    :raises EngineError: the chosen context does not exist or is damaged.
    """
    host = environ.get("DOCKER_HOST", "")
    if host:
        # Verification is on exactly when the variable is not empty; a folder alone switches TLS on without it.
        folder = environ.get("DOCKER_CERT_PATH", "")
        verify = environ.get("DOCKER_TLS_VERIFY", "") != ""
        tls = verify or (folder != "" and "DOCKER_TLS_VERIFY" in environ)
        tls_folder = (Path(folder) if folder else config_folder(environ)) if tls else None
        return Endpoint(_normalised(host), "DOCKER_HOST", tls_folder, verify)
    name, source = environ.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT"
    if not name:
        name, source = _current_context(environ), "the current Docker context"
    if name in ("", "default"):
        return Endpoint(DEFAULT_HOST, "the default socket")
    return _from_context(name, source, environ)


def config_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the Docker client's ``config.json``."""
    folder = environ.get("DOCKER_CONFIG", "")
    if folder:
        return Path(folder)
    home = environ.get("HOME", "")
    return (Path(home) if home else Path.home()) / ".docker"


def _normalised(host: str) -> str:
    if "://" in host:
        return host
    return f"unix://{host}" if host.startswith("/") else f"tcp://{host}"


def _current_context(environ: Mapping[str, str]) -> str:
    try:
        value = json.loads((config_folder(environ) / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""  # no configuration; a damaged one is reported by Docker's own programs, which own the file
    name = value.get("currentContext", "") if isinstance(value, dict) else ""
    return name if isinstance(name, str) else ""


def _from_context(name: str, source: str, environ: Mapping[str, str]) -> Endpoint:
    folder = config_folder(environ) / "contexts"
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "meta" / key / "meta.json"
    try:
        docker = json.loads(meta.read_bytes())["Endpoints"]["docker"]
        host, verify = str(docker["Host"]), not docker.get("SkipTLSVerify", False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"the Docker context {name!r} does not exist or cannot be read ({source} names it)",
            where=str(meta),
            hint="'docker context ls' lists the contexts; 'docker context use default' goes back to the socket.",
        ) from error
    tls = folder / "tls" / key / "docker"
    return Endpoint(_normalised(host), f"the Docker context {name!r}", tls if tls.is_dir() else None, verify)
