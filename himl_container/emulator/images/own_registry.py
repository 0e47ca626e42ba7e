"""The emulator's registry as its own process reaches it: by its name in Azure, without the detour through the proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from himl_container.emulator.images.spec import BaseLogin
from himl_container.progress import Reporter
from himl_container.registry.api import Repository, connect
from himl_container.registry.credentials import Credentials
from himl_container.registry.login import Login, Place, canonical_host

BUILT = "azureml/environments"
"""The repository of images that were built of definitions; one, so that they share their layers."""


@dataclass(frozen=True)
class OwnRegistry:
    """The registry behind ``NAME.azurecr.io``.

    :param host: that name; :param address: where it listens (``http://127.0.0.1:PORT``).
    :param user, password: its login there, where it asks for one.
    """

    host: str
    address: str
    user: str = ""
    password: str = field(default="", repr=False)

    def has(self, name: str) -> bool:
        """Whether an image or a repository is one of this registry."""
        return name.lower().startswith(f"{self.host}/")

    def connect(
        self,
        name: str,
        *,
        reporter: Reporter | None = None,
        credentials: Credentials | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Repository:
        """Return a repository; one of this registry with its own login and without a proxy."""
        if not self.has(name):
            return connect(name, reporter=reporter, credentials=credentials, environ=environ)
        place = self.address.partition("://")[2]
        known = [_Given(BaseLogin(place, self.user, self.password))] if self.user else []
        here = f"{place}{name[len(self.host) :]}"
        return connect(here, reporter=reporter, credentials=Credentials(known), environ={})

    def connect_with(self, login: BaseLogin | None) -> _Connect:
        """Return a function as :meth:`connect` that knows a login for one registry more."""
        return _Connect(self, login)


@dataclass(frozen=True)
class _Connect:
    registry: OwnRegistry
    login: BaseLogin | None

    def __call__(
        self, name: str, *, reporter: Reporter | None = None, environ: Mapping[str, str] | None = None
    ) -> Repository:
        credentials = None
        if self.login is not None:
            credentials = Credentials(
                [_Given(self.login, "the environment's definition"), *Credentials.of(environ).sources]
            )
        return self.registry.connect(name, reporter=reporter, credentials=credentials, environ=environ)


@dataclass(frozen=True)
class _Given:
    """A login for one registry alone: the one that a definition has with it, or that of the emulator's registry.

    :param source: where it comes from, for messages.
    """

    given: BaseLogin
    source: str = "the emulator's registry"

    def login(self, place: Place) -> Login | None:
        if canonical_host(place.host) != canonical_host(self.given.address.partition("/")[0]):
            return None
        return Login(self.given.username, self.given.password, source=self.source, only=True)
