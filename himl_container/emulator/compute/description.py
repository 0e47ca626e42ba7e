"""From a job's request to what :mod:`himl_container.launch` runs: one description for a job and for ``run --local``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from himl_container.emulator.compute import run_script
from himl_container.emulator.compute.definition import JobRequest
from himl_container.emulator.compute.model import Cluster, JobInput, JobOutput
from himl_container.launch.containers import RUN_LABEL, ContainerConfig, Mount
from himl_container.launch.layout import Layout, lay_out, mpi_variables
from himl_container.launch.nodes import mounts_of, node_config
from himl_container.launch.spec import Dataset, ImageRef, LaunchSpec, friendly_name

EMULATOR_LABEL = "himl-container.emulator"
"""Label of every container of a job; its value is the workspace's id."""

DEFAULT_GRACE = 30.0
"""Seconds between asking a job to end and killing it, where the job does not say."""
GRACE_VARIABLES = ("AZUREML_RUN_KILL_SIGNAL_TIMEOUT_SEC", "AZUREML_RUN_KILL_SIGNAL_TIMEOUT")

TORCH_PORT = 6105
TENSORFLOW_PORT = 2222

RUN_SCRIPT = "/etc/himl-emulator/run_script.py"
"""Where a container finds the runner of scripts (:mod:`himl_container.emulator.compute.run_script`)."""

