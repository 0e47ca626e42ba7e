"""A Docker daemon beside the machine's own that reaches the emulator, set up as ``docs/emulator-registry.md`` says.

It has a network namespace of its own. In this machine's it would remove the bridge of the daemon that is already
running (``dockerd --bridge none`` deletes ``docker0``). The emulator's port is carried into the namespace by a relay,
through a unix socket; this file, run as a program, is the relay's inner end and starts the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

CERTIFICATES = Path("/etc/docker/certs.d")
_NAMESPACE = Path("/proc/self/ns/net")


def missing() -> str:
    """Return an empty text, or why a second daemon cannot run here."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [tool for tool in ("dockerd", "docker", "unshare", "ip") if shutil.which(tool) is None]
    return f"needs {', '.join(lacking)}" if lacking else ""


@contextlib.contextmanager
def certificates_of(host: str, authority: Path) -> Iterator[None]:
    """Let the daemons of this machine trust a registry of a random name."""
    made = not CERTIFICATES.exists()
    folder = CERTIFICATES / host
    folder.mkdir(parents=True)
    try:
        shutil.copy(authority, folder / "ca.crt")
        yield
    finally:
        shutil.rmtree(folder)
        if made:
            with contextlib.suppress(OSError):  # another test has put something there meanwhile
                CERTIFICATES.rmdir()


@contextlib.contextmanager
def daemon(port: int) -> Iterator[str]:
    """Run a daemon that only pulls and pushes; gives the value for ``DOCKER_HOST``.

    :param port: of this machine, the emulator's; the daemon's proxy is there.
    """
    from engines import quick_folder  # not there for this file as a program

    with quick_folder("himl-d-") as folder:
        yield from _daemon(folder, port)


def _daemon(folder: Path, port: int) -> Iterator[str]:
    options = [
        *("--config-file", str(folder / "daemon.json"), "--data-root", str(folder / "data")),
        *("--exec-root", str(folder / "exec"), "--pidfile", str(folder / "d.pid")),
        *("--host", f"unix://{folder}/d.sock", "--group", "0", "--bridge", "none"),
        *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
    ]
    (folder / "daemon.json").write_text("{}")
    log = folder / "dockerd.log"
    proxy = {"HTTPS_PROXY": f"http://127.0.0.1:{port}", "NO_PROXY": "127.0.0.1,localhost"}
    inner = [sys.executable, __file__, str(_NAMESPACE.readlink()), str(port), str(folder / "r.sock")]
    with _outer_end(folder / "r.sock", port), log.open("wb") as output:
        process = subprocess.Popen(
            ["unshare", "--net", "--", *inner, "dockerd", *options],
            stdout=output,
            stderr=output,
            env={**os.environ, **proxy},
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
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


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


# --- the relay ---


@contextlib.contextmanager
def _outer_end(path: Path, port: int) -> Iterator[None]:
    """Listen on a unix socket for as long as the context, and connect whoever comes with a port of this machine."""
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, *await asyncio.open_connection("127.0.0.1", port))

    def serve() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(asyncio.start_unix_server(connect, str(path)))
        ready.set()
        loop.run_forever()

    thread = threading.Thread(target=serve, name="relay", daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)


async def _inner_end(port: int, path: str, command: list[str]) -> int:
    """Listen on the port inside the namespace, and run the daemon to its end."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, *await asyncio.open_unix_connection(path))

    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = await asyncio.start_server(connect, "127.0.0.1", port)
    process = await asyncio.create_subprocess_exec(*command)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, process.terminate)
    code = await process.wait()
    server.close()
    return code


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other_reader: asyncio.StreamReader,
    other_writer: asyncio.StreamWriter,
) -> None:
    await asyncio.gather(_copy(reader, other_writer), _copy(other_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


def _main(machine: str, port: str, path: str, *command: str) -> int:
    if str(_NAMESPACE.readlink()) == machine:
        print("This is the machine's own network: a daemon here would remove the bridge of the one that is running.")
        return 1
    return asyncio.run(_inner_end(int(port), path, list(command)))


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
