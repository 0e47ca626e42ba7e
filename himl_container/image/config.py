"""The image's configuration (``Env``, ``Labels``, ``Cmd``...): one source for every way of making the image.

The composed image and the rendered Dockerfile take their settings from here, so that they cannot drift apart. What a
Dockerfile cannot express (a line break in a value) is therefore refused for both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from himl_container.environment.model import Lock
from himl_container.errors import InputError
from himl_container.image.model import PREFIX, ImagePlan
from himl_container.image.quoting import check_label_name, check_value, check_variable_name

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What Docker uses where an image sets no ``PATH``."""

OWN_PATH = f"{PREFIX}/bin"
"""What comes first in ``PATH``."""

PATH_REFERENCE = "${PATH}"
"""Stands for the path before activation, as one entry of an activation's ``PATH``."""

USER = "0:0"
"""AzureML runs every job as root, so the image does too, whatever the base says."""

COMMAND = ("python",)
"""What ``docker run IMAGE`` starts."""

_CONDA = (("CONDA_PREFIX", PREFIX), ("CONDA_DEFAULT_ENV", PREFIX))
_RESERVED = {"PATH", *dict(_CONDA)}
_KEPT = ("ExposedPorts", "Volumes", "WorkingDir", "StopSignal", "Healthcheck", "Shell")


def image_config(base_config: Mapping[str, Any], plan: ImagePlan, activation: Mapping[str, str]) -> dict[str, Any]:
    """Return the ``config`` object of the image, as the OCI image specification has it.

    ``Env`` is the base's, in its order, with our variables replaced in place or appended (what ``ENV`` does), in this
    order: ``PATH`` with the environment's ``bin`` first, ``CONDA_PREFIX`` and ``CONDA_DEFAULT_ENV``, the variables
    of ``plan.environment``, and what activation scripts set. ``Entrypoint`` is cleared, ``Cmd`` is :data:`COMMAND`.
    Fields that describe a container or a build (``Hostname``, ``Image``, ``OnBuild``) are dropped: they differ between
    daemons.

    :param base_config: ``config`` of the image below the environment: the system image's where there is one.
    :param activation: variables from :func:`himl_container.image.activation.capture_activation`.
    :raises InputError: a variable or label has a name or value that no Dockerfile can hold.
    """
    values = dict(_split(entry) for entry in base_config.get("Env") or ())
    values["PATH"] = composed_path(activation, f"{OWN_PATH}:{values.get('PATH') or DEFAULT_PATH}")
    values.update(our_variables(plan, activation))
    labels = {**(base_config.get("Labels") or {}), **dict(our_labels(plan))}
    config: dict[str, Any] = {name: base_config[name] for name in _KEPT if base_config.get(name)}
    config["User"] = USER if plan.system.empty else base_config.get("User") or USER
    config["Env"] = [f"{name}={value}" for name, value in values.items()]
    config["Cmd"] = list(COMMAND)
    if labels:
        config["Labels"] = dict(sorted(labels.items()))
    return config


def our_variables(plan: ImagePlan, activation: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the image sets beyond its base's, but ``PATH``, in the order in which they are set.

    :raises InputError: see :func:`image_config`.
    """
    for name, _ in plan.environment:
        if name in _RESERVED:
            raise InputError(
                f"the variable {name} is set by the image itself",
                where="variables",
                hint="Remove it from 'variables'; a Dockerfile line (system_lines) can extend the base's PATH.",
            )
    variables = {**dict(_CONDA), **dict(plan.environment), **dict(sorted(activation.items()))}
    variables.pop("PATH", None)
    for name, value in variables.items():
        check_value(value, f"variable {check_variable_name(name)}")
    return variables


def composed_path(activation: Mapping[str, str], path: str) -> str:
    """Return ``PATH`` after activation, where ``path`` is the one before it."""
    wanted = activation.get("PATH", PATH_REFERENCE)
    check_value(wanted, "variable PATH")
    return ":".join(path if entry == PATH_REFERENCE else entry for entry in wanted.split(":"))


def our_labels(plan: ImagePlan) -> tuple[tuple[str, str], ...]:
    """Return the labels that the image sets, sorted.

    :raises InputError: see :func:`image_config`.
    """
    for name, value in plan.labels:
        check_value(value, f"label {check_label_name(name)}")
    return tuple(sorted(plan.labels))


def image_labels(lock: Lock, fingerprint: str) -> tuple[tuple[str, str], ...]:
    """Return the labels that say where the image comes from, sorted.

    Only what the inputs decide, so that the same lock gives the same image id anywhere. Names of the OCI image
    specification ("Annotations") where it has one.
    """
    from himl_container import __version__

    hashes = [package.sha256 for package in lock.conda] + [wheel.sha256 for wheel in lock.wheels]
    artifacts = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
    labels = {
        "himl.fingerprint": fingerprint,
        "himl.artifacts": f"sha256:{artifacts}",
        "himl.packages": f"{len(lock.conda)} conda, {len(lock.wheels)} pip",
        "himl.platform": lock.platform,
        "himl.prefix": PREFIX,
        "himl.python": lock.python_version,
        "himl.version": __version__,
        "org.opencontainers.image.base.name": lock.base.reference.partition("@")[0],
    }
    if lock.base.digest:
        labels["org.opencontainers.image.base.digest"] = lock.base.digest
    return tuple(sorted(labels.items()))


def _split(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value
