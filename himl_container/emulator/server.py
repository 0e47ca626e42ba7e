"""One emulator as a running process: its children, its sockets, from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from himl_container.emulator.children import Children, azurite, registry
from himl_container.emulator.config import EmulatorConfig
from himl_container.emulator.folder import RUNNING, lock_folder
from himl_container.emulator.installation import Installation, open_installation, write_private
from himl_container.emulator.processes import identify
from himl_container.errors import LaunchError

log = logging.getLogger("himl_container.emulator")


@dataclass(frozen=True)
class Ready:
    """An emulator that answers.

    :param seconds: that the start took.
    """

    folder: Path
    port: int
    seconds: float


def serve(folder: Path, config: EmulatorConfig, port: int, on_ready: Callable[[Ready], None]) -> None:
    """Run an emulator until it is told to stop (SIGTERM, SIGINT).

    :param port: on the loopback interface; 0 for a free one.
    :param on_ready: called once it answers.
    :raises InputError: something that it needs is not installed, or its state cannot be read.
    :raises LaunchError: another emulator runs in this folder, the port is taken, or a child does not start.
    """
    began = time.monotonic()
    installation = open_installation(folder, workspace_name=config.workspace, resource_group=config.resource_group)

    def ready(port: int) -> None:
        on_ready(Ready(folder, port, time.monotonic() - began))

    with lock_folder(folder):
        children = Children(folder)
        for name in children.end_leftovers():
            log.info("%s of an emulator that was killed has been ended", name)
        try:
            with contextlib.closing(_listen(port)) as sock:
                # Children first: they start while this process imports and makes certificates. And they are tied to the
                # thread that started them, which is the main one.
                for program in (azurite(installation, config), registry(installation, config)):
                    children.start(program)
                asyncio.run(_run(installation, config, children, sock, on_ready=ready))
        finally:
            (folder / RUNNING).unlink(missing_ok=True)
            children.close()


async def _run(
    installation: Installation,
    config: EmulatorConfig,
    children: Children,
    sock: socket.socket,
    *,
    on_ready: Callable[[int], None],
) -> None:
    # Imported here: the children start meanwhile.
    from uvicorn import Config

    from himl_container.emulator.app import Surroundings, build
    from himl_container.emulator.asgi import EmulatorApp
    from himl_container.emulator.azurite_blobs import AzuriteBlobs
    from himl_container.emulator.certificates import Authority
    from himl_container.emulator.forward import Forwarder
    from himl_container.emulator.hosts import Hosts
    from himl_container.emulator.proxy import Proxy

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port: int = sock.getsockname()[1]
    authority = Authority(installation.folder)
    storage, images = (f"http://127.0.0.1:{children.port(name)}" for name in ("azurite", "registry"))
    blobs = AzuriteBlobs(installation, storage)
    hosts = Hosts(installation.workspace)
    application = build(installation, config, Surroundings(blobs, images, f"http://127.0.0.1:{port}"))
    application.closers.insert(0, blobs.close)
    forwarders = Forwarder(storage), Forwarder(images)
    app = EmulatorApp(application, hosts, *forwarders)
    # Connections are kept for longer than any client does, so that none is closed while a request is on its way.
    settings = Config(app, timeout_keep_alive=300, lifespan="off", log_config=None, access_log=False)
    settings.server_header = False
    proxy = Proxy(settings, authority, hosts, config.allow_hosts)
    try:
        proxy.listen(sock)
        _announce(installation, port)
        on_ready(port)
        await _until(stop, children)
    finally:
        log.info("stopping")
        await proxy.close()
        # Jobs end here, and say so to the storage, which is still there.
        await asyncio.to_thread(application.close)
        for forwarder in forwarders:
            await forwarder.close()


async def _until(stop: asyncio.Event, children: Children) -> None:
    """Wait until somebody wants the emulator to stop.

    :raises LaunchError: a child ended by itself.
    """
    while not stop.is_set():
        name = children.ended()
        if name is not None:
            raise LaunchError(f"{name} has ended by itself", hint=f"Its log is {name}.log in the emulator's folder.")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), 1)


def _listen(port: int) -> socket.socket:
    """Return a listening socket of the loopback interface, and of no other.

    :raises LaunchError: the port is taken.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen(512)
    except OSError as error:
        sock.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "is taken" if error.errno == errno.EADDRINUSE else "may not be used"
            hint = "Choose another with --port, or 0 for any that is free."
            raise LaunchError(f"port {port} of 127.0.0.1 {why}", hint=hint) from None
        raise LaunchError(f"cannot listen on port {port}: {error.strerror}") from None
    return sock


def _announce(installation: Installation, port: int) -> None:
    """Write down who serves this folder and where, and what a client of the SDK reads."""
    process = identify(os.getpid())
    running = {"pid": process.pid, "began": process.began, "port": port}
    write_private(installation.folder / RUNNING, json.dumps(running))
    write_private(installation.folder / "port", f"{port}\n")
    workspace = installation.workspace
    names = {"subscription_id": workspace.subscription_id, "resource_group": workspace.resource_group}
    text = json.dumps({**names, "workspace_name": workspace.name}, indent=2) + "\n"
    write_private(installation.folder / "config.json", text)
