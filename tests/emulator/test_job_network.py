"""The door for jobs: who comes in, and what they get."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from uvicorn import Config

from himl_container.emulator.certificates import Authority
from himl_container.emulator.hosts import Hosts
from himl_container.emulator.installation import Installation, open_installation
from himl_container.emulator.job_network import JobNetwork
from himl_container.emulator.proxy import Proxy
from himl_container.image.endpoint import Endpoint, resolve_endpoint

if TYPE_CHECKING:
    import docker

pytestmark = [pytest.mark.emulator, pytest.mark.docker]


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    import docker

    with contextlib.closing(docker.DockerClient(base_url=resolve_endpoint(os.environ).url)) as found:
        yield found


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return open_installation(tmp_path / "data", workspace_name="ws", resource_group="group")


@pytest.fixture
def network(installation: Installation) -> Iterator[JobNetwork]:
    """A bridge on whose address a proxy listens, as in a running emulator."""

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"page"})

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    settings = Config(page, lifespan="off", log_config=None)
    proxy = Proxy(settings, Authority(installation.folder), Hosts(installation.workspace))

    def listen(address: str, peers: ipaddress.IPv4Network) -> int:
        async def serve() -> int:
            door = socket.create_server((address, 0))
            proxy.listen(door, peers)
            return int(door.getsockname()[1])

        return asyncio.run_coroutine_threadsafe(serve(), loop).result()

    found = JobNetwork(installation, lambda: resolve_endpoint(os.environ), listen)
    try:
        yield found
    finally:
        found.close()
        asyncio.run_coroutine_threadsafe(proxy.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _said(client: docker.DockerClient, image: str, network: str, proxy: str, words: str) -> str:
    """The first line that a container hears when it says something to the proxy; empty where it is sent away."""
    host, _, port = proxy.removeprefix("http://").partition(":")
    # Bash writes line by line, and would die of the second where the door was shut after the first.
    talk = f'exec 3<>/dev/tcp/{host}/{port} && printf "{words}" >&3 && read -r -t 20 line <&3'
    script = f'trap "" PIPE; {talk}; echo "$line"'
    output = client.containers.run(image, ["bash", "-c", script], network=network, remove=True, stderr=False)
    return bytes(output).decode().strip()


_CONNECT = r"CONNECT management.azure.com:443 HTTP/1.1\r\n\r\n"


def test_containers_of_the_network_come_in_and_others_do_not(
    network: JobNetwork, client: docker.DockerClient, base_image: str
) -> None:
    way = network.way()
    assert _said(client, base_image, way.network, way.proxy, _CONNECT) == "HTTP/1.1 200 Connection established"
    assert _said(client, base_image, "bridge", way.proxy, _CONNECT) == ""
    # Jobs get Azure's services, not the page.
    request = r"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert _said(client, base_image, way.network, way.proxy, request) == "HTTP/1.1 403 Forbidden"


def test_a_network_that_was_pruned_is_made_again(
    network: JobNetwork, client: docker.DockerClient, installation: Installation, base_image: str
) -> None:
    first = network.way()
    assert network.way() == first
    client.networks.get(installation.network).remove()
    again = network.way()
    assert again.network == first.network
    assert _said(client, base_image, again.network, again.proxy, _CONNECT) == "HTTP/1.1 200 Connection established"


def test_a_network_of_a_killed_emulator_is_taken_over_and_removed_at_the_end(
    network: JobNetwork, client: docker.DockerClient, installation: Installation
) -> None:
    client.networks.create(installation.network, driver="bridge")
    assert network.way().network == installation.network
    assert len(client.networks.list(names=[f"^{installation.network}$"])) == 1
    network.close()
    assert client.networks.list(names=[f"^{installation.network}$"]) == []


def test_a_network_of_a_killed_emulator_is_removed_by_one_that_runs_no_jobs(
    network: JobNetwork, client: docker.DockerClient, installation: Installation
) -> None:
    network.way()
    asked: list[str] = []

    def endpoint() -> Endpoint:
        asked.append("daemon")
        return resolve_endpoint(os.environ)

    def listen(address: str, peers: ipaddress.IPv4Network) -> int:
        raise AssertionError("no job needs it")

    JobNetwork(installation, endpoint, listen).close()
    assert client.networks.list(names=[f"^{installation.network}$"]) == []
    assert asked == ["daemon"]
    JobNetwork(installation, endpoint, listen).close()
    assert asked == ["daemon"]  # nothing is left, so nobody is asked