_PLACEHOLDER = re.compile(
    r"\$AZUREML_DATAREFERENCE_(?P<reference>\w+)|Dataset(?:Consumption|Output)Config:(?P<name>\w+)", re.ASCII
)
# bash where the image has it, as in AzureML's own images; the command is an argument, never part of the script.
# Standard error goes where standard output goes: the log has both, and through two pipes their order would be lost.
_SHELL = ("/bin/sh", "-c", 'exec 2>&1; command -v bash >/dev/null && exec bash -c "$1"; exec /bin/sh -c "$1"', "sh")
_HOLD = ("/bin/sh", "-c", 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done')


@dataclass(frozen=True)
class JobDescription:
    """A job that is ready to start.

    :param job: name of the job in paths and containers, letters and digits.
    :param values: what the names of inputs and outputs stand for in arguments.
    """

    run_id: str
    job: str
    request: JobRequest
    spec: LaunchSpec
    layout: Layout
    values: Mapping[str, str]

    @property
    def processes(self) -> int:
        """How many processes the job has, on all nodes."""
        return self.request.nodes * self.request.processes


def job_name(run_id: str) -> str:
    """Return the name of a job in paths: 32 letters and digits, as AzureML's are."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:32]


def describe(
    run_id: str,
    request: JobRequest,
    *,
    image: str,
    interpreter: str,
    inputs: tuple[JobInput, ...],
    outputs: tuple[JobOutput, ...],
    files: Mapping[str, str],
    cluster: Cluster,
) -> JobDescription:
    """Return the description of a job.

    :param files: inputs that are a single file: its name in the input's folder.
    :raises InputError: names or paths of data contradict each other.
    """
    laid_out = [item for item in inputs if item.mode != "direct"]
    spec = LaunchSpec(
        name=friendly_name(run_id),
        image=ImageRef(image, image),
        command=("true",),  # replaced below, when the places of the data are known
        # Without it, what Python prints would come in blocks of 8 KB, as no terminal reads it.
        environment=tuple(sorted({"PYTHONUNBUFFERED": "1", **dict(request.environment)}.items())),
        datasets=tuple(Dataset(item.name, item.path, item.name, item.mode) for item in laid_out),
        outputs=tuple(Dataset(item.name, item.path, item.name, item.mode) for item in outputs),
        shm_size=request.shm_size,
        gpus=cluster.gpus,
        nodes=request.nodes,
        max_duration=request.max_duration,
    )
    job = job_name(run_id)
    layout = lay_out(spec, job)
    # A single file's variable has the path of the file; the folder around it is what is mounted.
    values = {
        place.name: f"{place.path}/{files[place.name]}" if place.name in files else place.path
        for place in (*layout.datasets, *layout.outputs)
    }
    values.update({item.name: item.value for item in inputs if item.mode == "direct"})
    command = (*_SHELL, _replaced(request.command, values, quote=True)) if request.command else ()
    spec = replace(
        spec,
        command=command or _script(interpreter, request.script),
        arguments=() if command else tuple(_replaced(word, values) for word in request.arguments),
    )
    return JobDescription(run_id, job, request, spec, layout, values)


def data_variables(inputs: tuple[JobInput, ...], values: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a job's inputs that the layout alone does not know: ids of direct ones, single files."""
    found: dict[str, str] = {}
    for item in inputs:
        found[item.name] = found[f"AZURE_ML_INPUT_{item.name}"] = values[item.name]
        found[f"AZUREML_DATAREFERENCE_{item.name}"] = values[item.name]
    if inputs:
        # Data references have no dataset behind them, so run.input_datasets does not have them.
        datasets = [f"{item.name}:{item.mode}" for item in inputs if item.dataset_id]
        found["AZUREML_DATASET_ENVIRONMENT_VARS"] = ",".join(datasets)
    return found


def containers(
    description: JobDescription,
    *,
    attempt: int,
    work: Mapping[int, Path],
    folder: Path,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    mounts: Mapping[Path, str],
    variables: Mapping[str, str],
    gpus: str,
    memory: int,
    network: str,
    labels: Mapping[str, str],
) -> tuple[tuple[ContainerConfig, ...], dict[int, ContainerConfig]]:
    """Return the containers of one start: first those that hold a node together, then the process of each rank.

    A node with one process is one container. Several processes of a node share its network and its shared memory, which
    belong to a container that does nothing else.

    :param work: the working folder of each node; :param mounts: further files, read-only.
    :param variables: what the platform tells every process; it wins over what the user set.
    """
    spec, request = description.spec, description.request
    all_mounts = {**mounts, Path(run_script.__file__): RUN_SCRIPT}
    further = tuple(Mount(source, target, read_only=True) for source, target in sorted(all_mounts.items()))
    hosts = tuple(f"node-{node}-{description.job[:8]}" for node in range(request.nodes))
    holders: list[ContainerConfig] = []
    ranks: dict[int, ContainerConfig] = {}
    for rank in range(description.processes):
        node, local = divmod(rank, request.processes)
        config = node_config(
            spec,
            description.layout,
            description.run_id,
            rank=rank,
            attempt=attempt,
            mounts=(
                *mounts_of(
                    spec,
                    description.layout,
                    work=work[node],
                    run_folder=folder,
                    dataset_folders=inputs,
                    output_folders=outputs,
                ),
                *further,
            ),
            gpus=gpus,
            memory=memory,
            launcher=launcher_variables(request, rank, hosts),
        )
        config = replace(
            config,
            name=f"himl-{description.job[:16]}-{attempt}-{rank}",
            environment=tuple(sorted({**dict(config.environment), **variables}.items())),
            network=network,
            hostname=hosts[node] if request.nodes > 1 else "",
            labels={**labels, RUN_LABEL: description.run_id},
        )
        if request.processes > 1:
            holder = replace(
                config,
                name=f"himl-{description.job[:16]}-{attempt}-node-{node}",
                command=_HOLD,
                mounts=(),
                environment=(),
                working_dir="/",
                gpus="none",
                ipc="shareable",
            )
            if local == 0:
                holders.append(holder)
            shared = f"container:{holder.name}"
            config = replace(config, network=shared, ipc=shared, hostname="")
        ranks[rank] = config
    return tuple(holders), ranks


def launcher_variables(request: JobRequest, rank: int, hosts: tuple[str, ...]) -> dict[str, str]:
    """Return what AzureML's launcher tells a process of several.

    For PyTorch these are the variables of ``torch.distributed``'s ``env://``, for TensorFlow ``TF_CONFIG``.
    """
    if request.launcher == "pytorch":
        node, local = divmod(rank, request.processes)
        return {
            "AZUREML_NODE_COUNT": str(request.nodes),
            "LOCAL_RANK": str(local),
            "MASTER_ADDR": hosts[0] if len(hosts) > 1 else "127.0.0.1",
            "MASTER_PORT": str(TORCH_PORT),
            "NODE_RANK": str(node),
            "RANK": str(rank),
            "WORLD_SIZE": str(request.nodes * request.processes),
        }
    if request.launcher == "tensorflow":
        workers = [f"{host}:{TENSORFLOW_PORT}" for host in hosts]
        task = {"type": "worker", "index": rank}
        config = {"cluster": {"worker": workers}, "task": task, "environment": "cloud"}
        return {"AZUREML_NODE_COUNT": str(request.nodes), "TF_CONFIG": json.dumps(config)}
    return mpi_variables(rank, request.nodes, request.processes, hosts)


def grace(environment: Mapping[str, str]) -> float:
    """Return how many seconds a job has to end when it is asked to."""
    for name in GRACE_VARIABLES:
        text = environment.get(name, "").strip()
        if re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
            return float(text)
    return DEFAULT_GRACE


def _script(interpreter: str, script: str) -> tuple[str, ...]:
    """Return the command of a script: by the runner, where the interpreter is a Python."""
    if PurePosixPath(interpreter).name.startswith("python"):
        return interpreter, RUN_SCRIPT, script
    return interpreter, script


def _replaced(text: str, values: Mapping[str, str], *, quote: bool = False) -> str:
    """Put paths in the place of names of inputs and outputs; a name that is none stays as it is."""
    from shlex import quote as quoted

    def path(match: re.Match[str]) -> str:
        name = match["reference"] or match["name"]
        if name not in values:
            return match[0]
        return quoted(values[name]) if quote else values[name]

    return _PLACEHOLDER.sub(path, text)
