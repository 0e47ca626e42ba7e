"""The old way: AzureML builds the image of a run itself, of the Conda dependencies.

The build happens in the cloud, when the run is submitted, and what comes out is not tested. It is kept for workspaces
whose clusters can pull nothing but what AzureML has built, and for scripts that call these functions.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himl_container.azureml.constants import DEFAULT_ENVIRONMENT_VARIABLES
from himl_container.azureml.environments import quietly, register_environment
from himl_container.azureml.failures import MissingFile, WrongValue
from himl_container.azureml.retry import one_line, retried
from himl_container.whole_file import replace_file

if TYPE_CHECKING:
    from azureml.core import Environment, Workspace
    from azureml.core.conda_dependencies import CondaDependencies

__all__ = ["create_python_environment", "merge_conda_files", "register_environment"]

_PYPI = "https://pypi.org/simple"
_log = logging.getLogger(__name__)


def create_python_environment(  # noqa: PLR0917  # hi-ml's signature
    conda_environment_file: Path,
    pip_extra_index_url: str = "",
    workspace: Workspace | None = None,
    private_pip_wheel_path: Path | None = None,
    docker_base_image: str = "",
    environment_variables: dict[str, str] | None = None,
) -> Environment:
    """Return an environment that AzureML is to build of a Conda file; it is not registered.

    :param pip_extra_index_url: an index that is searched *before* PyPI, in spite of the name.
    :param workspace: where the wheel is uploaded; without one, the wheel is left out, as hi-ml did.
    :param environment_variables: of the environment, beside hi-ml's own five, over which they win.
    :raises MissingFile: the wheel or the Conda file is not a file.
    """
    return python_environment(
        Path(conda_environment_file),
        indexes=[pip_extra_index_url] if pip_extra_index_url else (),
        wheels=[Path(private_pip_wheel_path)] if private_pip_wheel_path is not None else (),
        workspace=workspace,
        base_image=docker_base_image,
        variables=environment_variables,
    )


def python_environment(
    conda_file: Path,
    *,
    indexes: Sequence[str] = (),
    main_index: str = "",
    wheels: Sequence[Path] = (),
    workspace: Workspace | None = None,
    base_image: str = "",
    variables: Mapping[str, str] | None = None,
) -> Environment:
    """Return an environment that AzureML is to build of a Conda file; it is not registered.

    Its name is a hash of all that decides what it becomes. A wheel is uploaded under a name that has its content's
    hash in it, so that a new wheel of an old name is not taken for the old one.

    :param indexes: searched before the main one, in this order. :param main_index: in the place of PyPI.
    :param workspace: where wheels are uploaded; without one, they are left out.
    :param variables: of the environment, beside hi-ml's own five, over which they win.
    :raises MissingFile: a wheel or the Conda file is not a file.
    :raises WrongValue: the Conda file is none that AzureML takes.
    """
    from azureml.core import Environment
    from azureml.core.conda_dependencies import CondaDependencies
    from azureml.exceptions import UserErrorException

    text = _text(conda_file)
    if not _document(conda_file).get("dependencies"):
        raise WrongValue("the Conda file has no dependencies", where=str(conda_file))
    try:
        dependencies = CondaDependencies(conda_dependencies_file_path=str(conda_file))
    except UserErrorException as error:
        raise WrongValue(one_line(error).removeprefix("UserErrorException: "), where=str(conda_file)) from error
    for part in dependencies._conda_dependencies["dependencies"]:
        if isinstance(part, dict) and "pip" in part and part["pip"] is None:
            part["pip"] = []  # the SDK stumbles over a section without a line in it
    all_variables = {**DEFAULT_ENVIRONMENT_VARIABLES, **(variables or {})}
    hashed = [text, base_image, str(all_variables)]
    if indexes or main_index:
        options = _index_options([*indexes, main_index or _PYPI])
        _set_options(dependencies, options)
        hashed += options
    for wheel in wheels if workspace is not None else ():
        if not wheel.is_file():
            raise MissingFile(f"Cannot add add_private_pip_wheel: {wheel}, it is not a file.")
        content = hashlib.sha256(wheel.read_bytes()).hexdigest()
        url = retried("uploading the private wheel", functools.partial(_upload, workspace, wheel, content))
        dependencies.add_pip_package(url)
        print(f"Added add_private_pip_wheel {wheel} to AzureML environment.")  # noqa: T201  # hi-ml's line
        hashed.append(f"wheel {wheel.name} {content}")
    # hi-ml's own name where nothing is given that it left out of it.
    digest = hashlib.sha1("\n".join(hashed).encode(), usedforsecurity=False).hexdigest()[:32]
    result = Environment(name=f"HealthML-{digest}")
    result.python.conda_dependencies = dependencies
    with quietly():  # deprecated in favour of the run's own, which an environment for several runs does not have
        result.environment_variables = all_variables
    if base_image:
        result.docker.base_image = base_image
    return result


def _index_options(indexes: Sequence[str]) -> list[str]:
    """Return pip's options for indexes: a package that several have comes from the first."""
    return [f"--index-url {indexes[0]}", *(f"--extra-index-url {url}" for url in indexes[1:])]


