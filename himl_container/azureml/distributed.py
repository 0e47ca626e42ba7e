"""Several processes and several machines: who is who, meeting points, and how PyTorch finds the other machines.

Nothing here imports torch: a process in which it was never imported cannot have set up ``torch.distributed``.

A rank is told by whoever started the process. Variables that may be set at the same time: AzureML's MPI starts one
process for each machine (``OMPI_COMM_WORLD_*`` by OpenMPI, ``PMI_*`` by Intel's MPI), which then starts one for each
GPU, by torchrun (``RANK``, ``LOCAL_RANK``, ``GROUP_RANK``) or Lightning (``NODE_RANK``, ``LOCAL_RANK``; its first
process gets ``LOCAL_RANK=0`` from version 2 on, and had none before).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from himl_container.azureml.constants import (
    DEFAULT_MASTER_PORT,
    ENV_AZ_BATCHAI_MPI_MASTER_NODE,
    ENV_GLOBAL_RANK,
    ENV_LOCAL_RANK,
    ENV_MASTER_ADDR,
    ENV_MASTER_IP,
    ENV_MASTER_PORT,
    ENV_NODE_RANK,
    ENV_OMPI_COMM_WORLD_RANK,
)

_log = logging.getLogger(__name__)

_MPI_LOCAL_SIZE = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
_MPI_RANK = (ENV_OMPI_COMM_WORLD_RANK, "PMI_RANK")
_LOCAL_RANKS = (ENV_LOCAL_RANK, "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
_OTHER_RANKS = (ENV_GLOBAL_RANK, "RANK", ENV_NODE_RANK, "GROUP_RANK", *_MPI_RANK)


def set_environment_variables_for_multi_node() -> None:
    """Set ``MASTER_ADDR``, ``MASTER_PORT`` and ``NODE_RANK`` from what AzureML's MPI gives, for PyTorch to use.

    Without these settings this is a job of one machine, and nothing is set. A ``MASTER_PORT`` that is there stays; the
    rank of the machine is that of its MPI process (divided by the processes of a machine, where there are several).
    """
    address = os.environ.get(ENV_AZ_BATCHAI_MPI_MASTER_NODE) or os.environ.get(ENV_MASTER_IP)
    if not address:
        _log.info("No settings for the MPI central node found. Assuming that this is a single node training job.")
        return
    os.environ[ENV_MASTER_ADDR] = address
    os.environ.setdefault(ENV_MASTER_PORT, str(DEFAULT_MASTER_PORT))
    rank = _node_rank(os.environ)
    if rank is not None:
        os.environ[ENV_NODE_RANK] = rank
    shown = "not set" if rank is None else rank
    port = os.environ[ENV_MASTER_PORT]
    print(  # noqa: T201  # hi-ml prints this line, and tools look for it
        f"Distributed training: MASTER_ADDR = {address}, MASTER_PORT = {port}, NODE_RANK = {shown}"
    )


def is_local_rank_zero() -> bool:
    """Whether this is the first process of its machine, or the only one.

    Where only a rank among all processes is known (``GLOBAL_RANK``, ``RANK``), the process is the machine's first one
    if it is the first of all.
    """
    known = [os.environ[name] for name in _LOCAL_RANKS if os.environ.get(name)]
    if not known:
        known = [os.environ[name] for name in (ENV_GLOBAL_RANK, "RANK") if os.environ.get(name)]
    return all(map(_is_zero, known))


def is_global_rank_zero() -> bool:
    """Whether this is the first of all processes on all machines, or the only one.

    ``torch.distributed`` is asked where it is set up; else every rank that the environment tells must be 0.
    """
    distributed = _distributed()
    if distributed is not None:
        return bool(distributed.get_rank() == 0)
    names = (*_LOCAL_RANKS, *_OTHER_RANKS)
    return all(_is_zero(os.environ[name]) for name in names if os.environ.get(name))


def torch_barrier() -> None:
    """Wait for all processes of a distributed PyTorch job; return at once where ``torch.distributed`` is not set up."""
    distributed = _distributed()
    if distributed is None:
        _log.debug("torch.distributed is not set up in this process: there is nobody to wait for.")
        return
    distributed.barrier()


def _distributed() -> Any:
    """Return ``torch.distributed`` where it is set up, else None."""
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed
    return None


def _node_rank(environ: Mapping[str, str]) -> str | None:
    for name, size in zip(_MPI_RANK, _MPI_LOCAL_SIZE, strict=True):
        rank, processes = environ.get(name, ""), environ.get(size, "")
        if rank.isdecimal():
            return str(int(rank) // int(processes)) if processes.isdecimal() and int(processes) > 1 else rank
    return environ.get(ENV_NODE_RANK) or None


def _is_zero(rank: str) -> bool:
    return rank.strip() == "0"
