"""``emulator.toml`` in the emulator's folder: compute targets, names, and what the emulator lets through.

::

    workspace = "ours"
    allow-hosts = ["pypi.org", "files.pythonhosted.org"]

    [clusters.cpu-cluster]
    max-nodes = 4
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himl_container.config.images import is_reference
from himl_container.emulator.compute.clusters import DEFAULT_CLUSTERS, clusters_of
from himl_container.emulator.compute.model import Cluster
from himl_container.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

_WORKSPACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,31}")
_GROUP_NAME = re.compile(r"[A-Za-z0-9_().-]{1,89}[A-Za-z0-9_()-]")
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class EmulatorConfig:
    """What a user may decide of an emulator.

    :param workspace, resource_group: names; they count at the first start only.
    :param token_lifetime: seconds for which a login is valid; :param job_token_lifetime: the same of a job's.
    :param allow_hosts: other hosts that clients behind the emulator may reach (``pypi.org``, ``*.example.com``).
    :param base_image: stands in for AzureML's own base images (``mcr.microsoft.com/azureml/...``) where images are
        built or brought for jobs; empty for the images themselves.
    :param azurite, registry: programs, where they are not on the search path.
    :param azurite_image, registry_image: container images to run instead of programs; without them, the ones that
        their makers publish are run where there are no programs.
    """

    workspace: str = "emulator"
    resource_group: str = "emulator-group"
    token_lifetime: float = 3600
    job_token_lifetime: float = 24 * 3600
    allow_hosts: tuple[str, ...] = ()
    base_image: str = ""
    azurite: str = ""
    registry: str = ""
    azurite_image: str = ""
    registry_image: str = ""
    clusters: tuple[Cluster, ...] = DEFAULT_CLUSTERS


def load_config(path: Path) -> EmulatorConfig:
    """Read a configuration; a file that is not there decides nothing.

    :raises InputError: it is not TOML, or has a field that does not exist or a value that cannot be.
    """
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        return EmulatorConfig()
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"this is not TOML: {error}", where=str(path)) from None
    return _Reader(path).config(document)


class _Reader:
    """Turns TOML's values into ours, and says where one is wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def config(self, document: Mapping[str, Any]) -> EmulatorConfig:
        readers: dict[str, Callable[[str, Any], Any]] = {
            "workspace": self._matching(_WORKSPACE_NAME, "2 to 32 letters, digits, '-' and '_'"),
            "resource-group": self._matching(_GROUP_NAME, "up to 90 letters, digits and '_().-'"),
            "token-lifetime": self._number(1, 30 * 24 * 3600),
            "job-token-lifetime": self._number(1, 30 * 24 * 3600),
            "allow-hosts": self._hosts,
            "base-image": self._image,
            "azurite": self._text,
            "registry": self._text,
            "azurite-image": self._image,
            "registry-image": self._image,
            "clusters": self._clusters,
        }
        found = {}
        for name, value in document.items():
            if name not in readers:
                raise self._wrong(name, f"there is no such field; known are {', '.join(sorted(readers))}")
            found[name.replace("-", "_")] = readers[name](name, value)
        return EmulatorConfig(**found)

    def _clusters(self, place: str, value: Any) -> tuple[Cluster, ...]:
        if not isinstance(value, dict):
            raise self._wrong(place, f"tables are wanted ([{place}.cpu-cluster])")
        return clusters_of(value, f"{self._path} {place}")

    def _hosts(self, place: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) and _HOST.fullmatch(item) for item in value):
            raise self._wrong(place, 'a list of host names is wanted, such as ["pypi.org", "*.example.com"]')
        return tuple(item.lower() for item in value)

    def _image(self, place: str, value: Any) -> str:
        if not isinstance(value, str) or not is_reference(value):
            raise self._wrong(place, "the name of an image is wanted (repository[:tag][@sha256:digest])")
        return value

    def _text(self, place: str, value: Any) -> str:
        if not isinstance(value, str) or "\0" in value:
            raise self._wrong(place, "a text is wanted")
        return value

    def _matching(self, pattern: re.Pattern[str], wanted: str) -> Callable[[str, Any], str]:
        def read(place: str, value: Any) -> str:
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise self._wrong(place, f"{value!r} cannot be: {wanted}")
            return value

        return read

    def _number(self, low: float, high: float) -> Callable[[str, Any], float]:
        def read(place: str, value: Any) -> float:
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
                raise self._wrong(place, f"{value!r} cannot be: a number of seconds from {low:g} to {high:g}")
            return float(value)

        return read

    def _wrong(self, place: str, what: str) -> InputError:
        return InputError(f"{place}: {what}", where=str(self._path), hint="docs/emulator.md lists the fields.")
