"""A Docker daemon beside the machine's own that reaches the emulator, set up as ``docs/emulator.md`` says."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

CERTIFICATES = Path("/etc/docker/certs.d")


def missing() -> str:
    """Return an empty text, or why a second daemon cannot run here."""
    if os.environ.get("HIML_TEST_ENGINE_NETWORK", "") != "own":
        return "has no network namespace of its own, and would take away the bridge of this machine's"
    if os.geteuid() != 0:
        return "needs root"
    return "" if shutil.which("dockerd") and shutil.which("docker") else "needs dockerd"


@contextlib.contextmanager
def certificates_of(host: str, authority: Path) -> Iterator[None]:
    """Let the daemons of this machine trust a registry of a random name."""
    folder = CERTIFICATES / host
    folder.mkdir(parents=True)
    try:
        shutil.copy(authority, folder / "ca.crt")
        yield
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def daemon(environ: Mapping[str, str]) -> Iterator[str]:
    """Run a daemon that only pulls and pushes; gives the value for ``DOCKER_HOST``.

    :param environ: more variables of its process: its proxy.
    """
    # The path of a unix socket may have 107 bytes, so the folder is a short one.
    folder = Path(tempfile.mkdtemp(prefix="himl-d-", dir="/var/tmp"))
    options = [
        *("--config-file", str(folder / "daemon.json"), "--data-root", str(folder / "data")),
        *("--exec-root", str(folder / "exec"), "--pidfile", str(folder / "d.pid")),
        *("--host", f"unix://{folder}/d.sock", "--group", "0", "--bridge", "none"),
        *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
    ]
    (folder / "daemon.json").write_text("{}")
    log = folder / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["dockerd", *options],
            stdout=output,
            stderr=output,
            env={**os.environ, **environ},
            start_new_session=True,
        )
    try:
        _wait(folder / "d.sock", process, log)
        yield f"unix://{folder}/d.sock"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((one for one in mounts if one.startswith(f"{folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.sock.connect(str(path))
            connection.request("GET", "/_ping")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the second daemon did not start:\n{log.read_text(errors='replace')[-2000:]}")
