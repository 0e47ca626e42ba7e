"""A real emulator for the tests of a session, started through the command line, and the SDK's workspace in it.

One emulator serves every folder: this module is a plugin of pytest (``tests/conftest.py`` names it), because a fixture
that two folders' ``conftest.py`` import would be made twice. The SDK runs in the tests' own process, as PyPI ships it;
the variables that lead it to the emulator are set while a test runs that asks for ``emulator``, and for no other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
import pytest

if TYPE_CHECKING:
    import requests
    from azureml.core import Workspace

    from himl_container.emulator.installation import Installation

_FAST = {"AZUREML_DEFAULT_BACKOFF": "1", "AZUREML_DEFAULT_RETRIES": "2"}


class _Surroundings:
    """Which variables this process has: its own, or those of the emulator."""

    def __init__(self) -> None:
        self._away: dict[str, str] | None = None
        self._led = False

    def lead(self, emulator: Emulator) -> None:
        """Set the variables that lead to an emulator."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AZUREML_", "PYTEST_"))}
        self._away = {**kept, **emulator.variables}
        self.show(led=True)

    def show(self, *, led: bool) -> None:
        """Change from one set of variables to the other, where that is a change."""
        if self._away is None or led == self._led:
            return
        here = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        self._led, wanted, self._away = led, self._away, here
        for name in here.keys() - wanted.keys():
            del os.environ[name]
        os.environ.update(wanted)


_SURROUNDINGS = _Surroundings()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Lead a test that asks for the emulator to it, and no other."""
    _SURROUNDINGS.show(led="emulator" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="module", autouse=True)
def _sdk_clocks() -> Iterator[None]:
    """Stop the clocks of the runs of a module: the SDK starts one for each run that has metrics, and stops none.

    Each starts a thread a second, to the end of the process; the runs of all modules together would start a hundred.
    """
    yield
    if "azureml._common.async_utils.batch_task_queue" not in sys.modules:
        return
    from azureml._common.async_utils.batch_task_queue import BatchTaskQueue
    from azureml._common.async_utils.daemon import Daemon

    for thread in threading.enumerate():
        daemon = getattr(getattr(thread, "function", None), "__self__", None)
        if isinstance(daemon, Daemon) and isinstance(getattr(daemon.work, "__self__", None), BatchTaskQueue):
            daemon.stop()


@dataclass(frozen=True)
class Emulator:
    """An emulator that runs.

    :param variables: those that lead a client to it; :param home: a folder in the place of the user's.
    """

    folder: Path
    port: int
    seconds: float
    variables: Mapping[str, str]
    home: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def installation(self) -> Installation:
        from himl_container.emulator.folder import existing

        return existing(self.folder)

    @property
    def log(self) -> str:
        return (self.folder / "emulator.log").read_text(encoding="utf-8", errors="replace")

    def cli(self, *arguments: str | Path, **options: Any) -> Any:
        """``himl-container emulator``, for this emulator."""
        return emulator_cli(self.folder, *arguments, **options)

    def session(self) -> requests.Session:
        """A session that goes through this emulator as its service principal, whatever this process's variables say."""
        import requests

        made = self.installation
        session = requests.Session()
        session.trust_env = False
        session.proxies = {"https": self.address}
        session.verify = self.variables["REQUESTS_CA_BUNDLE"]
        form = {"grant_type": "client_credentials", "client_id": made.client_id, "client_secret": made.client_secret}
        address = f"https://login.microsoftonline.com/{made.workspace.tenant_id}/oauth2/v2.0/token"
        scope = "https://management.core.windows.net//.default"
        token = session.post(address, data={**form, "scope": scope}, timeout=60).json()["access_token"]
        session.headers["Authorization"] = f"Bearer {token}"
        return session

    def headers(self, audience: str = "https://management.core.windows.net/") -> dict[str, str]:
        """The authorization of the service principal, for requests that no SDK makes."""
        import requests

        made = self.installation
        form = {"grant_type": "client_credentials", "client_id": made.client_id, "client_secret": made.client_secret}
        address = f"https://login.microsoftonline.com/{made.workspace.tenant_id}/oauth2/v2.0/token"
        answer = requests.post(address, data={**form, "scope": f"{audience}/.default"}, timeout=60)
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def emulator_cli(folder: Path, *arguments: str | Path, **options: Any) -> Any:
    """Run ``himl-container emulator`` for a folder."""
    name, *rest = arguments
    return kit.Cli(Path.cwd(), kit.clean_environ())("emulator", name, "--data-dir", folder, *rest, **options)


