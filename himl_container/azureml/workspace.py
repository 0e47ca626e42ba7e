"""Which workspace a script means, and how it is opened."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from himl_container.azureml.constants import (
    ENV_EMULATOR_CONFIG,
    ENV_RESOURCE_GROUP,
    ENV_SUBSCRIPTION_ID,
    ENV_WORKSPACE_NAME,
    WORKSPACE_CONFIG_JSON,
)
from himl_container.azureml.context import current_run, is_running_in_azure_ml
from himl_container.azureml.failures import WrongValue
from himl_container.find import find_upwards

if TYPE_CHECKING:
    from azureml.core import Workspace

_LOG = logging.getLogger(__name__)


class WorkspaceNames(NamedTuple):
    """The three names that make a workspace; of a ``config.json`` or of the environment."""

    subscription_id: str
    resource_group: str
    workspace_name: str


def get_workspace(aml_workspace: Workspace | None = None, workspace_config_path: str | Path | None = None) -> Workspace:
    """Return the workspace to work in; inside AzureML always that of the present run.

    Otherwise the object that is passed; the configuration file that is passed; the emulator to which ``emulator exec``
    leads this process; the nearest ``config.json`` (see :func:`find_file`); the variables ``HIML_SUBSCRIPTION_ID``,
    ``HIML_RESOURCE_GROUP`` and ``HIML_WORKSPACE_NAME``.

    :param workspace_config_path: a ``config.json`` as the Azure portal offers it.
    :raises WrongValue: (a ValueError) no workspace is named, or the file that names it cannot be read.
    :raises LoginFailed: nobody is logged in, or the login was refused.
    :raises AzureMLError: there is no such workspace, or AzureML does not answer.
    """
    if is_running_in_azure_ml():
        return current_run().experiment.workspace
    if aml_workspace is not None:
        return aml_workspace
    return open_workspace(workspace_names(workspace_config_path))


def find_file(file_name: str, stop_at_pythonpath: bool = True) -> Path | None:
    """Return the nearest file of this name in the current folder or above, else in the script's folder or above.

    :param stop_at_pythonpath: do not look above a folder that is an entry of ``PYTHONPATH``.
    """
    environ = os.environ if stop_at_pythonpath else {}
    for start in (Path.cwd(), _folder_of_script()):
        if start is not None and (found := find_upwards(file_name, start=start, environ=environ)) is not None:
            return found
    return None


def workspace_names(workspace_config_path: str | Path | None = None) -> WorkspaceNames:
    """Return the names of the workspace to work in; :func:`get_workspace` says where they are looked for.

    :raises WrongValue: (a ValueError) no workspace is named, or the file that names it cannot be read.
    """
    if workspace_config_path is not None:
        return _read(Path(workspace_config_path))
    if emulated := os.environ.get(ENV_EMULATOR_CONFIG):
        return _read(Path(emulated))
    if (found := find_file(WORKSPACE_CONFIG_JSON)) is not None:
        _LOG.info("Using the workspace config file %s", found.absolute())
        return _read(found)
    variables = (ENV_SUBSCRIPTION_ID, ENV_RESOURCE_GROUP, ENV_WORKSPACE_NAME)
    values = [os.environ.get(name, "") for name in variables]
    if all(values):
        return WorkspaceNames(*values)
    missing = ", ".join(name for name, value in zip(variables, values, strict=True) if not value)
    hint = f"download config.json from the workspace's page in the Azure portal to {Path.cwd()}, or set {missing}"
    raise WrongValue("No workspace config file given, nor can we find one.", hint=hint)


def open_workspace(names: WorkspaceNames) -> Workspace:
    """Log in and return the workspace of these names.

    :raises LoginFailed: nobody is logged in, or the login was refused.
    :raises AzureMLError: there is no such workspace, or AzureML does not answer.
    """
    from azureml.core import Workspace

    from himl_container.azureml.login import get_authentication
    from himl_container.azureml.retry import retried
    from himl_container.azureml.service_failures import explained

    authentication = get_authentication()
    place = f"resource group {names.resource_group} of subscription {names.subscription_id}"
    next_step = f"it is looked for in {place}: check these names, and that you may use it"
    with explained(f"the workspace {names.workspace_name}", next_step):
        return retried(
            f"opening the workspace {names.workspace_name}",
            lambda: Workspace.get(
                name=names.workspace_name,
                auth=authentication,
                subscription_id=names.subscription_id,
                resource_group=names.resource_group,
            ),
        )


def _read(path: Path) -> WorkspaceNames:
    """Return the names in a ``config.json``."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise WrongValue("Workspace config file does not exist or cannot be read.", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise WrongValue(f"the workspace config file is not JSON: {error}", where=str(path)) from error
    values = [found.get(name) if isinstance(found, dict) else None for name in WorkspaceNames._fields]
    wrong = [
        name
        for name, value in zip(WorkspaceNames._fields, values, strict=True)
        if not isinstance(value, str) or not value
    ]
    if wrong:
        what = f"the workspace config file has no {', '.join(wrong)}"
        raise WrongValue(what, where=str(path), hint="download it again from the workspace's page in the Azure portal")
    return WorkspaceNames(*map(str, values))


def _folder_of_script() -> Path | None:
    """Return the folder of the script that Python was started with; None at a prompt, in a notebook, with ``-c``."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(script).resolve().parent if script else None
