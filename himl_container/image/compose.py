"""The image's configuration file: what an image is, besides its layers.

The text is canonical (sorted keys, no blanks, one fixed time), and nothing in it comes from the daemon but the base's
layers and settings, so the same plan gives the same bytes, and with the classic image store the same image id,
on every machine.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping

from himl_container.errors import BuildError
from himl_container.image.config import image_config
from himl_container.image.model import EPOCH, ComposedImage, ImageInfo, ImagePlan, Layer

CREATED = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
"""Time of the image and of each step of its history: fixed, because the same lock must give the same image."""

IMAGE_ARCHITECTURES = {"linux-64": "amd64", "linux-aarch64": "arm64", "linux-ppc64le": "ppc64le"}
"""Conda's platforms and the architecture names that images (and Debian) use."""


def compose(
    *,
    plan: ImagePlan,
    system: ImageInfo,
    layers: tuple[Layer, ...],
    activation: Mapping[str, str],
    tag: str = "",
) -> ComposedImage:
    """Put the environment's layers on top of the system image.

    :param system: the image of the system part, or the base where the plan has no system part.
    :param activation: environment variables that the activation scripts of packages set.
    :param tag: the image's name; the plan's own when empty.
    :raises BuildError: the system image has no layers, or is not for Linux.
    :raises InputError: a variable or label that no image can hold.
    """
    if not system.diff_ids or system.os != "linux":
        raise BuildError(
            f"the image below the environment is not a Linux image with layers (os {system.os or 'unknown'!r})",
            where=plan.base.reference,
            hint="Choose another base image with --base-image.",
        )
    below = f"{plan.base.reference}{'' if plan.system.empty else ' and the system part'}"
    history = [_step(f"himl-container: {below}, layer {n + 1}") for n in range(len(system.diff_ids))]
    history += [_step(f"himl-container: {layer.name}") for layer in layers]
    diff_ids = system.diff_ids + tuple(layer.digest for layer in layers)
    config = image_file(
        config=image_config(system.config, plan, activation),
        architecture=system.architecture,
        diff_ids=diff_ids,
        history=history,
    )
    return ComposedImage(config=config, diff_ids=diff_ids, layers=layers, tag=tag or plan.tag)


def image_file(
    *, config: Mapping[str, object], architecture: str, diff_ids: tuple[str, ...], history: list[dict[str, str]]
) -> bytes:
    """Return an image configuration file (OCI image specification, "Image JSON") as canonical bytes.

    Docker's classic store and the OCI form share this file, so an image has one configuration digest in both.
    """
    content = {
        "architecture": architecture,
        "config": config,
        "created": CREATED,
        "history": history,
        "os": "linux",
        "rootfs": {"diff_ids": list(diff_ids), "type": "layers"},
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _step(text: str) -> dict[str, str]:
    return {"created": CREATED, "created_by": text}
