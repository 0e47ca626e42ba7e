"""The way from a job's container to the emulator: a bridge of Docker's, on whose address here the proxy listens too."""

from __future__ import annotations

import ipaddress
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from himl_container.emulator.installation import Installation
from himl_container.errors import EngineError, LaunchError
from himl_container.image.docker_http import DockerHttp, segment
from himl_container.image.endpoint import Endpoint

log = logging.getLogger("himl_container.emulator")

Listen = Callable[[str, ipaddress.IPv4Network], int]
"""Serves an address of this machine to a subnet's containers, and returns the port."""

_LABEL = "himl-container.emulator"
_MARK = "job-network"
"""In the emulator's folder while there is a bridge, so that an emulator that runs no jobs removes what a killed one
left, and asks no daemon otherwise."""


@dataclass(frozen=True)
class Way:
    """How a container reaches the emulator: which network it joins, and the proxy's address there."""

    network: str
    proxy: str


class JobNetwork:
    """The emulator's own bridge. It is made when the first job needs it, and removed at the end.

    :param endpoint: finds the daemon, only when a job needs it.
    :param listen: opens the proxy to the bridge; called again only where the bridge has got another address.
    """

    def __init__(self, installation: Installation, endpoint: Callable[[], Endpoint], listen: Listen) -> None:
        self._name, self._id = installation.network, installation.short_id
        self._mark = installation.folder / _MARK
        self._endpoint, self._listen = endpoint, listen
        self._ports: dict[str, int] = {}
        self._lock = threading.Lock()

    def way(self) -> Way:
        """Return the way, made where it is missing.

        :raises EngineError: the daemon does not answer, or gives no network.
        :raises LaunchError: the daemon is not on this machine, so that its bridge has no address here.
        """
        with self._lock:
            # Asked each time: 'docker network prune' takes away what no container uses at that moment.
            gateway, subnet = self._find() or self._make()
            if gateway not in self._ports:
                try:
                    self._ports[gateway] = self._listen(gateway, subnet)
                except OSError as error:
                    hint = "Jobs need a Docker Engine on this machine itself (Linux)."
                    what = f"cannot listen on {gateway}, the address of the network {self._name}: {error.strerror}"
                    raise LaunchError(what, where=str(self._endpoint()), hint=hint) from None
            return Way(self._name, f"http://{gateway}:{self._ports[gateway]}")

    def close(self) -> None:
        """Remove the bridge, if there is one that nobody uses."""
        with self._lock:
            if not self._ports and not self._mark.exists():
                return
            try:
                answer = DockerHttp(self._endpoint()).request("DELETE", f"/networks/{segment(self._name)}")
            except EngineError as error:
                log.warning("the network %s is left behind: %s", self._name, error.what)
                return
            if answer.status not in (204, 404):
                log.warning("the network %s is left behind: %s", self._name, answer.message)
                return
            self._mark.unlink(missing_ok=True)

    def _find(self) -> tuple[str, ipaddress.IPv4Network] | None:
        answer = DockerHttp(self._endpoint()).request("GET", f"/networks/{segment(self._name)}")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise EngineError(f"the Docker daemon did not describe its network {self._name}: {answer.message}")
        found = answer.json()
        for item in (found.get("IPAM") or {}).get("Config") or ():
            subnet = ipaddress.ip_network(item["Subnet"], strict=False)
            if isinstance(subnet, ipaddress.IPv4Network):
                # A daemon that chose the subnet itself may not say the gateway, which is its first address.
                gateway = str(item.get("Gateway") or next(iter(subnet.hosts()))).partition("/")[0]
                return gateway, subnet
        raise EngineError(f"the network {self._name} has no address: {json.dumps(found.get('IPAM'))}")

    def _make(self) -> tuple[str, ipaddress.IPv4Network]:
        self._mark.touch()
        body = {"Name": self._name, "CheckDuplicate": True, "Driver": "bridge", "Labels": {_LABEL: self._id}}
        answer = DockerHttp(self._endpoint()).request("POST", "/networks/create", body=body)
        if answer.status not in (201, 409):
            raise EngineError(f"the Docker daemon gave no network for the emulator's jobs: {answer.message}")
        found = self._find()
        if found is None:
            raise EngineError(f"the network {self._name} has gone as soon as it was made")
        return found
