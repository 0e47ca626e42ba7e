"""The containers of one start of a run, one per node, and the network between several of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from himl_container.errors import HimlError
from himl_container.launch.containers import RUN_LABEL, ContainerConfig, Containers, Mount
from himl_container.launch.layout import Layout, job_variables, mpi_variables, node_host
from himl_container.launch.spec import LaunchSpec

_INIT = {"TINI_KILL_PROCESS_GROUP": "1"}
"""The container's init process passes a signal on to a command's children too, not to its shell alone."""


def container_name(run_id: str, rank: int, attempt: int) -> str:
    """Return the name of a node's container. Known before it exists, so that it can always be removed."""
    return f"himl-{run_id}-{rank}" + (f"-retry{attempt}" if attempt else "")


def network_name(spec: LaunchSpec, run_id: str) -> str:
    """Return the name of the run's own network; empty for a single node, which needs none."""
    return f"himl-{run_id}" if spec.nodes > 1 else ""


def node_config(
    spec: LaunchSpec,
    layout: Layout,
    run_id: str,
    *,
    rank: int,
    attempt: int,
    mounts: tuple[Mount, ...],
    gpus: str,
    memory: int = 0,
    tty: bool = False,
    terminal: str = "",
    launcher: Mapping[str, str] | None = None,
) -> ContainerConfig:
    """Return the container of one node.

    :param mounts: in the order in which they are made: a folder before what lies inside of it.
    :param gpus: what ``spec.gpus`` means on this machine.
    :param terminal: the ``TERM`` of the user's terminal, where there is one.
    :param launcher: what the launcher of several processes tells this one; None for AzureML's MPI launcher with one
        process for each node.
    """
    told = mpi_variables(rank, spec.nodes) if launcher is None else launcher
    variables = {**_INIT, **told, **job_variables(spec, layout, run_id)}
    if tty and terminal:
        variables.setdefault("TERM", terminal)
    return ContainerConfig(
        name=container_name(run_id, rank, attempt),
        image=spec.image.id or spec.image.tag,
        command=(*spec.command, *spec.arguments),
        environment=tuple(sorted(variables.items())),
        mounts=mounts,
        working_dir=layout.working_dir,
        user=spec.user,
        shm_size=spec.shm_size,
        gpus=gpus,
        network=network_name(spec, run_id),
        hostname=node_host(rank) if spec.nodes > 1 else "",
        memory=memory,
        tty=tty,
        labels={RUN_LABEL: run_id},
    )


def mounts_of(
    spec: LaunchSpec,
    layout: Layout,
    *,
    work: Path,
    run_folder: Path,
    dataset_folders: Mapping[str, Path],
    output_folders: Mapping[str, Path],
) -> tuple[Mount, ...]:
    """Return the folders of a node: its working directory, what is kept of it, inputs and outputs.

    All nodes share ``outputs`` and ``logs``; in the cloud each has its own, and the run shows them as one. What AzureML
    downloads, a script may change.
    """
    inside = layout.working_dir
    return (
        Mount(work, inside),
        Mount(run_folder / "outputs", f"{inside}/{spec.output_folder}"),
        Mount(run_folder / "logs", f"{inside}/{spec.log_folder}"),
        *(Mount(dataset_folders[place.name], place.path, place.mode != "download") for place in layout.datasets),
        *(Mount(output_folders[place.name], place.path) for place in layout.outputs),
    )


@contextlib.contextmanager
def private_network(containers: Containers, name: str, run_id: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold the network of a run while its nodes live; nothing for an empty name.

    :raises LaunchError: the daemon refuses it.
    """
    if not name:
        yield
        return
    try:
        containers.create_network(name, {RUN_LABEL: run_id})
        yield
    finally:
        try:
            containers.remove_network(name)
        except HimlError as error:
            warn(f"the network {name} is left behind: {error.what}")
