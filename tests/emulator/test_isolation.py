"""Nothing leaves the machine: tests of this folder where there is nothing but the loopback device and a bridge.

They run in a network namespace of their own, with a Docker daemon of its own, so that jobs run there too. This file,
run as a program, is what starts both inside.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.emulator, pytest.mark.docker, pytest.mark.slow]

_SHOWN = """
test_workspace.py test_aad_login.py test_keyvault.py test_metrics.py::test_every_kind test_models.py::test_file
test_files.py::test_upload_and_download test_files.py::test_folders test_runs.py::test_children
test_datastores.py test_datasets.py::test_download test_datasets.py::test_tables_of_parquet_files
test_snapshots.py::test_incremental_upload test_environments.py::test_versions
test_jobs.py::test_a_job_really_runs test_job_data.py::test_ways_to_bring_a_dataset
"""
"""Some of each kind; HIML_TEST_ISOLATED names others (``test_datasets.py test_jobs.py``)."""

# With a namespace of processes too, so that everything in it ends with its first one, however that ends.
_ALONE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--")

_DEVICES = Path("/proc/net/dev")


def test_nothing_leaves_the_machine(job_image: str, base_image: str) -> None:
    import engines
    import kit
    import second_daemon

    if why := second_daemon.missing():
        kit.lacking(why)
    save = ["docker", "save", job_image, base_image]
    with (
        engines.quick_folder("himl-n-") as folder,
        subprocess.Popen(save, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as images,
    ):
        here = Path(__file__)
        tests = [str(here.parent / name) for name in os.environ.get("HIML_TEST_ISOLATED", _SHOWN).split()]
        words = [*_ALONE, sys.executable, str(here), str(folder), *tests]
        hidden = _of_the_session()
        environ = {name: value for name, value in os.environ.items() if name not in hidden}
        with subprocess.Popen(
            words,
            env=environ,
            stdin=images.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=840)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                images.kill()
                raise
        assert process.returncode == 0, said[-8000:]
        assert " passed" in said
        assert "skipped" not in said, said[-3000:]


def _of_the_session() -> set[str]:
    """Variables by which this session's emulator is found, which the tests inside must not see."""
    from himl_container.emulator.folder import client_variables, existing

    home = os.environ.get("HIML_EMULATOR_CONFIG")
    return set(client_variables(existing(Path(home).parent), 1, {})) if home else set()


def _inside(folder: Path, tests: list[str]) -> int:
    """Be the only program of a new namespace: bring up its loopback device, a daemon with images, and run tests."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import second_daemon

    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    assert _devices() == {"lo"}, _devices()
    log = folder / "dockerd.log"
    (folder / "daemon.json").write_text("{}")
    options = [
        *("--config-file", str(folder / "daemon.json"), "--data-root", str(folder / "data")),
        *("--exec-root", str(folder / "exec"), "--pidfile", str(folder / "d.pid")),
        *("--host", f"unix://{folder}/d.sock", "--group", "0", "--bridge", "none"),
        *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(["dockerd", *options], stdout=output, stderr=output)
    try:
        second_daemon._wait(folder / "d.sock", process, log)
        environ = {**os.environ, "DOCKER_HOST": f"unix://{folder}/d.sock", "HIML_TEST_OFFLINE": "1"}
        subprocess.run(["docker", "load"], check=True, env=environ, stdout=subprocess.DEVNULL)
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-W", "ignore", *tests]
        code = subprocess.run(words, env=environ, check=False).returncode
        # Whatever was made in between was a bridge of Docker's, or one of its ends.
        left = {name for name in _devices() if not name.startswith(("lo", "br-", "veth"))}
        assert not left, left
        return code
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()


def _devices() -> set[str]:
    return {line.partition(":")[0].strip() for line in _DEVICES.read_text().splitlines()[2:]}


if __name__ == "__main__":
    sys.exit(_inside(Path(sys.argv[1]), sys.argv[2:]))