def start_emulator(folder: Path, home: Path, environ: Mapping[str, str] | None = None) -> Emulator:
    """Start an emulator in a folder, on a free port at its first start.

    :param environ: variables of its process, beside those of the machine.
    """
    require_servers()
    done = emulator_cli(folder, "start", "--detach", "--json", *_port(folder), environ=environ)
    result = json.loads(done.stdout.splitlines()[-1])
    shown = json.loads(emulator_cli(folder, "env", "--json").stdout.splitlines()[-1])["variables"]
    home.mkdir(exist_ok=True)
    variables = {**shown, **_FAST, "HOME": str(home)}
    return Emulator(folder, int(result["port"]), float(result["seconds"]), variables, home)


def kill_emulator(folder: Path) -> None:
    """Kill an emulator without a warning, and return once it is gone: the next one would find its lock."""
    from himl_container.emulator.folder import find_running

    running = find_running(folder)
    assert running is not None
    os.kill(running.process.pid, signal.SIGKILL)
    with (folder / "emulator.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def _port(folder: Path) -> list[str]:
    return [] if (folder / "port").exists() else ["--port", "0"]


def require_servers() -> None:
    """Skip (in CI: fail) where Azurite or the registry is not installed."""
    if shutil.which("docker-registry") is None:
        kit.lacking("docker-registry is not installed; scripts/setup.sh installs it")
    local = kit.ROOT / ".kit/azurite/node_modules/.bin/azurite-blob"
    if shutil.which("azurite-blob") is None and not local.exists():
        kit.lacking("Azurite is not installed; scripts/setup.sh installs it")


@pytest.fixture(scope="session")
def package_sources(request: pytest.FixtureRequest, channel: Path, warm_cache_dir: Path) -> Mapping[str, str]:
    """Variables with which images are built on this machine alone: its own channel, base image and cache."""
    variables = {
        "HIML_CONTAINER_CHANNEL_MIRRORS": f"conda-forge={channel.as_uri()}",
        "HIML_CONTAINER_CACHE_DIR": str(warm_cache_dir),
    }
    if not kit.engine_problem():
        variables["HIML_CONTAINER_BASE_IMAGE"] = request.getfixturevalue("base_image")
    return variables


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory, package_sources: Mapping[str, str]) -> Iterator[Emulator]:
    """The emulator of all tests of the session; its log must be free of faults at the end."""
    folder = tmp_path_factory.mktemp("emulator")
    running = start_emulator(folder / "data", folder / "home", package_sources)
    _SURROUNDINGS.lead(running)
    try:
        yield running
    finally:
        _SURROUNDINGS.show(led=False)
        running.cli("stop")
        _remove_images(running.installation.workspace.registry_host)
    assert "Traceback" not in running.log, running.log


def _remove_images(registry: str) -> None:
    """Remove from the daemon what the emulator pulled from its registry or built for it."""
    if kit.engine_problem():
        return
    import docker

    from himl_container.image.endpoint import resolve_endpoint

    with contextlib.closing(docker.DockerClient(base_url=resolve_endpoint(os.environ).url, timeout=300)) as client:
        for depth in ("*", "*/*"):
            for name in kit.image_names(client, f"{registry}/{depth}"):
                with contextlib.suppress(docker.errors.DockerException):
                    client.images.remove(name, force=True)


@pytest.fixture(scope="session")
def workspace(emulator: Emulator) -> Workspace:
    """The SDK's workspace, found as a script finds it: by its configuration file, logged in by what is around."""
    from azureml.core import Workspace

    return Workspace.from_config(str(emulator.config))
