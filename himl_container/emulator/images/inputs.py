"""What a build needs out of the workspace's blob storage: private wheels, and Docker build contexts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from himl_container.emulator.blobs import RUNS_CONTAINER, Blobs
from himl_container.emulator.http import Refusal
from himl_container.emulator.state.paths import write_below
from himl_container.errors import InputError

WHEELS = "Environment/azureml-private-packages/"
"""Where ``Environment.add_private_pip_wheel`` of the SDK uploads, in the container of artifacts."""

CONTEXTS = "DockerBuildContext/"
"""Where ``DockerBuildContext.from_local_directory`` of the SDK uploads, in the same container."""

_LARGEST_CONTEXT = 4 << 30
_MOST_FILES = 20_000
_FILE_OPTION = re.compile(r"\s*(?:-[rce]|--(?:requirement|constraint|editable))")
_WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,250}\.whl")


@dataclass(frozen=True)
class CondaProject:
    """A folder in which our own pipeline can build.

    :param environment: the ``environment.yml``; :param wheels: private wheels beside it.
    """

    folder: Path
    environment: Path
    wheels: tuple[Path, ...]


class BuildInputs:
    """Lays files of the workspace's storage out in folders. Only what was uploaded for builds is given.

    The emulator reads with its own key, and a job may submit definitions: without that limit a job could read the files
    of other jobs.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def project(self, conda: str, folder: Path) -> CondaProject:
        """Write Conda dependencies and their private wheels into an empty folder.

        :param conda: of :class:`himl_container.emulator.images.spec.ImageSpec`.
        :raises InputError: a wheel is not there, or its name is none.
        """
        import yaml

        document: dict[str, Any] = json.loads(conda)
        if "${" in conda:
            # Our pipeline would put in those of its process, and they are none of a definition's business.
            raise InputError("the Conda dependencies refer to a variable (${...}), which has no value here")
        wheels: list[Path] = []
        items = document.get("dependencies")
        if isinstance(items, list):
            document["dependencies"] = [self._without_wheels(item, folder, wheels) for item in items]
        path = folder / "environment.yml"
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        return CondaProject(folder, path, tuple(wheels))

    def context(self, url: str, folder: Path) -> None:
        """Lay a Docker build context out in an empty folder.

        :raises InputError: it is not one of the workspace's, is empty or too large.
        """
        place = self._place(url)
        if place is None or not place.startswith(CONTEXTS) or not place.strip("/"):
            raise InputError(f"the build context {_shown(url)} is not one of this workspace's storage")
        prefix = place.rstrip("/") + "/"
        size = count = 0
        for blob in self._blobs.list(RUNS_CONTAINER, prefix):
            size, count = size + blob.size, count + 1
            if size > _LARGEST_CONTEXT or count > _MOST_FILES:
                raise InputError(f"the build context {_shown(url)} is too large to be built here")
            try:
                write_below(folder, blob.name[len(prefix) :], self._blobs.stream(RUNS_CONTAINER, blob.name))
            except Refusal as refusal:
                raise InputError(f"the build context has a file {blob.name!r}: {refusal.message}") from None
        if not count:
            raise InputError(f"the build context {_shown(url)} has no files")

    def _without_wheels(self, item: Any, folder: Path, wheels: list[Path]) -> Any:
        """Return an item of the dependencies; wheels of the storage are laid out instead."""
        if not isinstance(item, Mapping) or not isinstance(item.get("pip"), list):
            return item
        kept = []
        for line in item["pip"]:
            place = self._place(line) if isinstance(line, str) else None
            if place is None:
                if isinstance(line, str) and _FILE_OPTION.match(line):
                    raise InputError(f"{line!r}: there is no file beside a definition's dependencies")
                kept.append(line)
                continue
            path = self._wheel(line, place, folder)
            if path not in wheels:
                wheels.append(path)
        return {**item, "pip": kept}

    def _wheel(self, url: str, place: str, folder: Path) -> Path:
        name = place.removeprefix(WHEELS)
        if not place.startswith(WHEELS) or not _WHEEL.fullmatch(name):
            raise InputError(f"{_shown(url)} is not a private wheel of this workspace")
        path = folder / "wheels" / name
        path.parent.mkdir(exist_ok=True)
        try:
            pieces = self._blobs.stream(RUNS_CONTAINER, place)
            with path.open("wb") as file:
                file.writelines(pieces)
        except FileNotFoundError:
            hint = "Environment.add_private_pip_wheel uploads it."
            raise InputError(f"the workspace has no private wheel {name}", hint=hint) from None
        return path

    def _place(self, url: str) -> str | None:
        """Return the name of a blob in the container of artifacts by its address; None for any other address."""
        own = urlsplit(self._blobs.url(RUNS_CONTAINER, ""))
        given = urlsplit(url.strip())
        if given.scheme != "https" or given.netloc.lower() != own.netloc.lower():
            return None
        path = unquote(given.path)
        before = own.path.rstrip("/") + "/"
        return path[len(before) :] if path.startswith(before) else ""


def _shown(url: str) -> str:
    return url.partition("?")[0]
