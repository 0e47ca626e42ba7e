"""What an environment's definition asks of an image (``core/environment.py`` of the SDK, ``docker`` and ``python``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from himl_container.emulator.compute.definition import section, value
from himl_container.emulator.http import Refusal
from himl_container.errors import InputError
from himl_container.launch.parse import is_text

_FORMAT = 1
"""Raised when an image of the same definition would come out otherwise."""

_AZUREML_BASES = "mcr.microsoft.com/azureml/"
WHERE_REPLACED = "base-image in emulator.toml, else HIML_CONTAINER_BASE_IMAGE"
_STORAGE = "storageaccount"


@dataclass(frozen=True)
class BaseLogin:
    """The login of the registry that a base image comes from."""

    address: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class ImageSpec:
    """What is wanted. At most one of ``base_image``, ``dockerfile`` and ``context`` is set.

    :param base_image: with its registry's address in front, where it has one.
    :param context: address of the folder of blobs that is the Docker build context.
    :param dockerfile_path: of the Dockerfile in it.
    :param stand_in: what replaces AzureML's own images in a Dockerfile; empty for nothing.
    :param conda: the Conda dependencies to put on top, as JSON; empty where the image is used as it is.
    :param interpreter: what to call in an image that is used as it is.
    """

    base_image: str = ""
    dockerfile: str = ""
    context: str = ""
    dockerfile_path: str = "Dockerfile"
    stand_in: str = ""
    conda: str = ""
    interpreter: str = "python"
    login: BaseLogin | None = None

    @property
    def built(self) -> bool:
        """Whether an image has to be made, as opposed to brought."""
        return bool(self.dockerfile or self.context or self.conda)

    @property
    def key(self) -> str:
        """The hash that names the image which is made of this; 32 hexadecimal digits."""
        made_of = [self.base_image, self.dockerfile, self.context, self.dockerfile_path, self.stand_in, self.conda]
        return hashlib.sha256(json.dumps([_FORMAT, *made_of]).encode()).hexdigest()[:32]


def read_spec(environment: Mapping[str, Any], *, replaced_base: str = "") -> ImageSpec:
    """Read an environment as the SDK writes it.

    :param replaced_base: the image that stands in for AzureML's own base images; empty for none.
    :raises InputError: it is none, or asks for what is not built here.
    """
    try:
        return _read(environment, replaced_base)
    except Refusal as refusal:
        raise InputError(refusal.message) from None


def replaced(name: str, base: str) -> str:
    """Return an image's name, or that of what stands in for it where it is one of AzureML's own."""
    return base if base and is_azureml(name) else name


def is_azureml(name: str) -> bool:
    """Whether an image is one of the bases that AzureML maintains."""
    return name.lower().startswith(_AZUREML_BASES)


def _read(environment: Mapping[str, Any], replaced_base: str) -> ImageSpec:
    if value(environment, "r"):
        raise InputError("environments of R are not built here", hint="Use an image that has R.")
    docker, python = section(environment, "docker"), section(environment, "python")
    user_managed = _flag(python, "userManagedDependencies")
    conda = "" if user_managed else _conda(python)
    if _text(python, "baseCondaEnvironment"):
        raise InputError("'base_conda_environment' is not built here", hint="Write all dependencies down.")
    registry = section(docker, "baseImageRegistry")
    address = _text(registry, "address").removeprefix("https://").rstrip("/")
    username, password = _text(registry, "username"), _text(registry, "password")
    login = BaseLogin(address, username, password) if address and username and password else None
    dockerfile, context = _text(docker, "baseDockerfile"), section(docker, "buildContext")
    base = "" if dockerfile or context else _text(docker, "baseImage")
    if not (dockerfile or context or base):
        raise InputError("the environment names no base image, no Dockerfile and no build context")
    return ImageSpec(
        base_image=replaced(_full(base, address), replaced_base),
        dockerfile=dockerfile,
        context=_context(context),
        dockerfile_path=_text(context, "dockerfilePath") or "Dockerfile",
        stand_in=replaced_base if dockerfile or context else "",
        conda=conda,
        interpreter=_text(python, "interpreterPath") or "python",
        login=login,
    )


def _full(base: str, address: str) -> str:
    # The SDK's documentation has base images with and without the address of their registry.
    return f"{address}/{base}" if base and address and not base.startswith(f"{address}/") else base


def _context(context: Mapping[str, Any]) -> str:
    if not context:
        return ""
    kind = _text(context, "locationType").replace("_", "").lower()
    if kind != _STORAGE:
        raise InputError("a build context comes from the workspace's storage here, not from git")
    return _text(context, "location")


def _conda(python: Mapping[str, Any]) -> str:
    found = value(python, "condaDependencies")
    if found is None:
        if _text(python, "condaDependenciesFile"):
            raise InputError("the definition names a file of Conda dependencies instead of having them in it")
        return ""
    if not isinstance(found, Mapping):
        raise InputError("the Conda dependencies are not an object")
    return json.dumps(found, sort_keys=True)


def _flag(document: Mapping[str, Any], name: str) -> bool:
    found = value(document, name, False)
    if not isinstance(found, bool):
        raise InputError(f"{name} is neither true nor false")
    return found


def _text(document: Mapping[str, Any], name: str) -> str:
    found = value(document, name, "")
    if not isinstance(found, str) or not is_text(found):
        raise InputError(f"{name} is not text")
    return found.strip() if name != "baseDockerfile" else found
