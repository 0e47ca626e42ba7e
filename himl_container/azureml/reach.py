"""Which workspace a command talks to, and the way there: flags, the record of a run, ``config.json``, the emulator."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.azureml.constants import (
    ENV_EMULATOR_CONFIG,
    ENV_RESOURCE_GROUP,
    ENV_SUBSCRIPTION_ID,
    ENV_WORKSPACE_NAME,
    WORKSPACE_CONFIG_JSON,
)
from himl_container.azureml.failures import MissingRun, WrongValue
from himl_container.azureml.workspace import WorkspaceNames, find_file, workspace_names
from himl_container.errors import InputError

if TYPE_CHECKING:
    from azureml.core import Workspace

    from himl_container.azureml.records import Record
    from himl_container.launch.defaults import RunDefaults
    from himl_container.progress import Reporter

QUESTION = "No workspace is configured here (no config.json was found). Use the emulator on this machine?"
NEXT_STEP = (
    "--emulator takes the emulator on this machine. For Azure, download config.json from the workspace's page in the "
    "portal into this folder, name it with --workspace-config, or set "
    f"{ENV_SUBSCRIPTION_ID}, {ENV_RESOURCE_GROUP} and {ENV_WORKSPACE_NAME}."
)

Ask = Callable[[str], bool]
"""Puts a question to whoever sits at the terminal."""


@dataclass(frozen=True)
class Way:
    """The way to a workspace.

    :param names: of the workspace; None for the emulator's, which are known when it runs.
    :param emulator: whether it is the emulator's. :param folder: the emulator's; None for the usual one.
    """

    names: WorkspaceNames | None = None
    emulator: bool = False
    folder: Path | None = None


def find_way(
    *,
    emulator: bool,
    config: Path | None,
    environ: MutableMapping[str, str],
    record: Record | None = None,
    ask: Ask | None = None,
) -> Way:
    """Decide which workspace is meant; nothing is started or asked of a service.

    The flags come first, then the place that a run was submitted to, then ``emulator exec``, ``config.json`` and the
    ``HIML_*`` variables.

    :param ask: None where nobody can be asked.
    :raises WrongValue: (a ValueError) no workspace is named, or the file that names it cannot be read.
    :raises MissingRun: the run was in an emulator whose folder is gone.
    """
    if emulator and config is not None:
        raise InputError("--emulator and --workspace-config name two workspaces", where="--emulator")
    theirs = Path(record.emulator) if record is not None and record.emulator else None
    if emulator:
        return Way(emulator=True, folder=theirs if theirs is not None and theirs.is_dir() else None)
    if config is not None:
        return Way(workspace_names(config))
    if record is not None and theirs is not None:
        if not theirs.is_dir():  # one that is made there anew would not have the run
            raise MissingRun(f"run {record.run} was in an emulator whose folder is gone", where=str(theirs))
        return Way(emulator=True, folder=theirs)
    if record is not None:
        return Way(WorkspaceNames(record.subscription_id, record.resource_group, record.workspace))
    if _is_configured(environ):
        return Way(workspace_names())
    if ask is not None and ask(QUESTION):
        return Way(emulator=True)
    raise WrongValue("No workspace config file given, nor can we find one.", hint=NEXT_STEP)


def chosen_workspace(
    defaults: RunDefaults, *, emulator: bool, workspace_config: Path | None
) -> tuple[bool, Path | None]:
    """Return whether the emulator is meant, and the workspace's file: the flags', else the settings'."""
    if emulator or workspace_config is not None:
        return emulator, workspace_config
    return defaults.switch("emulator", given=False), defaults.folder("workspace-config", None, Path.cwd())


def go(way: Way, environ: MutableMapping[str, str], reporter: Reporter) -> WorkspaceNames:
    """Make this process ready to talk to a workspace, and return its names. To be called before the SDK is imported.

    :raises HimlError: as :func:`himl_container.azureml.emulated.use_emulator`.
    """
    if way.names is not None:
        return way.names
    from himl_container.azureml.emulated import use_emulator

    return workspace_names(use_emulator(environ, reporter, way.folder))


def open_quickly(names: WorkspaceNames) -> Workspace:
    """Return the workspace, with an SDK that was imported the short way; for our own command line alone.

    :raises MissingSdk: the SDK is not installed.
    :raises LoginFailed: nobody is logged in, or the login has expired.
    :raises AzureMLError: there is no such workspace, or AzureML does not answer.
    """
    from himl_container.azureml.quick_import import import_sdk
    from himl_container.azureml.service_failures import sdk_needed
    from himl_container.azureml.workspace import open_workspace

    with sdk_needed():
        import_sdk()
    return open_workspace(names)


def emulator_of(way: Way, environ: MutableMapping[str, str]) -> str:
    """Return the folder of the emulator that a way leads to, for a record; empty for Azure."""
    if way.emulator:
        from himl_container.azureml.emulated import emulator_folder

        return str(emulator_folder(environ, way.folder))
    config = environ.get(ENV_EMULATOR_CONFIG, "")
    return str(Path(config).parent) if config else ""


def _is_configured(environ: MutableMapping[str, str]) -> bool:
    if environ.get(ENV_EMULATOR_CONFIG):
        return True
    if all(environ.get(name) for name in (ENV_SUBSCRIPTION_ID, ENV_RESOURCE_GROUP, ENV_WORKSPACE_NAME)):
        return True
    return find_file(WORKSPACE_CONFIG_JSON) is not None
