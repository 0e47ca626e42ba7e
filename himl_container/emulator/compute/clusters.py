"""The compute targets of a workspace, from the emulator's configuration file.

::

    [clusters.gpu-low]
    vm-size = "STANDARD_NC6"
    max-nodes = 4
    priority = "lowpriority"
    preempt-seed = 7
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from himl_container.emulator.compute.model import Cluster
from himl_container.errors import InputError
from himl_container.launch.parse import parse_gpus, parse_size
from himl_container.launch.spec import MAX_NODES

NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]{0,22}[A-Za-z0-9])?", re.ASCII)
"""Name of a cluster, which becomes part of addresses and paths."""

DEFAULT_CLUSTERS = (
    Cluster("cpu-cluster", max_nodes=4),
    Cluster("low-priority", max_nodes=4, priority="lowpriority"),
)
"""What a workspace has without a configuration file."""

PRIORITIES = ("dedicated", "lowpriority")
_KEYS = (
    *("vm-size", "min-nodes", "max-nodes", "priority", "gpus", "memory"),
    *("location", "idle-seconds", "preempt-seed"),
)


def clusters_of(tables: Mapping[str, object], where: str) -> tuple[Cluster, ...]:
    """Return the clusters of named tables.

    :raises InputError: something in them is not a cluster.
    """
    found = tuple(_cluster(name, table, f"{where} [{name}]") for name, table in tables.items())
    if not found:
        raise InputError("there is no cluster in it", where=where)
    names = [cluster.name.lower() for cluster in found]
    if len(set(names)) < len(names):
        raise InputError("two clusters have the same name", where=where)
    return found


def check(cluster: Cluster, where: str) -> Cluster:
    """Return a cluster that can work.

    :raises InputError: a field is unusable.
    """
    if not NAME.fullmatch(cluster.name) or cluster.name.lower() in ("local", "amlcompute", "containerinstance"):
        raise InputError(
            f"{cluster.name!r} cannot be the name of a cluster",
            where=where,
            hint="Use 1 to 24 letters, digits and '-', a letter first; 'local' and 'amlcompute' are AzureML's own.",
        )
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", cluster.vm_size):
        raise InputError(f"{cluster.vm_size!r} is not the name of a machine's size", where=where)
    if not 0 <= cluster.min_nodes <= cluster.max_nodes <= MAX_NODES or not cluster.max_nodes:
        raise InputError(f"a cluster has 1 to {MAX_NODES} nodes, and at least min-nodes", where=where)
    if cluster.priority not in PRIORITIES:
        raise InputError(f"priority is one of {', '.join(PRIORITIES)}", where=where)
    if cluster.preempt_seed is not None and cluster.priority != "lowpriority":
        raise InputError("only clusters of low priority are preempted", where=where)
    return cluster


def _cluster(name: str, table: object, where: str) -> Cluster:
    if not isinstance(table, Mapping):
        raise InputError("this is not a table", where=where)
    for key in table:
        if key not in _KEYS:
            raise InputError(f"unknown key {key!r}", where=where, hint=f"Known keys: {', '.join(_KEYS)}.")
    cluster = Cluster(name)
    for key, value in table.items():
        cluster = _with(cluster, key.replace("-", "_"), value, f"{where} {key}")
    return check(cluster, where)


def _with(cluster: Cluster, field: str, value: object, where: str) -> Cluster:
    if field == "gpus":
        return replace(cluster, gpus=parse_gpus(str(value), where))
    if field == "memory":
        return replace(cluster, memory=parse_size(str(value), where))
    wanted = int if field in ("min_nodes", "max_nodes", "idle_seconds", "preempt_seed") else str
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise InputError("this must be a " + ("whole number" if wanted is int else "text"), where=where)
    return replace(cluster, **{field: value.lower() if field == "priority" and isinstance(value, str) else value})  # type: ignore[arg-type]
