"""A second, current Docker engine beside the machine's own: Debian 13's packages, unpacked, never installed.

``current_engine(containerd_store=...)`` starts containerd and dockerd with folders, socket and process ids of their own
and a network of their own, so that they share nothing with the engine that is already running but the kernel and
``runc``. Leaving the context ends both and removes everything that they made.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import lzma
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

KIT = Path(__file__).resolve().parent.parent / ".kit" / "engine26"
SUITE = "trixie"
PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "containerd")


@dataclass(frozen=True)
class CurrentEngine:
    """A running engine: its socket, its processes (for tests that kill it) and its folder."""

    socket: Path
    pid: int
    folder: Path

    @property
    def host(self) -> str:
        """The value for ``DOCKER_HOST``."""
        return f"unix://{self.socket}"

    @property
    def environ(self) -> dict[str, str]:
        """An environment in which Docker's clients find this engine and the unpacked ``buildx``."""
        return {**os.environ, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(docker_config())}

    def kill(self) -> None:
        """End dockerd at once, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def mirror() -> str:
    """The Debian mirror that this machine's apt uses, so that a private one is respected."""
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]
    for file in filter(Path.is_file, files):
        for line in file.read_text(encoding="utf-8").splitlines():
            found = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+/debian)/?\s", line)
            if found:
                return found[1]
    for file in sorted((etc / "sources.list.d").glob("*.sources")):
        found = re.search(r"^URIs:\s*(\S+/debian)/?\s*$", file.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    raise AssertionError("apt on this machine names no Debian mirror")


def unpacked() -> Path:
    """Return the folder of the unpacked packages, fetched when it is missing; each file is checked by its sha256."""
    root = KIT / "root"
    if root.is_dir():
        return root
    KIT.mkdir(parents=True, exist_ok=True)
    base = mirror()
    with urllib.request.urlopen(f"{base}/dists/{SUITE}/main/binary-amd64/Packages.xz", timeout=60) as answer:
        index = lzma.decompress(answer.read()).decode()
    with tempfile.TemporaryDirectory(dir=KIT) as name:
        new = Path(name) / "root"
        for package in PACKAGES:
            stanza = re.search(rf"^Package: {re.escape(package)}\n(.*?)\n\n", index, re.DOTALL | re.MULTILINE)
            assert stanza, f"{package} is not in {SUITE}"
            fields = dict(re.findall(r"^(Filename|SHA256): (\S+)$", stanza[1], re.MULTILINE))
            deb = Path(name) / f"{package}.deb"
            with urllib.request.urlopen(f"{base}/{fields['Filename']}", timeout=600) as answer:
                deb.write_bytes(answer.read())
            assert hashlib.sha256(deb.read_bytes()).hexdigest() == fields["SHA256"], f"{package}: damaged download"
            subprocess.run(["dpkg-deb", "-x", deb, new], check=True)
            deb.unlink()
        with contextlib.suppress(OSError):  # another test run was faster
            new.rename(root)
    return root


def buildx_plugin() -> Path:
    """Return the unpacked ``docker-buildx`` program."""
    return next(unpacked().glob("usr/*/docker/cli-plugins/docker-buildx"))


def docker_config() -> Path:
    """Return a Docker configuration folder (for ``DOCKER_CONFIG``) with the unpacked ``buildx`` in it."""
    folder = KIT / "docker-config"
    plugins = folder / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (plugins / "docker-buildx").symlink_to(buildx_plugin())
    return folder


def available() -> str:
    """Return an empty text, or why a second engine cannot run here."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in ("dpkg-deb", "runc") if shutil.which(tool) is None]
    return f"needs {', '.join(missing)}" if missing else ""


@contextlib.contextmanager
def quick_folder(prefix: str, disk: str = "") -> Iterator[Path]:
    """A folder for an engine: in memory, because an image has thousands of files, and a disk may need minutes to remove
    them. Needs root.

    :param disk: a folder of a disk to use instead.
    """
    # The path of a unix socket may have 107 bytes, so the folder is a short one.
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=disk or "/var/tmp"))
    try:
        if not disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8g,mode=700", "tmpfs", str(folder)], check=True)
        yield folder
    finally:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((one for one in mounts if f"{one}/".startswith(f"{folder}/")), key=len, reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def current_engine(*, containerd_store: bool) -> Iterator[CurrentEngine]:
    """Run an Engine 26.1 for the length of the context."""
    root = unpacked()
    environ = {**os.environ, "PATH": f"{root}/usr/bin:{root}/usr/sbin:{os.environ['PATH']}"}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(quick_folder("himl-e-", os.environ.get("HIML_TEST_ENGINE_DIR", "")))
        stack.callback(_end_shims, folder)
        _start(stack, folder, "containerd", [str(root / "usr/bin/containerd"), *_containerd_options(folder)], environ)
        _wait_for_socket(folder / "c.sock", folder / "containerd.log")
        options = _dockerd_options(folder, containerd_store=containerd_store)
        # A network namespace of its own, or it would take the bridge of the engine that is already running.
        command = ["unshare", "--net", "--", str(root / "usr/sbin/dockerd"), *options]
        process = _start(stack, folder, "dockerd", command, environ)
        engine = CurrentEngine(folder / "d.sock", process.pid, folder)
        _wait_for_ping(engine.socket, process, folder / "dockerd.log")
        yield engine


def _containerd_options(folder: Path) -> list[str]:
    config = folder / "containerd.toml"
    config.write_text(
        "version = 2\n"
        f'root = "{folder}/c-root"\nstate = "{folder}/c-state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs",\n'
        '  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]\n'
        f'[grpc]\naddress = "{folder}/c.sock"\n',
        encoding="utf-8",
    )
    return ["--config", str(config)]


def _dockerd_options(folder: Path, *, containerd_store: bool) -> list[str]:
    config = folder / "daemon.json"
    config.write_text(json.dumps({"features": {"containerd-snapshotter": containerd_store}}), encoding="utf-8")
    return [
        *("--config-file", str(config), "--containerd", str(folder / "c.sock")),
        *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        *("--pidfile", str(folder / "d.pid"), "--host", f"unix://{folder}/d.sock", "--group", "0"),
        *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
        "--userland-proxy=false",
    ]


def _start(
    stack: contextlib.ExitStack, folder: Path, name: str, command: list[str], environ: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    with open(folder / f"{name}.log", "wb") as log:
        # A session of its own: the test run's Ctrl-C is ours to handle, in the order of the stack.
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, start_new_session=True)
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_socket(path: Path, log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} does not answer:\n{_tail(log)}")


def _wait_for_ping(path: Path, process: subprocess.Popen[bytes], log: Path, seconds: float = 90) -> None:
    _wait_for_socket(path, log, seconds)
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("localhost", timeout=seconds)
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.sock.connect(str(path))
            connection.request("GET", "/_ping")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.02)
    raise AssertionError(f"the second engine did not start:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _end_shims(folder: Path) -> None:
    """End the container shims of a killed engine: those processes whose command line names our own folder."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{folder}/".encode() in command.read_bytes():
                os.kill(int(command.parent.name), signal.SIGKILL)
