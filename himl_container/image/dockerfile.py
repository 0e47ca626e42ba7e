"""The image as a Dockerfile: what a user reads and reviews, and what ``docker build`` needs nothing but itself for.

The text is a pure function of the plan. The same values, from :mod:`himl_container.image.config`, go into the image
that is assembled, so both ways give the same image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from himl_container.environment.model import BasePin
from himl_container.image import config, templates
from himl_container.image.model import PREFIX, ImagePlan, Layer, LayerPlan, SystemPlan

INSTALL_COMMAND = (
    "/bin/sh",
    "-ec",
    'apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends -- "$@"; '
    "apt-get clean; rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/ldconfig/aux-cache",
    "apt",
)
"""Exec form of what installs Debian packages; their names follow as arguments, so no shell ever reads them."""

_NAMES_SHOWN = 6


@dataclass(frozen=True)
class RenderedLayer:
    """One ``ADD`` of the Dockerfile.

    :param file: the archive's path in the build context.
    :param title: the comment above it: the layer and what it holds.
    """

    file: str
    title: str


def render_dockerfile(
    plan: ImagePlan,
    layers: Sequence[Layer] | None = None,
    *,
    base: str = "",
    activation: Mapping[str, str] | None = None,
    template: Path | None = None,
) -> str:
    """Return the whole Dockerfile.

    :param layers: the layers in the store; None renders from the plan alone, as before a build.
    :param base: what ``FROM`` names; empty takes it from the plan's pin.
    :param activation: variables from :func:`himl_container.image.activation.capture_activation`.
    :param template: the user's own template, which extends ours.
    :raises InputError: the template is wrong, or an input cannot stand in a Dockerfile.
    """
    templates.replaced_blocks(template)
    activation = activation or {}
    names = [layer.name for layer in (plan.layers if layers is None else layers)]
    values = {
        **_system_values(plan.system, base or base_reference(plan.base)),
        "system_only": False,
        "prefix": PREFIX,
        "layers": _rendered_layers(names, plan.layers),
        "path": config.composed_path(activation, f"{config.OWN_PATH}:{config.PATH_REFERENCE}"),
        "variables": list(config.our_variables(plan, activation).items()),
        "labels": list(config.our_labels(plan)),
        "command": list(config.COMMAND),
        "fingerprint": plan.fingerprint,
        "repository": plan.repository,
    }
    return _tidy(templates.render(values, template=template))


def render_system(system: SystemPlan, base: BasePin | str, *, template: Path | None = None) -> str:
    """Return the Dockerfile of the base and the system part only, in the same words as the whole one.

    :raises InputError: see :func:`render_dockerfile`.
    """
    templates.replaced_blocks(template)
    reference = base if isinstance(base, str) else base_reference(base)
    return _tidy(templates.render({**_system_values(system, reference), "system_only": True}, template=template))


def needs_docker(template: Path | None) -> bool:
    """Whether only Docker can make the image: the user's template replaces a block that assembling does not read.

    :raises InputError: the template is missing or wrong.
    """
    return bool(templates.replaced_blocks(template))


def base_reference(base: BasePin) -> str:
    """Return what ``FROM`` names: the repository by digest, or the tag of an image that no registry knows."""
    name = base.reference.partition("@")[0]
    if not base.digest:
        return name
    host, slash, rest = name.rpartition("/")
    return f"{host}{slash}{rest.partition(':')[0]}@{base.digest}"


def layer_file(index: int, name: str) -> str:
    """Return the path in the build context of the layer at ``index`` (from 0): ``layers/07-conda-mkl.tar``."""
    plain = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-.")[:80]
    return f"layers/{index:03d}-{plain or 'layer'}.tar"


def _system_values(system: SystemPlan, base: str) -> dict[str, object]:
    return {
        "base": base,
        "user": config.USER,
        "apt": list(system.apt),
        "system_lines": list(system.lines),
        "install_command": list(INSTALL_COMMAND),
    }


def _rendered_layers(names: Sequence[str], plans: Sequence[LayerPlan]) -> list[RenderedLayer]:
    contents = {plan.name: _content(plan) for plan in plans}
    return [
        RenderedLayer(layer_file(index, name), f"{name} {contents.get(name, '')}".strip())
        for index, name in enumerate(names)
    ]


def _content(plan: LayerPlan) -> str:
    names = [f"{package.name} {package.version}" for package in plan.conda]
    names += [f"{wheel.name} {wheel.version}" for wheel in plan.wheels]
    more = len(names) - _NAMES_SHOWN
    shown = ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"({shown})" if shown else ""


def _tidy(text: str) -> str:
    """End the text with one line break; nothing within it is touched, it may be the user's."""
    return text.strip("\n") + "\n"
