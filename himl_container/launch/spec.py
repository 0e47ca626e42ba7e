"""One description of a run for both places: everything about it that this machine and the cloud share.

The local launcher and the AzureML submission are two translations of a :class:`LaunchSpec`. What only one of them has
(the folder behind a dataset here, the compute cluster there) is given to that translation beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from himl_container.environment.urls import scrub
from himl_container.errors import InputError
from himl_container.launch.parse import MINIMUM_SHM, check_name, check_variable, is_text

DEFAULT_ENVIRONMENT = {
    "AZUREML_OUTPUT_UPLOAD_TIMEOUT_SEC": "3600",
    "AZUREML_RUN_KILL_SIGNAL_TIMEOUT_SEC": "900",
    "MKL_SERVICE_FORCE_INTEL": "1",
    "PYTHONUNBUFFERED": "1",
    "RSLEX_DIRECT_VOLUME_MOUNT": "true",
    "RSLEX_DIRECT_VOLUME_MOUNT_MAX_CACHE_SIZE": "1",
}
"""Set for every run, here and in the cloud; a value of the user wins.

hi-ml's five, and one that makes Python's output arrive as it is written although no terminal reads it.
"""

DEFAULT_SHM_SIZE = 2 << 30
"""Bytes of ``/dev/shm``: AzureML's default of ``docker.shm_size``, so that PyTorch's workers meet the same limit."""

MAX_NODES = 64

_SECRET = re.compile(
    r"SECRET|TOKEN|PASSW|PASSPHRASE|KEY|CREDENTIAL|CONNECTION_STRING|EMULATOR_OUTSIDE|(?:^|_)(?:SAS|PAT|PWD)(?:_|$)",
    re.I,
)
_HIDDEN = "***"


@dataclass(frozen=True)
class ImageRef:
    """The image of a run, exactly.

    :param tag: the name under which it was asked for.
    :param id: the local daemon's id of it (``sha256:...``).
    :param digest: ``repository@sha256:...`` under which a registry knows it; empty before it was pushed.
    :param fingerprint: of the inputs that it was made from, as its label says; empty for an image that is not ours.
    :param lock: sha256 (hex) of the lock file that chose it; empty for an image that was named.
    """

    tag: str
    id: str = ""
    digest: str = ""
    fingerprint: str = ""
    lock: str = ""


@dataclass(frozen=True)
class SnapshotRef:
    """The source snapshot of a run, exactly.

    :param sha256: hash over every file's path, mode and content (:func:`himl_container.launch.snapshot.take`); empty
        where the live folder is used instead.
    :param size: bytes of all files.
    """

    sha256: str
    files: int
    size: int


@dataclass(frozen=True)
class Dataset:
    """An input or output folder of a run, known to the script by its name and its place in the list.

    :param mount_path: absolute path inside the container (AzureML's ``path_on_compute``); empty for the platform's own.
    :param variable: the variable that has its path; empty for hi-ml's, by the place in the list (``INPUT_0``).
    :param mode: how AzureML brings it (``mount``, ``download``, ``upload``); here it is a folder in any case.
    """

    name: str
    mount_path: str = ""
    variable: str = ""
    mode: str = "mount"


@dataclass(frozen=True)
class LaunchSpec:
    """Everything about a run.

    :param name: stem of the run's id.
    :param command: the program and what belongs to it (``("python", "train.py")``).
    :param arguments: the script's arguments, untouched.
    :param environment: pairs of name and value, sorted by name.
    :param datasets: inputs, mounted read-only.
    :param outputs: outputs, mounted writable.
    :param shm_size: bytes of ``/dev/shm``.
    :param gpus: ``auto`` (all that there are), ``none``, ``all`` (fails where there is none) or a number.
    :param nodes: number of machines; one process each.
    :param max_duration: seconds after which the run is stopped, restarts included; None for no limit.
    :param working_dir: absolute path inside the container; empty for the platform's own.
    :param user: ``uid:gid`` inside the container. AzureML runs jobs as root.
    """

    name: str
    image: ImageRef
    command: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    snapshot: SnapshotRef = SnapshotRef("", 0, 0)
    datasets: tuple[Dataset, ...] = ()
    outputs: tuple[Dataset, ...] = ()
    output_folder: str = "outputs"
    log_folder: str = "logs"
    shm_size: int = DEFAULT_SHM_SIZE
    gpus: str = "auto"
    nodes: int = 1
    max_duration: float | None = None
    working_dir: str = ""
    user: str = "0:0"

    def __post_init__(self) -> None:
        """Check what can be checked without looking at the machine.

        :raises InputError: a field is unusable or contradicts another one.
        """
        if not self.command or not self.command[0]:
            raise InputError("there is nothing to run", hint="Give a script or a command.")
        if not all(is_text(word) for word in (*self.command, *self.arguments)):
            raise InputError("an argument holds a NUL byte or is not UTF-8")
        for name, value in self.environment:
            check_variable(name, value, "--env")
        if not 1 <= self.nodes <= MAX_NODES:
            raise InputError(f"{self.nodes} is not a number of nodes between 1 and {MAX_NODES}", where="--nodes")
        if self.shm_size < MINIMUM_SHM:
            raise InputError(f"{self.shm_size} bytes of shared memory are too few", where="--shm-size")
        _check_datasets(self.datasets, "--dataset")
        _check_datasets(self.outputs, "--output")
        _check_paths([*(item.mount_path for item in (*self.datasets, *self.outputs)), self.working_dir])

    def to_json(self) -> dict[str, object]:
        """Return the description as JSON values, with secrets hidden (:func:`redacted`)."""
        value = asdict(self)
        value["environment"] = dict(redacted(self.environment))
        value["arguments"] = [scrub(word) for word in self.arguments]
        return value


def with_defaults(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the variables of a run: the defaults and the user's, which win; sorted by name."""
    return tuple(sorted({**DEFAULT_ENVIRONMENT, **environment}.items()))


def redacted(environment: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Return variables for a record or a screen.

    A value is hidden where the name looks like a secret's; a login or token in a URL always is.
    """
    return tuple((name, _HIDDEN if value and _SECRET.search(name) else scrub(value)) for name, value in environment)


def friendly_name(text: str) -> str:
    """Return text as part of a run's id: letters, digits and single underscores, at most 60 characters, never empty."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:60].rstrip("_") or "run"


def _check_datasets(items: tuple[Dataset, ...], where: str) -> None:
    names = [item.name for item in items]
    for name in names:
        check_name(name, where)
        if names.count(name) > 1:
            raise InputError(f"the name {name!r} is given twice", where=where)


def _check_paths(paths: list[str]) -> None:
    given = [path for path in paths if path]
    for path in given:
        parts = path.split("/")
        if not path.startswith("/") or path.rstrip("/") == "" or ".." in parts or "\0" in path:
            raise InputError(f"{path!r} is not an absolute path inside the container")
        if given.count(path) > 1:
            raise InputError(f"two folders would be mounted at {path!r}")
