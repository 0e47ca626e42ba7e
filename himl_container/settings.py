"""What the user decided, in one frozen value.

Sources, later ones win: ``[tool.himl-container]`` in ``pyproject.toml``, ``HIML_CONTAINER_*`` variables, flags.
Validated once, here; every later stage takes what it needs from the result and never looks at a source again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from himl_container.config import images, values
from himl_container.config.sources import Project, Raw, find_project, variable, variables
from himl_container.errors import InputError
from himl_container.find import find_upwards

DEFAULT_BASE_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
LOCK_FILE_NAME = "pylock.himl.toml"
CONTEXT_MARKER = "himl-context.json"
"""Its presence says that a folder is a build context that we wrote, and may write again."""
ENVIRONMENT_FILE_NAME = "environment.yml"


@dataclass(frozen=True)
class Settings:
    """The settings of one project.

    :param root: the project's folder: the one that holds ``pyproject.toml`` with our table, else the first environment
        file's folder, else the current one.
    :param conda_files: environment files, in the order in which they are merged.
    :param wheels: private wheels (``.whl`` files).
    :param pip_index_url: the main package index.
    :param pip_extra_index_urls: private indexes that are searched first (hi-ml's meaning).
    :param channel_mirrors: pairs of a channel name or URL and the URL (``file://`` too) that serves it.
    :param base_image: ``repository[:tag][@digest]``.
    :param cuda: CUDA version (``12.4``) that the base provides and the solver may assume; empty for none.
    :param platform: the Conda subdir of the image.
    :param glibc: the C library version that the solvers may assume of the base; the smoke test compares it.
    :param apt: Debian packages of the system part, sorted.
    :param system_lines: Dockerfile lines of the system part, as the user wrote them.
    :param template: the user's own Jinja2 template that extends ``Dockerfile.j2``.
    :param test: shell commands that must succeed inside the image.
    :param test_imports: further modules that must import; the declared packages' own are found without this.
    :param test_allow: names of checks of the smoke test that may fail (``requirements``, ``import cv2``).
    :param image_name: repository name of the built image.
    :param registry: where images are pushed: ``host[:port][/path]``; empty for nowhere.
    :param compression: how layers travel, ``gzip`` or ``zstd``.
    :param azureml_environment: what a run in AzureML gets: our image by its digest (``image``), by its immutable tag
        (``image-by-tag``), or one that AzureML builds of the Conda dependencies itself (``build``).
    :param skip_post_link: names of Conda packages whose post-link script is knowingly not run.
    :param pypi_names: pairs of a Conda package name and the distribution that it provides, where the names differ.
    :param cache_dir: the folder of layers, wheels and records.
    :param run: the defaults of launches (``[tool.himl-container.run]``) as written; checked by ``launch``.
    :param source: the ``pyproject.toml`` that was read, for messages; None where there is none.
    :param warnings: what the reader should know about the settings themselves.
    """

    root: Path
    conda_files: tuple[Path, ...]
    lock_file: Path
    cache_dir: Path
    wheels: tuple[Path, ...] = ()
    pip_index_url: str = ""
    pip_extra_index_urls: tuple[str, ...] = ()
    channel_mirrors: tuple[tuple[str, str], ...] = ()
    base_image: str = DEFAULT_BASE_IMAGE
    cuda: str = ""
    platform: str = "linux-64"
    glibc: str = "2.28"
    apt: tuple[str, ...] = ()
    system_lines: tuple[str, ...] = ()
    template: Path | None = None
    test: tuple[str, ...] = ()
    test_imports: tuple[str, ...] = ()
    test_allow: tuple[str, ...] = ()
    image_name: str = "himl"
    registry: str = ""
    compression: str = "gzip"
    azureml_environment: str = "image"
    skip_post_link: tuple[str, ...] = ()
    pypi_names: tuple[tuple[str, str], ...] = ()
    run: Mapping[str, object] = field(default_factory=dict)
    source: Path | None = field(default=None, compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def remote_name(self) -> str:
        """Name of the image's repository with its registry's address; empty where no registry is set."""
        if images.has_host(self.image_name):
            return self.image_name
        return f"{self.registry}/{self.image_name}" if self.registry else ""


def load_settings(flags: Mapping[str, object], *, cwd: Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings from all sources.

    A later source replaces a list of an earlier one, and adds to a table of an earlier one.

    :param flags: keys as in the file (``conda-files``), or with underscores; None means that the flag was not given.
    :param cwd: where relative flags and variables start, and the search for ``pyproject.toml`` and ``environment.yml``.
    :raises InputError: an unknown key, a wrong type or a bad value; names the file and line, the variable or the flag.
    """
    cwd = Path(os.path.normpath(cwd.absolute()))
    parsers = _parsers(environ)
    project = find_project(cwd)
    from_environ = variables(environ, cwd)
    unknown = [variable(key) for key in from_environ if key not in parsers and key not in _OTHER_VARIABLES]
    warnings = tuple(f"{name}: no such setting; the variable has no effect" for name in unknown)
    given: dict[str, object] = {}
    for source in (_checked(project, parsers), from_environ, _from_flags(flags, cwd)):
        for key, raw in source.items():
            parser = parsers.get(key)
            if parser is not None:
                given[key] = _joined(given.get(key), parser(raw)) if key in _TABLES else parser(raw)
    return _complete(given, project, cwd=cwd, environ=environ, warnings=warnings)


_TABLES = frozenset({"channel-mirrors", "pypi-names"})
_OTHER_VARIABLES = frozenset({"debug", "emulator-dir", "registry-user", "registry-password", "registry-host"})


def _parsers(environ: Mapping[str, str]) -> dict[str, values.Parser]:
    url, urls = values.url(environ), values.urls(environ)
    return {
        "conda-files": values.paths,
        "lock-file": values.path,
        "cache-dir": values.path,
        "wheels": values.paths,
        "pip-index-url": url,
        "pip-extra-index-url": urls,
        "channel-mirrors": values.table(values.channel, url),
        "base-image": values.base_image,
        "cuda": values.cuda,
        "platform": values.platform,
        "glibc": values.glibc,
        "apt": values.apt,
        "system-lines": values.lines,
        "template": values.existing_file,
        "test": values.commands,
        "test-imports": values.modules,
        "test-allow": values.commands,
        "image-name": values.image_name,
        "registry": values.registry,
        "compression": values.one_of("gzip", "zstd"),
        "azureml-environment": values.one_of("image", "image-by-tag", "build"),
        "skip-post-link": values.conda_names,
        "pypi-names": values.table(values.conda_name, values.distribution),
        "run": values.run_table,
    }


def _checked(project: Project | None, known: Mapping[str, object]) -> Mapping[str, Raw]:
    if project is None:
        return {}
    for key, raw in project.values.items():
        if key not in known:
            import difflib

            close = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(sorted(known))}."
            raise InputError(f"unknown key {key!r} in [tool.himl-container]", where=raw.where, hint=hint)
    return project.values


def _from_flags(flags: Mapping[str, object], cwd: Path) -> dict[str, Raw]:
    result: dict[str, Raw] = {}
    for name, value in flags.items():
        if value is not None and value != ():
            key = name.replace("_", "-")
            result[key] = Raw(value, f"--{_FLAGS.get(key, key)}", cwd)
    return result


_FLAGS = {"conda-files": "conda-file", "wheels": "wheel", "channel-mirrors": "channel-mirror"}


def _joined(earlier: object, later: object) -> object:
    pairs: dict[str, str] = dict(earlier or ())  # type: ignore[call-overload]
    pairs.update(later)  # type: ignore[call-overload]
    return tuple(sorted(pairs.items()))


def _complete(
    given: dict[str, object],
    project: Project | None,
    *,
    cwd: Path,
    environ: Mapping[str, str],
    warnings: tuple[str, ...],
) -> Settings:
    """Put in the defaults that depend on the place and on other settings."""
    result: dict[str, object] = {_NAMES.get(key, key).replace("-", "_"): value for key, value in given.items()}
    if "conda_files" not in result:
        found = find_upwards(ENVIRONMENT_FILE_NAME, start=cwd, environ=environ)
        result["conda_files"] = (found,) if found else ()
    files: tuple[Path, ...] = result["conda_files"]  # type: ignore[assignment]
    root = project.path.parent if project else files[0].parent if files else cwd
    # Beside the environment file, not in the root: a repository with several environments has a lock for each.
    result.setdefault("lock_file", (files[0].parent if files else root) / LOCK_FILE_NAME)
    if "image_name" not in result:
        result["image_name"] = images.repository_for(root.name)
    if "cache_dir" not in result:
        result["cache_dir"] = default_cache_dir()
    cuda = str(result.get("cuda", ""))
    if cuda and "base_image" not in result:
        image = images.cuda_image(cuda)
        if image is None:
            hint = f"Name one with base-image. Versions with an image: {images.known_cuda()}."
            raise InputError(f"AzureML has no base image for CUDA {cuda}", hint=hint)
        result["base_image"] = image
    source = project.path if project else None
    return Settings(root=root, source=source, warnings=warnings, **result)  # type: ignore[arg-type]


_NAMES = {"pip-extra-index-url": "pip-extra-index-urls"}


def default_cache_dir() -> Path:
    """Return the cache folder that is used where none is set: the platform's folder for such things."""
    system: str = sys.platform
    if system == "linux":
        # As platformdirs has it (XDG Base Directory Specification: a relative path counts as none), without its import,
        # which takes as long as all else here.
        base = os.environ.get("XDG_CACHE_HOME", "").strip()
        return Path(base if base.startswith("/") else Path("~/.cache").expanduser(), "himl-container")
    import platformdirs

    return Path(platformdirs.user_cache_dir("himl-container"))
