"""Running uv so that only our inputs decide what it chooses, and the user's own set-up how it reaches a network.

From the user's uv configuration (``uv.toml`` of the user and of the machine, ``UV_*`` variables) come certificates,
proxies, keyring, hosts, time-outs and the cache, and the default index where ours is not set. Whatever else is in it
(resolution, constraints, other indexes, a ``uv.toml`` or ``pyproject.toml`` beside the current folder) would make two
people's locks differ and is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himl_container.environment.model import PipIndexes
from himl_container.environment.urls import scrub, strip_credentials
from himl_container.errors import ArtifactError, InputError

_TRANSPORT_KEYS = (
    "native-tls",
    "system-certs",
    "keyring-provider",
    "allow-insecure-host",
    "cache-dir",
    "offline",
    "http-proxy",
    "https-proxy",
    "no-proxy",
    "concurrent-downloads",
)
_TRANSPORT_VARIABLES = (
    "UV_CACHE_DIR",
    "UV_CONCURRENT_DOWNLOADS",
    "UV_CREDENTIALS_DIR",
    "UV_HTTP_CONNECT_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_HTTP_TIMEOUT",
    "UV_INSECURE_HOST",
    "UV_KEYRING_PROVIDER",
    "UV_LINK_MODE",
    "UV_NATIVE_TLS",
    "UV_NETRC",
    "UV_NO_CACHE",
    "UV_OFFLINE",
    "UV_REQUEST_TIMEOUT",
    "UV_SYSTEM_CERTS",
)
_DROPPED = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP")


@dataclass(frozen=True)
class UvRun:
    """What a run of uv came to.

    :param errors: standard error, without credentials.
    """

    exit_code: int
    output: str
    errors: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings among the messages."""
        lines = self.errors.splitlines()
        return tuple(line.removeprefix("warning: ") for line in lines if line.startswith("warning: "))


def run_uv(
    arguments: Sequence[str | Path],
    *,
    folder: Path,
    indexes: PipIndexes,
    more_config: Mapping[str, Any] | None = None,
    more_environment: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> UvRun:
    """Run uv with our configuration and wait for it.

    :param folder: a private folder, to run in and for the configuration.
    :raises InputError: uv is not installed.
    """
    import tomli_w
    from uv import find_uv_bin

    config, secrets = configuration(indexes, environ)
    path = folder / "uv.toml"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        tomli_w.dump(config | dict(more_config or {}), file)
    try:
        command = [find_uv_bin(), *map(str, arguments), "--config-file", str(path), "--no-progress", "--color", "never"]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**_environment(environ), **secrets, **(more_environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise InputError("uv is not installed", hint="Install himl-container again; it brings uv along.") from error
    return UvRun(done.returncode, done.stdout, scrub(done.stderr))


def configuration(indexes: PipIndexes, environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return uv's configuration for these indexes, and the variables that carry their credentials.

    The first index that has a package decides (uv's ``first-index``), so a public package of the same name can never
    take the place of a private one.
    """
    user = user_configuration(environ)
    config: dict[str, Any] = {name: user[name] for name in _TRANSPORT_KEYS if name in user}
    config["index-strategy"] = "first-index"
    urls = [(url, False) for url in indexes.private]
    default = indexes.index or _default_index(user, environ)
    urls += [(default, True)] if default else []
    entries: list[dict[str, Any]] = []
    secrets: dict[str, str] = {}
    for number, (url, is_default) in enumerate(urls):
        bare, name, password = strip_credentials(url)
        entries.append({"name": f"himl{number}", "url": bare, **({"default": True} if is_default else {})})
        if name or password:
            secrets |= {f"UV_INDEX_HIML{number}_USERNAME": name, f"UV_INDEX_HIML{number}_PASSWORD": password}
    if entries:
        config["index"] = entries
    if indexes.find_links:
        config["find-links"] = list(indexes.find_links)
    return config, secrets


def user_configuration(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the machine's and the user's ``uv.toml``, the user's on top; empty where there are none.

    :raises InputError: one is not TOML.
    """
    if environ.get("UV_NO_CONFIG"):
        return {}
    if environ.get("UV_CONFIG_FILE"):
        return _toml(Path(environ["UV_CONFIG_FILE"]))
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config")
    return {**_toml(Path("/etc/uv/uv.toml")), **_toml(home / "uv" / "uv.toml")}


def unreachable(errors: str) -> ArtifactError | None:
    """Return the error for a run of uv that failed because an index did not answer or refused; None otherwise."""
    markers = (
        "error sending request",
        "HTTP status",
        "Failed to fetch",
        "Request failed",
        "Network connectivity is disabled",
    )
    unsolvable = "No solution found" in errors.partition("hint:")[0]
    # Behind an index that wants another login, any package may be: that it "was not found" proves nothing.
    hidden = "lack of valid authentication" in errors and "was not found" in errors
    if not hidden and (unsolvable or not any(marker in errors for marker in markers)):
        return None
    refused = re.search(r"\b40[13]\b|[Uu]nauthorized|Forbidden", errors)
    hint = (
        "Give the index's user and password in a netrc, a keyring, or the variables UV_INDEX_*."
        if refused
        else "Check the network and the index's address ('pip-index-url'); without internet, name a mirror."
    )
    return ArtifactError(f"a package index cannot be read:\n{errors.removeprefix('error: ').strip()}", hint=hint)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environ.items()
        if (not name.startswith("UV_") or name in _TRANSPORT_VARIABLES) and name not in _DROPPED
    }
    return {**kept, "UV_NO_PROGRESS": "1", "NO_COLOR": "1", "UV_PYTHON_DOWNLOADS": "never"}


def _default_index(user: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    named = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL")
    if named:
        return named.partition("=")[2] if named.partition("=")[0].isidentifier() else named
    for entry in user.get("index", []):
        if isinstance(entry, dict) and entry.get("default") is True:
            return str(entry.get("url", ""))
    pip = user.get("pip")
    return str(user.get("index-url") or (pip.get("index-url", "") if isinstance(pip, dict) else ""))


def _toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the configuration of uv is not TOML: {error}", where=str(path)) from error
    return values
