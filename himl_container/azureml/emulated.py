"""The emulator as the workspace of this process: the variables that lead the SDK to it, and starting one."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.azureml.constants import ENV_EMULATOR_CONFIG
from himl_container.azureml.one_at_a_time import one_at_a_time
from himl_container.errors import InputError

if TYPE_CHECKING:
    from himl_container.progress import Reporter

ENV_FOLDER = "HIML_CONTAINER_EMULATOR_DIR"
DEFAULT_PORT = 5010

_TRUST = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
_QUICK = {"AZUREML_DEFAULT_BACKOFF": "1"}
"""The SDK waits for up to 32 s between two tries, which is for services that are far away and busy."""


def use_emulator(environ: MutableMapping[str, str], reporter: Reporter, folder: Path | None = None) -> Path:
    """Lead this process to the emulator, and return its ``config.json``. To be called before the SDK is imported.

    It is that of ``folder``, else of ``HIML_CONTAINER_EMULATOR_DIR``, else of the user's data folder. Where none runs
    there, one is started that lives on after this process, and the reporter is told.

    :param environ: gets the variables; ``os.environ`` but for tests.
    :raises InputError: the emulator's packages are not installed.
    :raises LaunchError: it cannot be started.
    """
    from himl_container.emulator.folder import CONFIG, client_variables, existing

    chosen = emulator_folder(environ, folder)
    port = running_emulator(chosen)
    if port is None:
        # Two that start at once would have the second find the folder taken, and fail.
        with one_at_a_time(chosen, "emulator"):
            # Another submission may have started it while this one waited.
            port = running_emulator(chosen) or _start(chosen, reporter)
    environ.update(client_variables(existing(chosen), port, environ))
    if not (chosen / CONFIG).exists():
        # Nobody else can be reached through it, so the usual roots are not needed: reading them takes 35 ms for each of
        # the SDK's connections.
        environ.update(dict.fromkeys(_TRUST, str(chosen / "ca.pem")))
    for name, value in _QUICK.items():
        environ.setdefault(name, value)
    return Path(environ[ENV_EMULATOR_CONFIG])


def emulator_folder(environ: MutableMapping[str, str], folder: Path | None = None) -> Path:
    """Return where the emulator lives that :func:`use_emulator` uses."""
    from himl_container.emulator.folder import default_folder

    given = folder or environ.get(ENV_FOLDER, "")
    return (Path(given) if given else default_folder()).absolute()


def running_emulator(folder: Path) -> int | None:
    """Return the port of the emulator that serves a folder; None where none does."""
    from himl_container.emulator.folder import find_running

    running = find_running(folder)
    return running.port if running is not None else None


def _start(folder: Path, reporter: Reporter) -> int:
    """Start an emulator and return its port."""
    try:
        from himl_container.emulator.lifecycle import start_detached
    except ImportError as error:
        raise InputError(
            f"the emulator needs the package of {error.name!r}, which is not installed",
            hint="pip install 'himl-container[emulator]'",
        ) from error
    from himl_container.emulator.folder import last_port

    ready = start_detached(folder, last_port(folder) or _free_port())
    reporter.info(
        f"An emulator was started in {folder} ({ready.seconds:.1f} s), and goes on: http://127.0.0.1:{ready.port}. "
        "'himl-container emulator stop' ends it."
    )
    return ready.port


def _free_port() -> int:
    """Return the usual port; 0, which is any, where something else has it."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            return 0
    return DEFAULT_PORT
