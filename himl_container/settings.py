"""What the user decided, in one frozen value.

Sources, later ones win: ``[tool.himl-container]`` in ``pyproject.toml``, ``HIML_CONTAINER_*`` variables, flags.
Validated once, here; every later stage takes what it needs from the result and never looks at a source again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_BASE_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
LOCK_FILE_NAME = "pylock.himl.toml"


@dataclass(frozen=True)
class Settings:
    """The settings of one project.

    :param root: the project's folder: the one that holds ``pyproject.toml`` with our table, else the first environment
        file's folder.
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
    :param image_name: repository name of the built image.
    :param skip_post_link: names of Conda packages whose post-link script is knowingly not run.
    :param pypi_names: pairs of a Conda package name and the distribution that it provides, where the names differ.
    :param cache_dir: the folder of layers, wheels and records.
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
    image_name: str = "himl"
    skip_post_link: tuple[str, ...] = ()
    pypi_names: tuple[tuple[str, str], ...] = ()
