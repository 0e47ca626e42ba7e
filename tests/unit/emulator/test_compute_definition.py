from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.emulator.compute.clusters import DEFAULT_CLUSTERS, check, clusters_of
from himl_container.emulator.compute.definition import read_definition, value
from himl_container.emulator.compute.description import data_variables, grace, job_name
from himl_container.emulator.compute.model import Cluster, JobInput
from himl_container.emulator.compute.queue import Waiting, choose
from himl_container.emulator.http import Refusal
from himl_container.errors import InputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "script",
    "command",
    "arguments",
    "nodeCount",
    "mpi",
    "pytorch",
    "framework",
    "communicator",
    "docker",
    "priority",
]
KEYS += ["environment", "environmentVariables", "maxRunDurationSeconds", "target", "tensorflow"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_whatever_is_sent_is_read_or_refused(definition: dict[str, Any]) -> None:
    try:
        request = read_definition(definition)
    except Refusal as refusal:
        assert refusal.status == 400
    else:
        assert request.nodes >= 1
        assert request.processes >= 1
        assert bool(request.script) != bool(request.command)


def test_names_in_every_spelling() -> None:
    for name in ("nodeCount", "node_count", "NodeCount"):
        assert read_definition({"script": "a.py", name: 3}).nodes == 3
    assert value({"nodeCount": None, "node_count": 2}, "nodeCount") == 2


def test_variables_of_the_run_win_over_those_of_the_environment() -> None:
    definition = {
        "script": "a.py",
        "environment": {"environmentVariables": {"A": "environment", "B": "environment"}},
        "environmentVariables": {"A": "run", "N": 3, "E": None},
    }
    assert read_definition(definition).environment == (("A", "run"), ("B", "environment"), ("E", ""), ("N", "3"))


def test_docker_arguments_that_change_only_the_job_are_done_and_others_named() -> None:
    arguments = ["--shm-size=1g", "--memory", "2g", "-e", "A=b", "--privileged", "-v", "/:/host", "--env", "HOME"]
    request = read_definition({"script": "a.py", "docker": {"arguments": arguments, "shmSize": "8g"}})
    assert (request.shm_size, request.memory, request.environment) == (1 << 30, 2 << 30, (("A", "b"),))
    assert [line.split("'")[1] for line in request.ignored] == ["--privileged", "-v /:/host"]


def test_shared_memory_of_the_environment_where_the_run_says_nothing() -> None:
    environment = {"docker": {"shmSize": "4g"}}
    assert read_definition({"script": "a.py", "environment": environment}).shm_size == 4 << 30


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"script": ""}, "neither a script nor a command"),
        ({"script": "../a.py"}, "path below the snapshot"),
        ({"script": "/a.py"}, "path below the snapshot"),
        ({"nodeCount": 0}, "between 1 and"),
        ({"nodeCount": True}, "whole number"),
        ({"nodeCount": 1000}, "between 1 and"),
        ({"arguments": "a b"}, "not a list"),
        ({"arguments": ["a\0b"]}, "NUL"),
        ({"environmentVariables": {"A B": "1"}}, "environment variable"),
        ({"docker": {"shmSize": "large"}}, "not a usable size"),
        ({"docker": []}, "not an object"),
        ({"docker": {"arguments": ["--memory"]}}, "has no value"),
        ({"framework": "PyTorch", "nodeCount": 2, "pytorch": {"processCount": 3}}, "divided"),
        ({"maxRunDurationSeconds": -1}, "between 0"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Refusal, match=words) as caught:
        read_definition({"script": "a.py", **changes})
    assert caught.value.status == 400


