"""Ranks as MPI, torchrun and Lightning tell them, and barriers without torch."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from himl_container.azureml import distributed
from himl_container.azureml.distributed import (
    is_global_rank_zero,
    is_local_rank_zero,
    set_environment_variables_for_multi_node,
    torch_barrier,
)

_RANKS = [
    "LOCAL_RANK",
    "GLOBAL_RANK",
    "NODE_RANK",
    "RANK",
    "GROUP_RANK",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "PMI_RANK",
    "MPI_LOCALRANKID",
    "MPI_LOCALNRANKS",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "MASTER_IP",
    "AZ_BATCHAI_MPI_MASTER_NODE",
]


class Environ:
    """Sets the variables of a process, and only those."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def __call__(self, **values: str | int) -> None:
        for name in _RANKS:
            self._patch.delenv(name, raising=False)
        for name, value in values.items():
            self._patch.setenv(name, str(value))


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Environ:
    # Setting and deleting makes monkeypatch put back what the functions themselves set.
    for name in _RANKS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(distributed, "_distributed", lambda: None)
    return Environ(monkeypatch)


@pytest.mark.parametrize(
    ("values", "local", "everywhere"),
    [
        ({}, True, True),
        # Lightning: the first process has no local rank before version 2, and 0 from then on
        ({"LOCAL_RANK": 0, "NODE_RANK": 0}, True, True),
        ({"LOCAL_RANK": 1, "NODE_RANK": 0}, False, False),
        ({"LOCAL_RANK": 0, "NODE_RANK": 1}, True, False),
        ({"NODE_RANK": 1}, True, False),
        ({"NODE_RANK": ""}, True, True),
        # torchrun, two machines of two processes
        ({"RANK": 0, "LOCAL_RANK": 0, "GROUP_RANK": 0}, True, True),
        ({"RANK": 1, "LOCAL_RANK": 1, "GROUP_RANK": 0}, False, False),
        ({"RANK": 2, "LOCAL_RANK": 0, "GROUP_RANK": 1}, True, False),
        # AzureML's MPI: one process for each machine, with and without Lightning below it
        ({"OMPI_COMM_WORLD_RANK": 0, "OMPI_COMM_WORLD_LOCAL_RANK": 0}, True, True),
        ({"OMPI_COMM_WORLD_RANK": 1, "OMPI_COMM_WORLD_LOCAL_RANK": 0}, True, False),
        ({"OMPI_COMM_WORLD_RANK": 1, "OMPI_COMM_WORLD_LOCAL_RANK": 0, "LOCAL_RANK": 3}, False, False),
        ({"PMI_RANK": 1, "MPI_LOCALRANKID": 0}, True, False),
        ({"PMI_RANK": 1, "MPI_LOCALRANKID": 1}, False, False),
        # only a rank among all
        ({"GLOBAL_RANK": 0}, True, True),
        ({"GLOBAL_RANK": 1}, False, False),
        ({"RANK": 1}, False, False),
    ],
)
def test_ranks(environ: Environ, values: dict[str, Any], local: bool, everywhere: bool) -> None:
    environ(**values)
    assert (is_local_rank_zero(), is_global_rank_zero()) == (local, everywhere)


def test_torch_knows_best(monkeypatch: pytest.MonkeyPatch, environ: Environ) -> None:
    environ()
    monkeypatch.setattr(distributed, "_distributed", lambda: SimpleNamespace(get_rank=lambda: 1))
    assert is_local_rank_zero()
    assert not is_global_rank_zero()


def test_one_machine(environ: Environ, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    environ(NODE_RANK=3)
    with caplog.at_level("INFO"):
        set_environment_variables_for_multi_node()
    assert (
        "No settings for the MPI central node found. Assuming that this is a single node training job." in caplog.text
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"AZ_BATCHAI_MPI_MASTER_NODE": "a", "MASTER_IP": "b", "OMPI_COMM_WORLD_RANK": 1}, "a 6105 1"),
        ({"MASTER_IP": "b", "OMPI_COMM_WORLD_RANK": 0, "MASTER_PORT": 77}, "b 77 0"),
        ({"MASTER_IP": "b", "OMPI_COMM_WORLD_RANK": 5, "OMPI_COMM_WORLD_LOCAL_SIZE": 4}, "b 6105 1"),
        ({"MASTER_IP": "b", "OMPI_COMM_WORLD_RANK": 2, "OMPI_COMM_WORLD_LOCAL_SIZE": 1}, "b 6105 2"),
        ({"MASTER_IP": "b", "PMI_RANK": 2}, "b 6105 2"),
        ({"MASTER_IP": "b", "NODE_RANK": 4}, "b 6105 4"),
        ({"MASTER_IP": "b"}, "b 6105 not set"),  # hi-ml ended with a KeyError
    ],
)
def test_several_machines(
    environ: Environ, capsys: pytest.CaptureFixture[str], values: dict[str, Any], shown: str
) -> None:
    environ(**values)
    set_environment_variables_for_multi_node()
    address, port, rank = shown.split(" ", 2)
    line = f"Distributed training: MASTER_ADDR = {address}, MASTER_PORT = {port}, NODE_RANK = {rank}\n"
    assert capsys.readouterr().out == line
    import os

    assert os.environ["MASTER_ADDR"] == address
    assert os.environ["MASTER_PORT"] == port
    assert os.environ.get("NODE_RANK", "not set") == rank


def test_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    fake = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, barrier=lambda: called.append("barrier")
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(distributed=fake))
    torch_barrier()
    assert called == ["barrier"]
    fake.is_initialized = lambda: False
    torch_barrier()
    fake.is_available = lambda: False
    torch_barrier()
    monkeypatch.setitem(sys.modules, "torch", None)
    torch_barrier()
    assert called == ["barrier"]


def test_nothing_imports_torch() -> None:
    program = (
        "import sys; from himl_container.azureml.distributed import *; torch_barrier(); is_global_rank_zero(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
