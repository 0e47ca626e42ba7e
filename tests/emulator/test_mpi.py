"""Jobs of several nodes and several processes a node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from job_image import Submit, error_of, submitter, text_of, wait

if TYPE_CHECKING:
    from azureml.core import Environment, Workspace

pytestmark = [pytest.mark.emulator, pytest.mark.docker]

# Every process says hello to the first one, and writes into its node's shared memory.
MEETS = """
import os, socket, sys, time
rank, size, local, master, port = (os.environ[name] for name in sys.argv[1:6])
rank, size, local = int(rank), int(size), int(local)
master = master.partition(":")[0]
open(f"/dev/shm/local-{local}", "w").close()
open(f"outputs/rank-{rank}", "w").close()
if rank == 0:
    with socket.create_server(("", 29999)) as server:
        seen = {0}
        while len(seen) < size:
            connection, _ = server.accept()
            seen.add(int(connection.recv(10)))
            connection.close()
    print("seen", sorted(seen))
else:
    until = time.time() + 60
    while True:
        try:
            with socket.create_connection((master, 29999), timeout=5) as connection:
                connection.sendall(str(rank).encode())
            break
        except OSError:
            assert time.time() < until
            time.sleep(0.1)
until = time.time() + 60
while len([name for name in os.listdir("/dev/shm") if name.startswith("local-")]) < 2:
    assert time.time() < until
    time.sleep(0.05)
seen = sum(name.startswith("local-") for name in os.listdir("/dev/shm"))  # a library may have files there too
print("rank", rank, "local", local, socket.gethostname(), seen)
# The first and the last one are enough: the import takes seconds of a processor.
if "OMPI_COMM_WORLD_RANK" in os.environ and rank in (0, size - 1):
    from azureml.core import Run
    Run.get_context().log_row("hello", rank=rank)
"""


@pytest.fixture
def submit(workspace: Workspace, job_environment: Environment, tmp_path: Path) -> Submit:
    return submitter(workspace, job_environment, tmp_path)


@pytest.mark.parametrize("kind", ["mpi", "pytorch"])
def test_processes_of_several_nodes_meet(submit: Submit, kind: str) -> None:
    from azureml.core.runconfig import MpiConfiguration, PyTorchConfiguration

    if kind == "mpi":
        config = MpiConfiguration(process_count_per_node=2, node_count=2)
        names = ["RANK", "SIZE", "LOCAL_RANK"]
        words = [f"OMPI_COMM_WORLD_{name}" for name in names] + ["AZ_BATCH_MASTER_NODE", "AZ_BATCHAI_MPI_MASTER_NODE"]
    else:
        config = PyTorchConfiguration(process_count=4, node_count=2)
        words = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"]
    run = submit(MEETS, arguments=words, distributed_job_config=config)
    assert wait(run) == "Completed", error_of(run)
    logs = [text_of(run, f"user_logs/std_log_process_{rank:02d}.txt") for rank in range(4)]
    assert logs[0].startswith("seen [0, 1, 2, 3]\n")
    lines = [next(line for line in log.splitlines() if line.startswith("rank")).split() for log in logs]
    assert [(line[1], line[3], line[5]) for line in lines] == [
        *(("0", "0", "2"), ("1", "1", "2"), ("2", "0", "2"), ("3", "1", "2"))
    ]
    hosts = [line[4] for line in lines]
    assert hosts[0] == hosts[1] != hosts[2] == hosts[3]
    assert {f"outputs/rank-{rank}" for rank in range(4)} <= set(run.get_file_names())
    if kind == "mpi":
        assert sorted(run.get_metrics()["hello"]["rank"]) == [0, 3]


def test_the_first_process_that_fails_ends_the_others(submit: Submit) -> None:
    from azureml.core.runconfig import MpiConfiguration

    run = submit(
        # The first one has spoken before the second one fails: from then on it has two seconds to live.
        "import os, time\nrank = os.environ['OMPI_COMM_WORLD_RANK']\n"
        "print('rank', rank, flush=True)\n"
        "open(f'outputs/spoken-{rank}', 'w').close()\n"
        "while rank == '1' and not os.path.exists('outputs/spoken-0'):\n    time.sleep(0.05)\n"
        "if rank == '1':\n    raise SystemExit('rank one fails')\ntime.sleep(300)\n",
        distributed_job_config=MpiConfiguration(node_count=2),
    )
    assert wait(run) == "Failed"
    assert "node 1 failed first" in error_of(run)
    assert "rank one fails" in error_of(run)
    assert text_of(run, "user_logs/std_log_process_00.txt") == "rank 0\n"