def test_processes() -> None:
    def shape(**definition: Any) -> tuple[int, int, str]:
        request = read_definition({"script": "a.py", **definition})
        return request.nodes, request.processes, request.launcher

    assert shape() == (1, 1, "mpi")
    assert shape(mpi={"processCountPerNode": 4}) == (1, 1, "mpi")  # no MPI was asked for
    assert shape(communicator="OpenMpi", mpi={"processCountPerNode": 4}, nodeCount=2) == (2, 4, "mpi")
    assert shape(framework="PyTorch", communicator="Nccl", nodeCount=2, pytorch={"processCount": None}) == (
        2,
        1,
        "pytorch",
    )
    tensorflow = {"workerCount": 3, "parameterServerCount": 1}
    assert shape(framework="TensorFlow", communicator="ParameterServer", tensorflow=tensorflow) == (3, 1, "tensorflow")


def test_the_time_to_end() -> None:
    assert grace({}) == 30
    assert grace({"AZUREML_RUN_KILL_SIGNAL_TIMEOUT_SEC": "900"}) == 900
    assert grace({"AZUREML_RUN_KILL_SIGNAL_TIMEOUT_SEC": "soon"}) == 30


@given(st.text(max_size=300))
def test_the_name_of_a_job_fits_into_a_path(run_id: str) -> None:
    assert set(job_name(run_id)) <= set(string.hexdigits)
    assert len(job_name(run_id)) == 32


def test_a_data_reference_is_no_dataset() -> None:
    values = data_variables((JobInput("raw", "mount"),), {"raw": "/data"})
    assert values == {
        "raw": "/data",
        "AZURE_ML_INPUT_raw": "/data",
        "AZUREML_DATAREFERENCE_raw": "/data",
        "AZUREML_DATASET_ENVIRONMENT_VARS": "",
    }


WAITING = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2)), max_size=8).map(
    lambda items: [Waiting(str(index), nodes, index, priority) for index, (nodes, priority) in enumerate(items)]
)


@given(WAITING, st.integers(0, 12))
def test_the_queue_is_fair(waiting: list[Waiting], free: int) -> None:
    chosen = choose(waiting, free)
    assert sum(item.nodes for item in chosen) <= free
    order = sorted(waiting, key=lambda item: (-item.priority, item.position))
    assert list(chosen) == order[: len(chosen)]  # nobody was overtaken
    if len(chosen) < len(order):
        assert sum(item.nodes for item in chosen) + order[len(chosen)].nodes > free  # nodes are not left idle


def test_clusters_of_a_configuration() -> None:
    tables = {
        "cpu": {"max-nodes": 3, "vm-size": "STANDARD_D4"},
        "gpu-low": {"priority": "LowPriority", "preempt-seed": 7, "gpus": 2, "memory": "4g"},
    }
    cpu, low = clusters_of(tables, "emulator.toml")
    assert cpu == Cluster("cpu", "STANDARD_D4", max_nodes=3)
    assert low == Cluster("gpu-low", priority="lowpriority", gpus="2", memory=4 << 30, preempt_seed=7)
    assert {cluster.priority for cluster in DEFAULT_CLUSTERS} == {"dedicated", "lowpriority"}
    assert all(check(cluster, "here") is cluster for cluster in DEFAULT_CLUSTERS)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({}, "no cluster"),
        ({"a": 1}, "not a table"),
        ({"a": {"size": 1}}, "unknown key 'size'"),
        ({"../a": {}}, "cannot be the name"),
        ({"local": {}}, "cannot be the name"),
        ({"a": {}, "A": {}}, "same name"),
        ({"a": {"max-nodes": 0}}, "1 to"),
        ({"a": {"max-nodes": True}}, "whole number"),
        ({"a": {"max-nodes": 1, "min-nodes": 2}}, "1 to"),
        ({"a": {"priority": "spot"}}, "priority is one of"),
        ({"a": {"preempt-seed": 1}}, "only clusters of low priority"),
        ({"a": {"memory": "much"}}, "not a usable size"),
        ({"a": {"vm-size": "a b"}}, "machine's size"),
    ],
)
def test_a_cluster_that_cannot_be(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        clusters_of(tables, "emulator.toml")
