"""Checks of Docker: the daemon, BuildKit, its disk, GPUs, and who can read its logins."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from himl_container.doctor.host import space
from himl_container.doctor.model import Finding
from himl_container.errors import HimlError

_GPU_DEVICE = Path("/proc/driver/nvidia/version")
"""Of NVIDIA's kernel driver; there where it is loaded."""


class Daemon(Protocol):
    """What is asked of a daemon (:class:`himl_container.image.engine_client.Client`)."""

    api_version: str

    def json(self, doing: str, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Return the JSON answer to a GET."""


def checks(environ: Mapping[str, str], *, connect: Callable[[], Daemon] | None = None) -> Iterator[Finding]:
    """Yield what is found of Docker."""
    yield login_file(environ)
    try:
        daemon = (connect or _connect(environ))()
        system: dict[str, Any] = daemon.json("ask what it is", "/info") or {}
    except HimlError as error:
        yield Finding(
            "docker engine",
            "error",
            f"{error.where}: {error.what}" if error.where else error.what,
            "Nothing can be built into a daemon or run.",
            error.hint or "Start Docker, or set DOCKER_HOST to where it listens.",
        )
        return
    yield Finding("docker engine", "ok", _words(system, daemon.api_version))
    yield buildkit(environ)
    yield from _space(system)
    yield gpus(system, has_device=_GPU_DEVICE.exists())


def buildkit(environ: Mapping[str, str]) -> Finding:
    """Check for BuildKit, which builds the system part."""
    from himl_container.image.engine_build import find_buildx

    found = find_buildx(environ)
    if found:
        return Finding("buildkit", "ok", str(found))
    return Finding(
        "buildkit",
        "warning",
        "docker buildx is not installed",
        "Packages of 'apt' and lines of 'system-lines' are built by Docker's classic builder, which is slower.",
        "Install buildx (docker-buildx-plugin of Docker's repositories).",
    )


def gpus(system: Mapping[str, Any], *, has_device: bool) -> Finding:
    """Check that containers get the GPUs that the machine has.

    :param system: the daemon's own description (``GET /info``).
    """
    runtime = "nvidia" in (system.get("Runtimes") or {})
    if runtime and has_device:
        return Finding("gpu runtime", "ok", "NVIDIA runtime")
    if runtime:
        means = "Runs start without a GPU."
        fix = "If there is a GPU, install its driver."
        return Finding("gpu runtime", "warning", "NVIDIA runtime, but no driver on this machine", means, fix)
    if has_device:
        means = "Containers do not see the GPU of this machine."
        fix = "Install nvidia-container-toolkit, run 'nvidia-ctk runtime configure --runtime=docker', restart Docker."
        return Finding("gpu runtime", "warning", "a GPU, but Docker has no NVIDIA runtime", means, fix)
    return Finding(
        "gpu runtime", "skipped", "no NVIDIA GPU on this machine", "Runs here have no GPU; those in Azure may."
    )


def login_file(environ: Mapping[str, str]) -> Finding:
    """Check that nobody else can read the passwords in Docker's ``config.json``."""
    from himl_container.image.endpoint import config_folder

    path = config_folder(environ) / "config.json"
    try:
        mode = path.stat().st_mode
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Finding("docker logins", "skipped", f"no {path}", "Nobody is logged in to a registry through Docker.")
    except (OSError, ValueError) as error:
        means = "Docker and we find no login in it."
        return Finding("docker logins", "warning", f"{path} cannot be read: {_why(error)}", means, "Mend or remove it.")
    logins = found.get("auths") if isinstance(found, dict) else None
    secrets = [host for host, entry in (logins or {}).items() if isinstance(entry, dict) and entry.get("auth")]
    if secrets and mode & (stat.S_IRGRP | stat.S_IROTH):

        def repair() -> str:
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o077)
            return f"made {path} readable for you alone"

        return Finding(
            "docker logins",
            "warning",
            f"{path} has passwords ({', '.join(sorted(secrets))}) and others can read it",
            "Whoever has an account on this machine can push under your name.",
            f"chmod 600 {path}",
            repair if os.access(path, os.W_OK) else None,
        )
    return Finding("docker logins", "ok", f"{path}" + (f" ({', '.join(sorted(secrets))})" if secrets else ""))


def _space(system: Mapping[str, Any]) -> Iterator[Finding]:
    root = Path(str(system.get("DockerRootDir") or "/nowhere"))
    # A daemon elsewhere, or in a virtual machine, has its folder there.
    if root.is_dir():
        yield space("space for docker", root)
    else:
        yield Finding("space for docker", "skipped", f"{root} is not on this machine")


def _words(system: Mapping[str, Any], api_version: str) -> str:
    stored = ["driver-type", "io.containerd.snapshotter.v1"] in (system.get("DriverStatus") or [])
    store = "containerd image store" if stored else "classic image store"
    version, machine = system.get("ServerVersion", "?"), system.get("Architecture", "?")
    return f"{version} (API {api_version}, {machine}, {store})"


def _connect(environ: Mapping[str, str]) -> Callable[[], Daemon]:
    def connect() -> Daemon:
        from himl_container.image.endpoint import resolve_endpoint
        from himl_container.image.engine_client import Client

        return Client.connect(resolve_endpoint(environ))

    return connect


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not JSON"
