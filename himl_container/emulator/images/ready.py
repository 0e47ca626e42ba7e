"""The images of jobs: :class:`himl_container.emulator.compute.model.JobImages` for real."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from himl_container.emulator.compute.definition import section, value
from himl_container.emulator.compute.model import Definition, Say
from himl_container.emulator.http import Refusal
from himl_container.emulator.images.bring import Bringer
from himl_container.emulator.images.build import Builder
from himl_container.emulator.images.spec import WHERE_REPLACED, ImageSpec, is_azureml, read_spec
from himl_container.emulator.state.environments import Environments
from himl_container.errors import InputError, RegistryError
from himl_container.image.model import PREFIX, ImageInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERPRETER = f"{PREFIX}/bin/python"
"""Of images that were built of Conda dependencies."""

_NAME_ANOTHER = (
    "Where AzureML's base images cannot be had, 'base-image' in emulator.toml names what stands in for them "
    "('himl-container base create' makes one)."
)


@dataclass(frozen=True)
class ImageFacts:
    """What ``Environment.get_image_details`` tells.

    :param name: of the image, with its registry; :param exists: whether it is there to be pulled.
    """

    name: str
    spec: ImageSpec
    exists: bool

    @property
    def interpreter(self) -> str:
        """What to call in it."""
        return INTERPRETER if self.spec.conda else self.spec.interpreter


class Images:
    """Brings or builds the image of a definition; one build of the same at a time.

    :param replaced_base: the image that stands in for AzureML's own base images; empty for none.
    """

    def __init__(
        self, environments: Environments, bringer: Bringer, builder: Builder, *, replaced_base: str = ""
    ) -> None:
        self._environments, self._bringer, self._builder = environments, bringer, builder
        self._replaced_base = replaced_base
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self._guard = threading.Lock()

    def ready(self, definition: Definition, say: Say) -> tuple[str, str]:
        """Bring a run configuration's image to the daemon.

        :return: the daemon's id of the image, and the interpreter to call.
        :raises HimlError: it cannot be pulled or built.
        """
        try:
            environment = self._resolved(section(definition, "environment"))
        except Refusal as refusal:
            raise InputError(refusal.message) from None
        image = self.bring(environment, say)
        return image.id, self.facts(environment, ask=False).interpreter

    def bring(self, environment: Mapping[str, Any], say: Say) -> ImageInfo:
        """Bring an environment's image to the daemon and return what the daemon says of it.

        :raises HimlError: it cannot be pulled or built.
        """
        spec = self._spec(environment, say)
        try:
            return self._brought(spec, say)
        except RegistryError as error:
            if is_azureml(spec.base_image):
                error.hint = "\n  ".join(filter(None, (error.hint, _NAME_ANOTHER)))
            raise

    def _brought(self, spec: ImageSpec, say: Say) -> ImageInfo:
        if not spec.built:
            return self._bringer.bring(spec.base_image, spec.login, say)
        with self._alone(spec.key):
            if self._builder.exists(spec):
                say(f"The image of this environment is there: {self._builder.name(spec)}.")
            else:
                self._builder.build(spec, say)
        return self._bringer.bring(self._builder.name(spec), None, say)

    def facts(self, environment: Mapping[str, Any], *, ask: bool = True) -> ImageFacts:
        """Return what is known of an environment's image, without building it.

        :param ask: look into the registry for it.
        :raises InputError: the environment is none.
        :raises RegistryError: the registry does not answer.
        """
        spec = self._spec(environment, None)
        if not spec.built:
            return ImageFacts(spec.base_image, spec, exists=True)
        return ImageFacts(self._builder.name(spec), spec, exists=ask and self._builder.exists(spec))

    def _spec(self, environment: Mapping[str, Any], say: Say | None) -> ImageSpec:
        spec = read_spec(environment)
        found = read_spec(environment, replaced_base=self._replaced_base)
        if say is not None and found.base_image != spec.base_image:
            say(f"{spec.base_image} is replaced by {found.base_image} ({WHERE_REPLACED}).")
        return found

    def _resolved(self, environment: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the whole definition where a run configuration only names one, and a password that was left out."""
        name, version = value(environment, "name", ""), value(environment, "version", "")
        stored = self._environments.find(str(name), str(version)) if name else None
        if stored is None:
            return environment
        if not (value(environment, "docker") or value(environment, "python")):
            return stored.definition
        return _with_password(environment, stored.definition)

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Let one thread build what others wait for."""
        with self._guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._locks[key]
                if users == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = lock, users - 1


def _with_password(environment: Mapping[str, Any], stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a definition with the stored password of the same login: a job is not shown any, and submits without."""
    docker = section(environment, "docker")
    given, known = section(docker, "baseImageRegistry"), section(section(stored, "docker"), "baseImageRegistry")
    same = all(value(given, name) == value(known, name) for name in ("address", "username"))
    if not value(given, "username") or value(given, "password") or not same:
        return environment
    registry = {**given, "password": value(known, "password")}
    return {**environment, "docker": {**docker, "baseImageRegistry": registry}}
