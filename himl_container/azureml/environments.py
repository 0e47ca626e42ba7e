"""AzureML's environments of our images.

An environment is registered once: its name comes from the image's fingerprint and its version from the exact name of
the image, so that a rerun finds it, and nothing that is registered ever means another image.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from himl_container.azureml.constants import ENVIRONMENT_VERSION
from himl_container.azureml.failures import WrongValue
from himl_container.azureml.retry import retried
from himl_container.cache import Cache
from himl_container.environment.urls import scrub
from himl_container.errors import AzureMLError, StorageError

if TYPE_CHECKING:
    from azureml.core import Environment, Workspace

    from himl_container.launch.spec import ImageRef

_log = logging.getLogger(__name__)
_STATUS = re.compile(r"Code: ([1-5]\d\d)\b")

NAME = "himl-"
"""What the names of our environments begin with; the fingerprint's first half follows, as in the image's tag."""

INTERPRETER = "/opt/himl/bin/python"
"""Python in our images. A copy of ``image.model.PREFIX`` (a test compares them), so that a run in AzureML, where no
image is made, need not have what that imports."""


def environment_of(
    image: ImageRef, workspace: Workspace, *, by_tag: bool = False, cache: Cache | None = None
) -> Environment:
    """Return the environment of an image that a registry has, registered in the workspace.

    That it is registered is kept on disk: a registered version can neither be changed nor deleted in AzureML.

    :param by_tag: name the image by its tag, which is its fingerprint, for services that take no digest.
    :raises WrongValue: the image was not pushed.
    """
    from himl_container.azureml.workspace_registry import default_cache, workspace_key

    made = image_environment(image, by_tag=by_tag)
    cache = cache or default_cache()
    key = hashlib.sha256(f"{workspace_key(workspace)}\n{made.name}\n{made.version}".encode()).hexdigest() + ".json"
    if cache.has("memo", "environments", key):
        return made
    found = register_environment(workspace, made)
    with contextlib.suppress(StorageError):  # then it is asked for again
        cache.write_json({"name": made.name, "version": made.version}, "memo", "environments", key)
    return found


def image_environment(image: ImageRef, *, by_tag: bool = False) -> Environment:
    """Return the environment of an image that a registry has, as it would be registered.

    :raises WrongValue: the image was not pushed.
    """
    from azureml.core import Environment

    host, name = _place(image, by_tag=by_tag)
    reference = f"{host}/{name}"
    result = Environment(environment_name(image))
    result.version = hashlib.sha256(reference.encode()).hexdigest()[:12]
    result.docker.base_image = name
    result.docker.base_image_registry.address = host
    with quietly():
        result.environment_variables = {}  # the SDK's default is an example, which every run would find
    result.python.user_managed_dependencies = True
    result.python.interpreter_path = INTERPRETER
    # AzureML's own default is left in otherwise, and would be what its pages show as the packages of the run.
    result.python.conda_dependencies = None
    return result


def environment_name(image: ImageRef) -> str:
    """Return the name of an image's environment: of its fingerprint, or of what it is called where it has none."""
    value = image.fingerprint or hashlib.sha256(image.digest.encode()).hexdigest()
    return NAME + value[:32]


def registered_environment(workspace: Workspace, name: str) -> Environment:
    """Return the latest version of an environment that somebody registered.

    :raises WrongValue: there is none of this name.
    :raises AzureMLError: the service refuses.
    """
    found = _find(workspace, name, None)
    if found is None:
        raise WrongValue(
            f"The environment '{name}' does not exist in the AzureML workspace.",
            hint="Register it, or leave 'aml_environment_name' out: then the image is made of environment.yml.",
        )
    return found


def register_environment(workspace: Workspace, environment: Environment) -> Environment:
    """Return the registered environment of this name and version (without one: the latest); registers a missing one.

    It is registered where the service says that there is none, and on no other answer. The result is what the service
    has, and it is what a run is to be given.

    :raises AzureMLError: the service refuses.
    """
    found = _find(workspace, environment.name, environment.version)
    if found is not None:
        _log.info("Using existing Python environment '%s' with version '%s'.", found.name, found.version)
        return found
    if environment.version is None:
        environment.version = ENVIRONMENT_VERSION
    _log.info(
        "Python environment '%s' does not yet exist, creating and registering it with version '%s'.",
        environment.name,
        environment.version,
    )
    with quietly():
        return retried(
            f"registering the environment '{environment.name}'",
            lambda: _asked(environment.name, lambda: environment.register(workspace)),
        )


def _find(workspace: Workspace, name: str, version: str | None) -> Environment | None:
    """Return a registered environment; None where the service says that there is none."""
    from azureml.core import Environment

    try:
        return retried(
            f"asking for the environment '{name}'",
            lambda: _asked(name, lambda: Environment.get(workspace, name, version)),
        )
    except _RefusedError as error:
        if error.status_code == 404:
            return None
        raise


class _RefusedError(AzureMLError):
    """The service of environments refused. The SDK has the status in a text alone (``environment_client.py``)."""

    def __init__(self, name: str, status_code: int, text: str) -> None:
        super().__init__(scrub(text), where=f"environment '{name}'")
        self.status_code = status_code


def _asked(name: str, action: Callable[[], Environment]) -> Environment:
    try:
        return action()
    except Exception as error:
        found = _STATUS.search(str(error)) if type(error) is Exception else None
        if found is None:
            raise
        raise _RefusedError(name, int(found[1]), str(error)) from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Do something without the SDK's warnings about environments: that a version is set, say, is meant."""
    logger = logging.getLogger("azureml.core.environment")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _place(image: ImageRef, *, by_tag: bool) -> tuple[str, str]:
    """Return the address of an image's registry, and its name in it."""
    repository, at, digest = image.digest.partition("@")
    host, slash, name = repository.partition("/")
    if not (at and slash and name):
        raise WrongValue(f"the image {image.tag} was not pushed, so no cluster can pull it")
    if not by_tag:
        return host, f"{name}@{digest}"
    if not image.fingerprint:
        raise WrongValue(f"the image {image.tag} has no fingerprint, so its tag may come to mean another image")
    return host, f"{name}:{image.fingerprint[:32]}"
