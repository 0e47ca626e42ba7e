"""The image's configuration (``Env``, ``Labels``, ``Cmd``...): one function for every way of making the image.

The composed image and the rendered Dockerfile take their settings from here, so that they cannot drift apart. What a
Dockerfile cannot express (a line break in a value) is therefore refused for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from himl_container.errors import InputError
from himl_container.image.model import PREFIX, ImagePlan

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What Docker uses where an image sets no ``PATH``."""

USER = "0:0"
"""AzureML runs every job as root, so the image does too, whatever the base says."""

COMMAND = ("python",)
"""What ``docker run IMAGE`` starts."""

_KEPT = ("ExposedPorts", "Volumes", "WorkingDir", "StopSignal", "Healthcheck", "Shell")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LABEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*\Z")
_UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\u0085\u2028\u2029\ud800-\udfff]")
_MAX_BYTES = 60_000  # Docker refuses a Dockerfile line of 65,535 bytes; quoting may add some.


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
    inherited = list(base_config.get("Env") or ())
    values = dict(_split(entry) for entry in inherited)
    values.update(our_environment(plan, activation, base_path=values.get("PATH", "")))
    labels = {**(base_config.get("Labels") or {}), **dict(our_labels(plan))}
    config: dict[str, Any] = {name: base_config[name] for name in _KEPT if base_config.get(name)}
    config["User"] = USER if plan.system.empty else base_config.get("User") or USER
    config["Env"] = [f"{name}={value}" for name, value in values.items()]
    config["Cmd"] = list(COMMAND)
    if labels:
        config["Labels"] = dict(sorted(labels.items()))
    return config


def our_environment(plan: ImagePlan, activation: Mapping[str, str], *, base_path: str) -> dict[str, str]:
    """Return the variables that the image sets beyond its base's, in the order in which they are set.

    :param base_path: ``PATH`` of the image below; empty means that it sets none.
    :raises InputError: see :func:`image_config`.
    """
    variables = {
        "PATH": f"{PREFIX}/bin:{base_path or DEFAULT_PATH}",
        "CONDA_PREFIX": PREFIX,
        "CONDA_DEFAULT_ENV": PREFIX,
    }
    variables.update(plan.environment)
    variables.update(sorted(activation.items()))
    for name, value in variables.items():
        check_variable(name, value)
    return variables


def our_labels(plan: ImagePlan) -> tuple[tuple[str, str], ...]:
    """Return the labels that the image sets, sorted.

    :raises InputError: see :func:`image_config`.
    """
    for name, value in plan.labels:
        if not _LABEL_NAME.match(name):
            raise InputError(f"{name!r} is not a label's name", hint="Use letters, digits and . _ - / only.")
        _check_value(value, f"label {name}")
    return tuple(sorted(plan.labels))


def check_variable(name: str, value: str) -> None:
    """Refuse an environment variable that a Dockerfile cannot hold.

    :raises InputError: the name is not a shell variable's name, or the value has a line break or is too long.
    """
    if not _VARIABLE_NAME.match(name):
        raise InputError(
            f"{name!r} is not the name of an environment variable",
            hint="Use letters, digits and underscores, not starting with a digit.",
        )
    _check_value(value, f"variable {name}")


def _check_value(value: str, where: str) -> None:
    found = _UNWRITABLE.search(value)
    if found:
        raise InputError(
            f"the value contains {found.group()!r}, which an image's settings cannot hold",
            where=where,
            hint="Put the text into a file, or encode it (for example base64).",
        )
    if len(value.encode()) > _MAX_BYTES:
        raise InputError(
            f"the value is longer than {_MAX_BYTES} bytes", where=where, hint="Put the text into a file instead."
        )


def _split(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value
