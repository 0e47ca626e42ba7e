"""What a script finds inside its container, as AzureML lays it out: paths and variables, as plain data.

Paths as AzureML's job runtime has them: the working directory is ``/mnt/azureml/cr/j/<job>/exe/wd``, data lie below
``/mnt/azureml/cr/j/<job>/cap/data-capability/wd``. Datasets carry hi-ml's names (``INPUT_0``, ``OUTPUT_0``, by their
place in the list) and the variables that the AzureML SDK sets for these (``data/context_managers.py``); the names by
which a user speaks of them are not told to the job in AzureML, and so not here.

``AZUREML_ARM_*``, ``AZUREML_SERVICE_ENDPOINT`` and ``AZUREML_RUN_TOKEN`` are left out on purpose: with them
``Run.get_context()`` would try to reach a service; without them it answers with the SDK's offline run, by which
``is_running_in_azure_ml`` (hi-ml) tells that it is not in the cloud.
"""

from __future__ import annotations

from dataclasses import dataclass

from himl_container.launch.spec import Dataset, LaunchSpec

JOB_ROOT = "/mnt/azureml/cr/j"
MPI_PORT = 6000


@dataclass(frozen=True)
class Place:
    """Where a dataset lies inside, and under which variable the script may ask for it."""

    name: str
    path: str
    variable: str
    mode: str = "mount"


@dataclass(frozen=True)
class Layout:
    """The inside of a run's containers."""

    working_dir: str
    datasets: tuple[Place, ...]
    outputs: tuple[Place, ...]


def lay_out(spec: LaunchSpec, job: str) -> Layout:
    """Return the places of a run.

    :param job: the job's name in paths, letters and digits.
    """
    root = f"{JOB_ROOT}/{job}"
    data = f"{root}/cap/data-capability/wd"
    return Layout(
        working_dir=spec.working_dir or f"{root}/exe/wd",
        datasets=_places(spec.datasets, "INPUT", data),
        outputs=_places(spec.outputs, "OUTPUT", data),
    )


def job_variables(spec: LaunchSpec, layout: Layout, run_id: str) -> dict[str, str]:
    """Return the variables that every node gets; the user's own win."""
    values = {"AZUREML_RUN_ID": run_id}
    for prefix, places in (("AZURE_ML_INPUT", layout.datasets), ("AZURE_ML_OUTPUT", layout.outputs)):
        for place in places:
            values[place.variable] = place.path
            values[f"{prefix}_{place.variable}"] = place.path
            values[f"AZUREML_DATAREFERENCE_{place.variable}"] = place.path
    if layout.datasets:
        modes = (f"{place.variable}:{place.mode}" for place in layout.datasets)
        values["AZUREML_DATASET_ENVIRONMENT_VARS"] = ",".join(modes)
    if layout.outputs:
        values["AZUREML_DATASET_FILE_OUTPUTS"] = ";".join(place.variable for place in layout.outputs)
    return {**values, **dict(spec.environment)}


def node_host(rank: int) -> str:
    """Return the host name of a node on the run's own network."""
    return f"node-{rank}"


def mpi_variables(rank: int, nodes: int, processes: int = 1, hosts: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what AzureML's MPI launcher tells a process; nothing where there is only one.

    :param rank: among all processes; those of one node follow each other.
    :param processes: of each node.
    :param hosts: the nodes' names; empty for those of :func:`node_host`.

    Not ``MASTER_ADDR`` or ``NODE_RANK``: AzureML does not set them for MPI jobs, hi-ml's
    ``set_environment_variables_for_multi_node`` does, and a script that forgets to call it should fail here too.
    """
    if nodes * processes == 1:
        return {}
    node, local = divmod(rank, processes)
    hosts = hosts or tuple(node_host(other) for other in range(nodes))
    master = hosts[0]
    return {
        "AZ_BATCHAI_MPI_MASTER_NODE": master,
        "AZ_BATCHAI_TASK_INDEX": str(node),
        "AZ_BATCH_HOST_LIST": ",".join(hosts),
        "AZ_BATCH_MASTER_NODE": f"{master}:{MPI_PORT}",
        "AZ_BATCH_NODE_LIST": ";".join(hosts),
        "AZUREML_NODE_COUNT": str(nodes),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(processes),
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(nodes * processes),
    }


def _places(items: tuple[Dataset, ...], prefix: str, root: str) -> tuple[Place, ...]:
    places = []
    for index, item in enumerate(items):
        variable = item.variable or f"{prefix}_{index}"
        places.append(Place(item.name, item.mount_path.rstrip("/") or f"{root}/{variable}", variable, item.mode))
    return tuple(places)
