"""Compute targets as the SDK reads them (``core/compute/amlcompute.py``): the clusters of the configuration file."""

from __future__ import annotations

from typing import Any, Protocol

from himl_container.emulator.compute.model import Cluster
from himl_container.emulator.compute.scheduler import Occupied
from himl_container.emulator.http import Answer, Request, json_answer
from himl_container.emulator.names import Workspace
from himl_container.emulator.routes import Host, Route
from himl_container.emulator.state.runs import iso

_TEST = "tests/emulator/test_jobs.py::test_compute_targets"
_LOCATIONS = "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}"


class Targets(Protocol):
    """What the service asks of the compute (:class:`himl_container.emulator.compute.scheduler.LocalCompute`)."""

    def clusters(self) -> tuple[Cluster, ...]:
        """Return the compute targets."""

    def cluster(self, name: str) -> Cluster:
        """Return a compute target by name."""

    def occupied(self, name: str) -> Occupied:
        """Return what a cluster is doing."""


class ComputeService:
    """Tells of the compute targets. They are made by the configuration file alone.

    :param created: when the workspace was made, seconds since the epoch.
    """

    def __init__(self, workspace: Workspace, compute: Targets, created: float) -> None:
        self._workspace, self._compute, self._created = workspace, compute, created

    def routes(self) -> tuple[Route, ...]:
        """Return what the service answers."""
        places: tuple[tuple[Host, str], ...] = (
            ("api", "/rp/workspaces/{ws}/computes"),
            ("arm", "/{ws}/computes"),
            # The SDK joins an address that ends in a slash and a path that begins with one.
            ("arm", "//{ws}/computes"),
        )
        found = []
        for host, path in places:
            found += [
                Route("GET", path, self.list_targets, "Compute.List", _TEST, host),
                Route("GET", path + "/{name}", self.get_target, "Compute.Get", _TEST, host),
                Route("POST", path + "/{name}/listNodes", self.list_nodes, "Compute.ListNodes", _TEST, host),
            ]
        sizes = Route(
            "GET",
            _LOCATIONS + "/vmSizes",
            self.list_sizes,
            "Compute.ListVmSizes",
            _TEST,
            "arm",
            how="approximated",
            note="the sizes of the workspace's own clusters, with this machine's processors and memory",
        )
        return (*found, sizes)

    def list_targets(self, request: Request) -> Answer:
        """Return all compute targets."""
        return json_answer({"value": [self._document(cluster) for cluster in self._compute.clusters()]})

    def get_target(self, request: Request) -> Answer:
        """Return one compute target."""
        return json_answer(self._document(self._compute.cluster(request.params["name"])))

    def list_nodes(self, request: Request) -> Answer:
        """Return the nodes that a cluster has now, with what runs on them."""
        cluster = self._compute.cluster(request.params["name"])
        occupied = self._compute.occupied(cluster.name)
        runs = [run_id for run_id, nodes in occupied.running.items() for _ in range(nodes)]
        count = max(cluster.min_nodes, len(runs))
        nodes = [
            {
                "nodeId": f"tvmps_{cluster.name}_{number}",
                "privateIpAddress": f"10.0.0.{4 + number}",
                "publicIpAddress": None,
                "port": 50000 + number,
                "nodeState": "running" if number < len(runs) else "idle",
                "runId": runs[number] if number < len(runs) else None,
            }
            for number in range(count)
        ]
        return json_answer({"nodes": nodes})

    def list_sizes(self, request: Request) -> Answer:
        """Return sizes of machines."""
        import os

        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
        sizes = sorted({cluster.vm_size for cluster in self._compute.clusters()})
        items = [
            {
                "name": size,
                "vCPUs": os.cpu_count() or 1,
                "gpus": 0,
                "memoryGB": round(memory, 1),
                "maxResourceVolumeMB": 0,
            }
            for size in sizes
        ]
        return json_answer({"amlCompute": items})

    def _document(self, cluster: Cluster) -> dict[str, Any]:
        """Return a cluster; the SDK's reader wants ``subnet`` and the credentials, and no ``identity`` that is null."""
        occupied = self._compute.occupied(cluster.name)
        running = sum(occupied.running.values())
        current = max(cluster.min_nodes, running)
        created = iso(self._created)
        return {
            "id": f"/{self._workspace.path}/computes/{cluster.name}",
            "name": cluster.name,
            "location": cluster.location,
            "type": "Microsoft.MachineLearningServices/workspaces/computes",
            "tags": {},
            "properties": {
                "computeType": "AmlCompute",
                "computeLocation": cluster.location,
                "description": "Docker on this machine",
                "createdOn": created,
                "modifiedOn": created,
                "resourceId": None,
                "provisioningState": "Succeeded",
                "provisioningErrors": None,
                "isAttachedCompute": False,
                "properties": {
                    "vmSize": cluster.vm_size,
                    "vmPriority": "LowPriority" if cluster.priority == "lowpriority" else "Dedicated",
                    "scaleSettings": {
                        "minNodeCount": cluster.min_nodes,
                        "maxNodeCount": cluster.max_nodes,
                        "nodeIdleTimeBeforeScaleDown": f"PT{cluster.idle_seconds}S",
                    },
                    "allocationState": "Steady",
                    "allocationStateTransitionTime": created,
                    "currentNodeCount": current,
                    "targetNodeCount": current,
                    "nodeStateCounts": {
                        "idleNodeCount": current - running,
                        "leavingNodeCount": 0,
                        "preemptedNodeCount": 0,
                        "preparingNodeCount": 0,
                        "runningNodeCount": running,
                        "unusableNodeCount": 0,
                    },
                    "errors": None,
                    "subnet": None,
                    "userAccountCredentials": {"adminUserName": "azureuser"},
                    "remoteLoginPortPublicAccess": "NotSpecified",
                    "osType": "Linux",
                },
            },
        }
