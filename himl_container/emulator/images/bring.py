"""An image that is in a registry, brought to the daemon: pulled by our own client, so that no daemon needs a set-up."""

from __future__ import annotations

from collections.abc import Callable

from himl_container.cache import Cache
from himl_container.config.images import has_host
from himl_container.emulator.compute.model import Say
from himl_container.emulator.images.own_registry import OwnRegistry
from himl_container.emulator.images.progress import SayReporter
from himl_container.emulator.images.spec import BaseLogin
from himl_container.errors import InputError, RegistryError
from himl_container.image.engine import Engine
from himl_container.image.model import ImageInfo
from himl_container.publish.known_names import find_known, names_of, remember
from himl_container.publish.pull import pull_image
from himl_container.registry.reference import is_image, parse_reference

_HUB = "docker.io"


class Bringer:
    """Brings images to the daemon.

    :param connect_engine: gives the daemon; called once for each image, since it may have been started anew.
    """

    def __init__(self, registry: OwnRegistry, cache: Cache, connect_engine: Callable[[Cache], Engine]) -> None:
        self._registry, self._cache, self._connect_engine = registry, cache, connect_engine

    def bring(self, name: str, login: BaseLogin | None, say: Say) -> ImageInfo:
        """Return the daemon's image of a name; nothing travels where the daemon has it.

        A digest always means the same image, so nobody is asked for one that the daemon has. A tag of the emulator's
        registry is looked up there each time. A tag of another registry is taken as the daemon has it, if it does.

        :raises InputError: it is no name of an image.
        :raises RegistryError: the registry does not answer, refuses, or has no such image.
        :raises EngineError: no daemon answers.
        """
        if not is_image(name):
            hint = "Expected [registry/]repository[:tag][@sha256:digest], the repository in lower case."
            raise InputError(f"{name!r} is not the name of an image", hint=hint)
        engine = self._connect_engine(self._cache)
        own = self._registry.has(name)
        if own:
            name = self._registry.host + name[len(self._registry.host) :]
        found = self._present(name, engine)
        if found is not None and (not own or self._seen(name, found)):
            say(f"The daemon has {name}.")
            return found
        try:
            if own:
                self._must_exist(name)
            pulled = pull_image(
                name if has_host(name.partition("@")[0]) else _in_hub(name),
                engine=engine,
                cache=self._cache,
                reporter=SayReporter(say, notes=False),
                connect=self._registry.connect_with(login),
            )
        except RegistryError as error:
            what = f"The image {name} cannot be pulled: {error.what}"
            raise RegistryError(what, hint=error.hint if not own else _PUSH_FIRST) from error
        if own and "@" in name:
            remember(self._cache, [pulled.image.id], [_exact(name)])
        if pulled.existed:
            say(f"The daemon has {name}.")
        else:
            say(f"Pulled {name}: {pulled.fetched} layers, {pulled.bytes_received / 1e6:.1f} MB.")
        return pulled.image

    def _present(self, name: str, engine: Engine) -> ImageInfo | None:
        if "@" not in name:
            return engine.inspect(name)
        return find_known(_exact(name), engine=engine, cache=self._cache)

    def _seen(self, name: str, image: ImageInfo) -> bool:
        """Whether the emulator's registry had an image under this name and digest: the same may be elsewhere only."""
        return "@" in name and _exact(name) in names_of(self._cache, image.id)

    def _must_exist(self, name: str) -> None:
        """See that the emulator's registry has what a digest names; a pull would not ask where the daemon has it."""
        reference = parse_reference(name)
        if reference.digest and self._registry.connect(reference.repository).head(reference.digest) is None:
            raise RegistryError("the registry has no such image")


_PUSH_FIRST = "'himl-container emulator exec -- himl-container push' brings an image into the emulator's registry."


def _exact(name: str) -> str:
    """Return ``repository@digest``, without a tag."""
    reference = parse_reference(name)
    return reference.at(reference.digest)


def _in_hub(name: str) -> str:
    repository = name.partition("@")[0]
    return f"{_HUB}/{name}" if "/" in repository else f"{_HUB}/library/{name}"
