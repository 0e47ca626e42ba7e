"""Checks of the emulator: does one run, and if not, could one be started?"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from himl_container.doctor.model import Finding

_MODULES = ("azure.storage.blob", "cryptography", "httpx", "jwt", "starlette", "uvicorn")
_EXTRA = "pip install 'himl-container[emulator]'"
_FOLDER = "HIML_CONTAINER_EMULATOR_DIR"


def checks(
    environ: Mapping[str, str],
    *,
    installed: Callable[[str], bool] | None = None,
    which: Callable[[str], str | None] = shutil.which,
) -> Iterator[Finding]:
    """Yield what is found of the emulator of this user.

    :param installed: whether a module can be imported.
    :param which: finds a program.
    """
    from himl_container.emulator.folder import default_folder, find_running
    from himl_container.emulator.programs import azurite_places

    folder = Path(environ.get(_FOLDER) or default_folder()).absolute()
    running = find_running(folder)
    if running is not None:
        yield Finding("emulator", "ok", f"running at http://127.0.0.1:{running.port}, in {folder}")
        return
    missing = [name for name in _MODULES if not (installed or _installed)(name)]
    if missing:
        means = "There is no workspace on this machine to try submissions with."
        yield Finding("emulator", "skipped", f"not installed ({', '.join(missing)})", means, _EXTRA)
        return
    programs = {
        "azurite-blob": any(which(place) for place in azurite_places(folder)),
        "docker-registry": which("docker-registry") is not None,
    }
    lacking = [name for name, there in programs.items() if not there]
    if not lacking:
        yield Finding("emulator", "ok", "not running; 'himl-container emulator start --detach' starts it")
    elif which("docker"):
        found = f"not running; {' and '.join(lacking)} will be container images, pulled at the first start"
        yield Finding("emulator", "ok", found)
    else:
        means = "The emulator cannot be started."
        fix = "npm install azurite; apt-get install docker-registry; or install the 'docker' command."
        yield Finding("emulator", "warning", f"{' and '.join(lacking)} not installed", means, fix)


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
