"""Logins that ``docker login`` and ``podman login`` have kept: ``config.json``, ``auth.json``.

Docker's rules: a helper for the registry (``credHelpers``), else the helper for all (``credsStore``), else the entry in
``auths``; the key is the registry's address, with or without scheme and path, and Docker Hub is
``https://index.docker.io/v1/``. Podman's files have the same form; a key of theirs may also name a part of a registry
(``quay.io/team``), of which the longest counts (containers-auth.json(5)).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from himl_container.errors import InputError
from himl_container.registry.credential_helpers import ask_helper
from himl_container.registry.login import DOCKER_HUB, Login, LoginUnavailableError, Place, Source, canonical_host

HUB_KEY = "https://index.docker.io/v1/"


def sources(environ: Mapping[str, str]) -> list[Source]:
    """Return Docker's file, then Podman's: the one that is named, the session's, the user's."""
    home = Path(environ.get("HOME") or Path.home())
    paths = [Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"]
    if environ.get("REGISTRY_AUTH_FILE"):
        paths.append(Path(environ["REGISTRY_AUTH_FILE"]))
    if environ.get("XDG_RUNTIME_DIR"):
        paths.append(Path(environ["XDG_RUNTIME_DIR"]) / "containers" / "auth.json")
    paths.append(Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json")
    return [LoginFile(path, environ) for path in dict.fromkeys(paths)]


class LoginFile:
    """One file of logins; read when a registry wants a login, since it may have changed by then."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self._environ = environ

    def login(self, place: Place) -> Login | None:
        """Return the file's login for a registry.

        :raises InputError: the file is not JSON.
        :raises LoginUnavailableError: the file cannot be read, an entry is damaged, or a helper does not work.
        """
        config = self._read()
        host = canonical_host(place.host)
        helper, key = _helper(config, host)
        if helper:
            server = HUB_KEY if host == DOCKER_HUB else place.host
            found = ask_helper(helper, server, environ=self._environ, source=f"{key} in {self.path}")
            if found is not None:
                return found
        return self._entry(config, host, place.repository)

    def _read(self) -> Mapping[str, Any]:
        try:
            value = json.loads(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise LoginUnavailableError(f"{self.path} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            # Without the parser's own words, which quote the file, and not chained, since they hold all of it.
            raise InputError(
                "is not JSON", where=str(self.path), hint="'docker login' writes it anew when it is removed."
            ) from None
        return value if isinstance(value, dict) else {}

    def _entry(self, config: Mapping[str, Any], host: str, repository: str) -> Login | None:
        entries = _table(config.get("auths"))
        best, found = -1, None
        for key, entry in entries.items():
            named, namespace = _key(key)
            inside = not namespace or f"{repository}/".startswith(f"{namespace}/")
            if named == host and inside and len(namespace) > best and isinstance(entry, dict):
                login = self._parse(key, entry)
                if login is not None:
                    best, found = len(namespace), login
        return found

    def _parse(self, key: str, entry: Mapping[str, Any]) -> Login | None:
        source = str(self.path)
        user, password = _text(entry.get("username")), _text(entry.get("password"))
        if _text(entry.get("auth")):
            try:
                # Docker pads the decoded text with zero bytes.
                decoded = base64.b64decode(_text(entry["auth"]), validate=True).decode().rstrip("\0")
            except (binascii.Error, ValueError):
                raise LoginUnavailableError(f"the login of {key!r} in {self.path} is damaged (auth)") from None
            user, colon, password = decoded.partition(":")
            if not colon:
                raise LoginUnavailableError(f"the login of {key!r} in {self.path} is damaged (auth)")
        token = _text(entry.get("identitytoken"))
        if not (user and password) and not token:
            return None  # what Docker leaves in the file when a helper keeps the login
        return Login(user, password, token, source)


def _helper(config: Mapping[str, Any], host: str) -> tuple[str, str]:
    """Return the name of the helper for a registry and the key that names it; empty where there is none."""
    for key, name in _table(config.get("credHelpers")).items():
        if _key(key) == (host, "") and _text(name):
            return _text(name), "credHelpers"
    return _text(config.get("credsStore")), "credsStore"


def _key(key: str) -> tuple[str, str]:
    """Return the registry's address of a key, and the part of the registry that it is for."""
    _, scheme, rest = key.rpartition("://")
    host, _, path = rest.partition("/")
    # Addresses of old have a scheme or the version of the interface behind the host; neither is a part of a registry.
    return canonical_host(host), "" if scheme or path.rstrip("/") in ("v1", "v2") else path.strip("/")


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
