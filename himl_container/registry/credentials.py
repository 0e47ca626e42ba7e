"""Where logins come from: the environment, Docker's and Podman's files, the Azure workspace; in this order.

Nothing is asked before a registry wants a login, and a later source only when no earlier one has a login that works.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from himl_container.errors import InputError
from himl_container.registry.login import (
    Login,
    LoginRefusedError,
    LoginUnavailableError,
    Place,
    Source,
    canonical_host,
)

__all__ = [
    "Credentials",
    "EnvironmentLogin",
    "Login",
    "LoginChain",
    "LoginRefusedError",
    "LoginUnavailableError",
    "Source",
]

USER = "HIML_CONTAINER_REGISTRY_USER"
PASSWORD = "HIML_CONTAINER_REGISTRY_PASSWORD"  # noqa: S105 - the variable's name
HOST = "HIML_CONTAINER_REGISTRY_HOST"
REGISTRY = "HIML_CONTAINER_REGISTRY"


class Credentials:
    """The sources of logins, in the order in which they are asked."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)

    @classmethod
    def of(
        cls, environ: Mapping[str, str] | None = None, *, registry: str = "", workspace: Sequence[Source] | None = None
    ) -> Credentials:
        """Return the sources that a user expects.

        :param environ: the process's environment where not given.
        :param registry: the registry of the project's images (``Settings.remote_name``), which the user and password
            of the environment belong to unless ``HIML_CONTAINER_REGISTRY_HOST`` names another.
        :param workspace: what stands in for the workspace's logins (:mod:`himl_container.registry.azure_registry`).
        """
        from himl_container.registry import azure_registry, docker_config

        environ = os.environ if environ is None else environ
        azure = azure_registry.workspace_sources(environ) if workspace is None else workspace
        return cls([EnvironmentLogin(environ, registry), *docker_config.sources(environ), *azure])


class EnvironmentLogin:
    """An explicit user and password. They belong to one registry, so they never go to the base image's."""

    def __init__(self, environ: Mapping[str, str], registry: str = "") -> None:
        self._user = environ.get(USER, "")
        self._password = environ.get(PASSWORD, "")
        named = environ.get(HOST, "") or registry or environ.get(REGISTRY, "")
        self._host = canonical_host(named.removeprefix("https://").removeprefix("http://").partition("/")[0])

    def login(self, place: Place) -> Login | None:
        """Return the login if it is this registry's.

        :raises LoginUnavailableError: it is not said which registry it belongs to.
        :raises InputError: one of the two variables is missing.
        """
        if not (self._user or self._password):
            return None
        if not self._host:
            raise LoginUnavailableError(f"{USER} belongs to no registry", hint=f"Name the registry in {HOST}.")
        if self._host != canonical_host(place.host):
            return None
        if not (self._user and self._password):
            there, missing = (USER, PASSWORD) if self._user else (PASSWORD, USER)
            raise InputError(f"{there} is set without {missing}", where=place.host, hint="Set both, or neither.")
        if ":" in self._user:
            raise InputError("the name of a user has no colon in it", where=USER)
        return Login(self._user, self._password, source=f"{USER} and {PASSWORD}", only=True)


class LoginChain:
    """The logins of one registry, asked for one after the other. Not for several threads at once.

    A login that was accepted before and is refused now may have run out (a refresh token of Azure, a helper's token):
    its source is asked again, once for each time that it was accepted.

    ``known`` are all logins that were found so far, ``refused`` those that the registry did not take, ``problems`` what
    kept a source from giving one.
    """

    def __init__(self, credentials: Credentials, place: Place) -> None:
        self.place = place
        self.known: list[Login] = []
        self.refused: list[Login] = []
        self.problems: list[LoginUnavailableError] = []
        self._sources = credentials.sources
        self._found: list[Login | None] = []
        self._accepted: set[Login] = set()

    def best(self, passed: Sequence[Login | None] = ()) -> Login | None:
        """Return the first login that was not refused and is not among ``passed``; None when there is none left."""
        for index in range(len(self._sources)):
            if index == len(self._found):
                self._found.append(self._ask(index))
            login = self._found[index]
            if login is None:
                continue
            if login not in self.refused and login not in passed:
                return login
            if login.only:
                return None
        return None

    def accept(self, login: Login) -> None:
        """Note that the registry took a login."""
        self._accepted.add(login)

    def refuse(self, login: Login) -> None:
        """Note that the registry does not take a login (any more)."""
        self.refused.append(login)
        if login in self._accepted and login in self._found:
            index = self._found.index(login)
            self._found[index] = self._ask(index)

    def _ask(self, index: int) -> Login | None:
        try:
            login = self._sources[index].login(self.place)
        except LoginUnavailableError as problem:
            self.problems.append(problem)
            return None
        if login is not None:
            self.known.append(login)
        return login
