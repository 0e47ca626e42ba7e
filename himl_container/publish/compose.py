"""From what an image is made of to what a registry is to get: without a daemon where the base is in a registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from himl_container.cache import Cache
from himl_container.image.model import ImageInfo, ImagePlan, Layer
from himl_container.progress import Reporter
from himl_container.publish.base_layers import RegistryBase
from himl_container.publish.engine_layers import OpenArchive, export_layers, stored_layer
from himl_container.publish.model import PushImage, PushLayer, RemoteBlob
from himl_container.publish.placing import Export

Remotes = Mapping[str, Sequence[RemoteBlob]]
"""Where registries have layers, by diff id: what the layer index knows."""


@dataclass(frozen=True)
class Below:
    """The image below the environment's layers: the base, or the base with the system part.

    :param info: what composing needs of it.
    :param layers: matching ``info.diff_ids``.
    """

    info: ImageInfo
    layers: tuple[PushLayer, ...]


def below_of(info: ImageInfo, base: RegistryBase | None, *, cache: Cache) -> Below:
    """Return what is below, of an image that a daemon (or a registry) has.

    :param info: the base's, or that of the system part.
    :param base: the base as its registry has it; None where no registry does.
    """
    return Below(info, lower_layers(info.diff_ids, base, cache=cache))


def lower_layers(diff_ids: Sequence[str], base: RegistryBase | None, *, cache: Cache) -> tuple[PushLayer, ...]:
    """Return layers that are not ours: the base's as its registry has them, the rest from the store or the daemon."""
    known = base.layers if base is not None else ()
    same = tuple(layer.diff_id for layer in known) == tuple(diff_ids[: len(known)])
    found: list[PushLayer] = []
    for number, diff_id in enumerate(diff_ids, 1):
        if same and number <= len(known):
            found.append(known[number - 1])
            continue
        name = f"system {number - len(known)}" if same and known else f"below {number}"
        path = stored_layer(cache, diff_id)
        found.append(PushLayer(name, diff_id, size=path.stat().st_size if path else 0, path=path))
    return tuple(found)


def own_layers(layers: Sequence[Layer]) -> tuple[PushLayer, ...]:
    """Return our layers; one whose file is not on this machine is in a registry, or only in the daemon."""
    return tuple(
        PushLayer(
            name=layer.name,
            diff_id=layer.digest,
            key=layer.key,
            size=layer.size,
            path=layer.path if layer.path.is_file() else None,
        )
        for layer in layers
    )


def compose_push(
    plan: ImagePlan,
    below: Below,
    layers: Sequence[Layer],
    activation: Mapping[str, str],
    *,
    annotations: Mapping[str, str] | None = None,
    remotes: Remotes | None = None,
) -> PushImage:
    """Return a whole image from its parts; neither a daemon nor the layers' files are needed.

    The configuration is the one that :func:`himl_container.image.compose.compose` gives a daemon, byte for byte.

    :param layers: ours, lowest first; only their digests, names and keys have to be right.
    :raises BuildError, InputError: as :func:`himl_container.image.compose.compose`.
    """
    from himl_container.image.compose import compose

    composed = compose(plan=plan, system=below.info, layers=tuple(layers), activation=activation)
    everything = (*below.layers, *own_layers(layers))
    return PushImage(composed.config, with_remotes(everything, remotes or {}), annotations or {})


def with_remotes(layers: Sequence[PushLayer], remotes: Remotes) -> tuple[PushLayer, ...]:
    """Return layers that also know where registries have them; what the index says comes first."""
    return tuple(
        replace(layer, remotes=(*remotes[layer.diff_id], *layer.remotes)) if layer.diff_id in remotes else layer
        for layer in layers
    )


def exporter(image: str, *, cache: Cache, reporter: Reporter, open_archive: OpenArchive | None = None) -> Export:
    """Return the function by which a push gets layers of an image out of the daemon.

    :param image: name or id.
    """

    def export(layers: Sequence[PushLayer]) -> Mapping[str, Path]:
        wanted = {layer.diff_id: layer.name for layer in layers}
        return export_layers(image, wanted, cache=cache, reporter=reporter, open_archive=open_archive).layers

    return export