def _set_options(dependencies: CondaDependencies, options: Sequence[str]) -> None:
    """Set options of pip; the SDK's own way keeps one of each kind alone."""
    for option in options:
        dependencies.set_pip_option(option)
    for part in dependencies._conda_dependencies["dependencies"]:
        if isinstance(part, dict) and "pip" in part:
            kinds = {option.split()[0] for option in options}
            rest = [line for line in part["pip"] if line.split()[0] not in kinds]
            part["pip"] = [*rest, *options]


def merge_conda_files(files: list[Path], result_file: Path) -> None:
    """Write one Conda file that has the dependencies of several; all else in them but name and channels is left out.

    Channels keep every file's order. Different pins of one package are all kept.

    :raises conda_merge.MergeError: the files' orders of channels contradict each other.
    :raises WrongValue: no file has a dependency, or one is no Conda file.
    :raises MissingFile: a file is not there.
    """
    import conda_merge  # type: ignore[import-untyped]

    documents = [_document(Path(file)) for file in files]
    merged: dict[str, Any] = {}
    name = conda_merge.merge_names(document.get("name") for document in documents)
    if name:
        merged["name"] = name
    try:
        channels = conda_merge.merge_channels(document.get("channels") for document in documents)
    except conda_merge.MergeError:
        _log.error("Failed to merge channel priorities.")
        raise
    if channels:
        merged["channels"] = channels
    try:
        dependencies = conda_merge.merge_dependencies(_dependencies(document) for document in documents)
    except conda_merge.MergeError:
        _log.error("Failed to merge dependencies.")
        raise
    if not dependencies:
        raise WrongValue("No dependencies found in any of the conda files.")
    merged["dependencies"] = dependencies
    import yaml

    text = yaml.safe_dump(merged, sort_keys=False, default_flow_style=False)
    replace_file(Path(result_file).resolve(), text.encode())  # a link stays one
    _tell(dependencies)


def _upload(workspace: Workspace, wheel: Path, content: str) -> str:
    """Upload a wheel, if this content of it was not uploaded before; return its address.

    The SDK has one place for each file name and replaces nothing, so the hash becomes the wheel's build tag, which is
    the part of a wheel's name that says nothing about what it is (binary distribution format, file name convention).
    """
    from azureml.core import Environment

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, content_name(wheel.name, content))
        shutil.copyfile(wheel, copy)
        return str(Environment.add_private_pip_wheel(workspace, str(copy), exist_ok=True))


def content_name(wheel: str, content: str) -> str:
    """Return a wheel's file name with a hash of its content as the build tag.

    :param content: the hash in hexadecimal digits.
    :raises WrongValue: the name is not that of a wheel.
    """
    parts = wheel.removesuffix(".whl").split("-")
    if not wheel.endswith(".whl") or len(parts) not in (5, 6) or not all(parts):
        raise WrongValue(
            "this is not the file name of a wheel", where=wheel, hint="NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl"
        )
    # A build tag begins with a digit.
    return "-".join([*parts[:2], f"0h{content[:16]}", *parts[-3:]]) + ".whl"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise MissingFile(f"the Conda file cannot be read: {error.strerror}", where=str(file)) from error
    except UnicodeDecodeError as error:
        raise WrongValue("the Conda file is not UTF-8", where=str(file)) from error


def _document(file: Path) -> Mapping[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(_text(file))
    except yaml.YAMLError as error:
        raise WrongValue(f"this is not YAML: {error}", where=str(file)) from error
    except RecursionError as error:
        raise WrongValue("the Conda file is nested too deeply", where=str(file)) from error
    if document is None:
        raise WrongValue("the Conda file is empty", where=str(file))
    if not isinstance(document, dict):
        raise WrongValue("a Conda file is a mapping: name, channels, dependencies", where=str(file))
    sections = [item for item in _texts(document, "dependencies", file, sections=True) if isinstance(item, dict)]
    for section in sections:
        _texts(section, "pip", file)
    _texts(document, "channels", file)
    return document


def _texts(holder: Mapping[str, Any], key: str, file: Path, *, sections: bool = False) -> Sequence[Any]:
    """Return a list of texts in a Conda file; conda-merge sorts them, and stumbles over anything else.

    :param sections: whether mappings (``pip:``) may stand among the texts.
    """
    found = holder.get(key)
    kinds = (str, dict) if sections else (str,)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, kinds) for item in found):
        raise WrongValue(f"{key!r} of a Conda file is a list of texts", where=str(file))
    return found


def _dependencies(document: Mapping[str, Any]) -> list[Any] | None:
    """Return the dependencies of a file without empty sections of pip, over which conda-merge stumbles."""
    found: Sequence[Any] | None = document.get("dependencies")
    if found is None:
        return None
    return [item for item in found if not (isinstance(item, dict) and not item.get("pip"))]


def _tell(dependencies: Sequence[Any]) -> None:
    """Log what was merged."""
    conda = [item for item in dependencies if not isinstance(item, dict)]
    pip = [text for item in dependencies if isinstance(item, dict) for text in item["pip"]]
    for kind, packages in (("Conda", conda), ("pip", pip)):
        _log.info("Merged environment: %d %s packages", len(packages), kind)
        for package in packages:
            _log.debug("  %s", package)
