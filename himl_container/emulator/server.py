"""One emulator as a running process: its children, its sockets, from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from himl_container.emulator.children import Children
from himl_container.emulator.config import EmulatorConfig
from himl_container.emulator.folder import RUNNING, lock_folder
from himl_container.emulator.installation import Installation, open_installation, write_private
from himl_container.emulator.processes import identify
from himl_container.emulator.programs import azurite, registry
from himl_container.errors import LaunchError
from himl_container.image.endpoint import resolve_endpoint

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
    from himl_container.emulator.job_network import JobNetwork
    from himl_container.emulator.proxy import Proxy

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port: int = sock.getsockname()[1]
    authority = Authority(installation.folder, roots=bool(config.allow_hosts))
    storage, images = (f"http://127.0.0.1:{children.port(name)}" for name in ("azurite", "registry"))
    blobs = AzuriteBlobs(installation, storage)
    hosts = Hosts(installation.workspace)

    def listen(address: str, peers: ipaddress.IPv4Network) -> int:
        async def serve_peers() -> int:
            door = _listen_there(address, port)
            proxy.listen(door, peers)
            return int(door.getsockname()[1])

        return asyncio.run_coroutine_threadsafe(serve_peers(), loop).result()

    network = JobNetwork(installation, lambda: resolve_endpoint(os.environ), listen)
    around = Surroundings(blobs, images, f"http://127.0.0.1:{port}", network.way)
    application = build(installation, config, around)
    # Last of all, when no job uses them any more.
    application.closers[:0] = [blobs.close, network.close]
    forwarders = Forwarder(storage), Forwarder(images, installation.inner_registry_login)
    app = EmulatorApp(application, hosts, *forwarders)
    # Connections are kept for longer than any client does, so that none is closed while a request is on its way.
    settings = Config(app, timeout_keep_alive=300, lifespan="off", log_config=None, access_log=False)
    settings.server_header = False
    proxy = Proxy(settings, authority, hosts, config.allow_hosts)
    try:
        application.start()
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
            log.error("%s has ended by itself", name)
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


def _listen_there(address: str, port: int) -> socket.socket:
    """Return a listening socket of another address of this machine, on the same port if that is free there."""
    for number in (port, 0):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, number))
            sock.listen(512)
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE or not number:
                raise
        else:
            return sock
    raise AssertionError("a free port is always tried last")


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
