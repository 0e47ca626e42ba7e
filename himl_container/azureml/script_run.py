"""Which script a run in AzureML starts, with which arguments, from which folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.azureml.constants import AZUREML_COMMANDLINE_FLAG
from himl_container.azureml.failures import WrongValue

if TYPE_CHECKING:
    from azureml.core import ScriptRunConfig

MODULE = "-m "
"""What an entry script begins with that is a module: ``-m package.module``."""


def create_script_run(
    snapshot_root_directory: Path | None = None,
    entry_script: str | Path | None = None,
    script_params: list[str] | None = None,
) -> ScriptRunConfig:
    """Return the script of a run and its arguments, without compute and environment.

    :param snapshot_root_directory: everything in it becomes part of the run; the current folder by default.
    :param entry_script: absolute, or relative to that folder; by default the script that is running. ``-m module``
        starts a module.
    :param script_params: by default, and where the list is empty, those of the script that is running, without
        ``--azureml``.
    :raises WrongValue: the script is outside of the folder, or the parameters are one text.
    """
    if isinstance(script_params, str):
        raise WrongValue(f"script_params is a list of words, and not the text {script_params!r}.")
    from azureml.core import ScriptRunConfig

    from himl_container.azureml.translate import PYTHON, command_line

    if snapshot_root_directory is None:
        root = Path.cwd()
        _say(f"No snapshot root directory given. All files in the current working directory {root} go to AzureML.")
    else:
        root = Path(snapshot_root_directory).absolute()
        _say(f"All files in this folder go to AzureML: {root}")
    parameters = [str(word) for word in script_params or own_parameters()]
    if entry_script is not None and str(entry_script).startswith(MODULE):
        module = str(entry_script)[len(MODULE) :].strip()
        _say(f"This command will be run in AzureML: python -m {module} {' '.join(parameters)}")
        return ScriptRunConfig(source_directory=str(root), command=command_line((PYTHON, "-m", module), parameters))
    script = script_path(root, entry_script)
    _say(f"This command will be run in AzureML: {script} {' '.join(parameters)}")
    return ScriptRunConfig(source_directory=str(root), script=script, arguments=parameters)


def own_parameters() -> list[str]:
    """Return the arguments of the script that is running, without those that ask for a submission."""
    return [word for word in sys.argv[1:] if word != AZUREML_COMMANDLINE_FLAG]


def script_path(root: Path, entry_script: str | Path | None = None) -> str:
    """Return a script's path below the snapshot's root, with ``/``.

    A relative one is relative to the root; the script that is running, to the current folder, as Python was told.

    :raises WrongValue: it is outside of the root, by whatever names.
    """
    path = root / entry_script if entry_script is not None else Path.cwd() / sys.argv[0]
    below = os.path.relpath(os.path.normpath(path), os.path.normpath(root))
    if _is_outside(below):  # the same folder may have two names (a link to it)
        below = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
    if not _is_outside(below):
        return Path(below).as_posix()
    raise WrongValue(
        "The entry script must be inside of the snapshot root directory. "
        f"Snapshot root: {root}, entry script: {entry_script if entry_script is not None else path}",
        hint="Name a folder that both are in as 'snapshot_root_directory'.",
    )


def _is_outside(below: str) -> bool:
    return below in ("..", ".") or below.startswith(f"..{os.sep}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # hi-ml prints these lines
