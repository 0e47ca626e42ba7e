"""The data between the stages of the environment: what was declared, and what it was locked to.

Everything here is a frozen dataclass of plain values, so that each stage can be compared as data in a test.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, order=True)
class Origin:
    """Where something was declared: a file and a line (1-based), or a flag (``--wheel``) with line 0."""

    path: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


@dataclass(frozen=True)
class CondaDependency:
    """One Conda dependency.

    :param spec: the MatchSpec in the text that rattler parses (``numpy >=1.26,<2``, ``conda-forge::zlib``).
    :param name: the normalised (lower-case) package name.
    """

    spec: str
    name: str
    origin: Origin = field(compare=False)


@dataclass(frozen=True)
class PipRequirement:
    """One PEP 508 requirement of the pip part, never an option, a path or an editable install.

    :param hashes: the only artifacts that are acceptable (``sha256:<hex>``), as pip's ``--hash``; empty for any.
    """

    text: str
    name: str
    origin: Origin = field(compare=False)
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PrivateWheel:
    """A wheel file given by the user. ``path`` is where it lies on this machine; the lock keeps only the rest."""

    path: Path = field(compare=False)
    filename: str
    name: str
    version: str
    sha256: str
    size: int
    origin: Origin = field(compare=False)


@dataclass(frozen=True)
class PipIndexes:
    """Where pip packages come from, in order of search; the first index that has a package decides.

    URLs here may carry credentials as the user wrote them; :func:`himl_container.environment.urls.redact` removes
    them before anything is stored or shown.

    :param private: indexes that are searched before the main one (hi-ml's ``pip_extra_index_url``).
    :param index: the main index; empty means the package installer's own default.
    :param find_links: folders or pages of wheels.
    """

    private: tuple[str, ...] = ()
    index: str = ""
    find_links: tuple[str, ...] = ()


@dataclass(frozen=True)
class EnvironmentSpec:
    """The merged declaration: the input of locking.

    :param channels: in order of priority; names (``conda-forge``) or URLs, never ``nodefaults``.
    :param variables: environment variables of the environment, sorted by name.
    :param constraints: pip's ``-c``: they bound a version if something else asks for the package.
    :param files: every file that was read for this, ``-r`` files too: as long as their bytes stay, so does the spec.
    """

    name: str
    channels: tuple[str, ...]
    dependencies: tuple[CondaDependency, ...]
    pip: tuple[PipRequirement, ...] = ()
    indexes: PipIndexes = PipIndexes()
    variables: tuple[tuple[str, str], ...] = ()
    wheels: tuple[PrivateWheel, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)
    constraints: tuple[PipRequirement, ...] = ()
    files: tuple[Path, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class BasePin:
    """The base image, exactly.

    :param reference: what the user asked for (``repository:tag``).
    :param digest: the registry's manifest digest (``sha256:...``); empty for an image that no registry knows.
    :param rootfs: chain id (OCI image specification, "Layer ChainID") of the image's layers; pins an image that exists
        only in a daemon, in a way that is the same in each of the daemon's image stores. Empty where ``digest`` is set.
    """

    reference: str
    digest: str = ""
    rootfs: str = ""


@dataclass(frozen=True)
class LockedConda:
    """A Conda package, exactly. Fields as in Conda's repodata; ``url`` without credentials.

    :param url: the canonical address, in the channel as the user named it (a mirror is applied at download).
    :param channel: the channel's canonical URL or name.
    :param size: bytes of the archive.
    """

    name: str
    version: str
    build: str
    build_number: int
    subdir: str
    url: str
    channel: str
    sha256: str
    size: int
    md5: str = ""
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    noarch: str = ""
    license: str = ""
    timestamp: int = 0
    python_site_packages_path: str = ""
    track_features: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        """The archive's file name."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class LockedWheel:
    """A wheel of the pip part, exactly.

    :param url: where the wheel is fetched; empty for a private wheel and for one built from a source distribution.
    :param sha256: of the wheel file, also of a built one.
    :param private: given by the user as a file.
    :param sdist_url, sdist_sha256: the source distribution that the wheel was built from, or empty.
    :param build_requires: what it was built with, pinned (``setuptools==80.9.0``), so that it can be built again.
    """

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    url: str = ""
    private: bool = False
    sdist_url: str = ""
    sdist_sha256: str = ""
    sdist_size: int = 0
    build_requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Declared:
    """What a lock was made from, in the form that is compared to tell whether the lock is current.

    Every field is sorted or in order of priority, without origins and without credentials.
    """

    channels: tuple[str, ...]
    conda: tuple[str, ...]
    pip: tuple[str, ...]
    indexes: tuple[str, ...]
    wheels: tuple[str, ...]
    variables: tuple[str, ...]
    base: str
    platform: str
    virtual_packages: tuple[str, ...]
    pypi_names: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lock:
    """Everything that goes into the image's environment, exactly.

    :param conda: in topological order: a package comes after its dependencies; ties by name.
    :param wheels: sorted by name; private ones too.
    :param python_version: full version of the environment's interpreter (``3.11.7``).
    """

    platform: str
    python_version: str
    base: BasePin
    virtual_packages: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    declared: Declared
    conda: tuple[LockedConda, ...]
    wheels: tuple[LockedWheel, ...]
