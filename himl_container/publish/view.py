"""An image as a registry or a daemon describes it, in one form for all that look at images without running them.

Works for any image, not only ours: what an image does not say is empty. What a registry or an image says is a
stranger's text: everything here is checked for its type, and nothing is fit for a terminal before it was cleaned there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from himl_container.cache import Cache
from himl_container.config.images import has_host
from himl_container.errors import InputError, RegistryError
from himl_container.image.engine import Engine
from himl_container.image.model import ImageInfo
from himl_container.image.store import LayerStore
from himl_container.publish.proof import labels_of
from himl_container.publish.pull_manifest import RemoteImage, find_image
from himl_container.registry.api import Repository
from himl_container.registry.model import Descriptor
from himl_container.registry.reference import is_image, parse_reference
from himl_container.settings import Settings

Connect = Callable[[str], Repository]
"""Gives a repository by its full name; :func:`himl_container.registry.api.connect` with a reporter."""

_LARGEST_CONFIG = 16 << 20
_LONGEST_NAME = 120
_SETTINGS = ("Cmd", "Entrypoint", "ExposedPorts", "Healthcheck", "Shell", "StopSignal", "User", "Volumes", "WorkingDir")
_STEP = re.compile(r"himl-container: ([a-z]+:[A-Za-z0-9._+-]+|himl)\Z")
_BELOW = re.compile(r"himl-container: .+, layer ([0-9]+)\Z", re.DOTALL)


@dataclass(frozen=True)
class LayerView:
    """One layer.

    :param name: ``conda:numpy`` for one of ours, ``base 3`` below ours, ``layer 3`` in an image that is not ours.
    :param diff_id: sha256 of the uncompressed tar.
    :param blob: its form in the registry; None in a daemon.
    :param step: the command that the image's history names for a layer that is not ours.
    """

    name: str
    diff_id: str
    blob: Descriptor | None = None
    step: str = ""

    @property
    def identity(self) -> str:
        """What two layers of the same content have in common."""
        return self.diff_id or (self.blob.digest if self.blob else "")


@dataclass(frozen=True)
class ImageView:
    """One image.

    :param name: as it was asked for, with the registry's address where the registry was asked.
    :param digest: of the manifest; empty in Docker's classic store. containerd's store makes a manifest of its own,
        whose digest is the image's id there.
    :param index: digest of the index by which the manifest was found; empty without one.
    :param config_digest: of the configuration: the image's id in Docker's classic store; empty in containerd's store.
    :param created: as the image says it (RFC 3339); empty where unknown.
    :param repository: the repository that holds it; None for a daemon.
    :param manifest: how the repository refers to the manifest.
    :param repo_digests: ``repository@sha256:...`` names that a daemon knows it by.
    :param config: settings of its containers (``Env``, ``Cmd`` and so on), unchecked.
    """

    name: str
    source: Literal["registry", "daemon"]
    digest: str
    config_digest: str
    platform: str
    layers: tuple[LayerView, ...]
    index: str = ""
    created: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    repository: Repository | None = field(default=None, compare=False)
    manifest: Descriptor | None = None
    repo_digests: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The layers' diff ids, lowest first."""
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def fingerprint(self) -> str:
        """The fingerprint that the image says it has; empty for one that is not ours."""
        return self.labels.get("himl.fingerprint", "")


def remote_name(reference: str, settings: Settings) -> str:
    """Return the name of an image in a registry; empty where neither the name nor the settings say which.

    ``train:abc`` is looked for in the registry of the settings, as ``push`` puts it there. An id has no name.

    :raises InputError: it is no name of an image.
    """
    if not is_image(reference):
        parse_reference(reference)  # raises
    if has_host(reference):
        return reference
    if re.fullmatch(r"sha256:[0-9a-f]{64}|[0-9a-f]{64}", reference):
        return ""
    return f"{settings.registry}/{reference}" if settings.registry else ""


def registry_image(name: str, *, platform: str, connect: Connect) -> ImageView | None:
    """Return what a registry says of an image; None when it has none of that name.

    :param name: with the registry's address.
    :param platform: Conda's name of the platform, which chooses among the images of an index.
    :raises RegistryError: the registry does not answer, or what it has is not an image for the platform.
    """
    parsed = parse_reference(name)
    repository = connect(parsed.repository)
    wanted = parsed.digest or parsed.tag or "latest"
    if repository.head(wanted) is None:
        return None
    image = find_image(repository, wanted, platform=platform)
    config = _config(repository, image)
    annotations = image.manifest.content.get("annotations")
    return ImageView(
        name=name if parsed.digest or parsed.tag else f"{name}:latest",
        source="registry",
        digest=image.manifest.digest,
        index=image.digest if image.digest != image.manifest.digest else "",
        config_digest=image.config.digest,
        platform=f"{_text(config.get('os'))}/{_text(config.get('architecture'))}",
        layers=_layers(config, image.layers),
        created=_text(config.get("created")),
        annotations=_texts(annotations),
        labels=labels_of(config),
        repository=repository,
        manifest=image.manifest.descriptor,
        config=inner if isinstance(inner := config.get("config"), dict) else {},
    )


def daemon_image(reference: str, *, engine: Engine, cache: Cache) -> ImageView | None:
    """Return what a daemon says of an image; None when it has none of that name.

    :param cache: whose records name the layers that were made here; a daemon does not name them.
    :raises EngineError: the daemon does not answer.
    """
    info = engine.inspect(reference)
    return None if info is None else daemon_view(reference, info, engine=engine, cache=cache)


def daemon_view(reference: str, info: ImageInfo, *, engine: Engine, cache: Cache) -> ImageView:
    """Return a daemon's description of an image in the common form."""
    containerd = engine.info().containerd_store
    names = {layer.digest: layer.name for layer in LayerStore(cache)}
    layers = [
        LayerView(names.get(diff_id) or f"layer {number}", diff_id) for number, diff_id in enumerate(info.diff_ids, 1)
    ]
    return ImageView(
        name=reference,
        source="daemon",
        digest=info.id if containerd else "",
        config_digest="" if containerd else info.id,
        platform=f"{info.os}/{info.architecture}",
        layers=tuple(layers),
        labels=info.labels,
        repo_digests=info.repo_digests,
        config=info.config,
    )


def find_view(
    reference: str, settings: Settings, *, connect: Connect, connect_engine: Callable[[], Engine]
) -> ImageView:
    """Return an image from its registry, or from the daemon where no registry has it.

    A registry that cannot be asked is an error and never "it does not have it".

    :raises InputError: neither has it, or it is no name of an image.
    :raises RegistryError, EngineError: one that has to be asked does not answer.
    """
    name = remote_name(reference, settings)
    found = registry_image(name, platform=settings.platform, connect=connect) if name else None
    if found is not None:
        return found
    image = daemon_image(reference, engine=connect_engine(), cache=Cache(settings.cache_dir))
    if image is None:
        asked = "neither its registry nor the Docker daemon has it" if name else "the Docker daemon does not have it"
        hint = "" if name else "Name its registry with --registry, or write the name with the registry's address."
        raise InputError(f"there is no such image: {asked}", where=reference, hint=hint)
    return image


def settings_between(old: ImageView, new: ImageView) -> tuple[str, ...]:
    """Return the names of the settings that differ (``Cmd``, ``Env PATH``), sorted; values may be secret."""
    before, after = dict(_flat(old.config)), dict(_flat(new.config))
    return tuple(name for name in sorted({*before, *after}) if before.get(name) != after.get(name))


def _config(repository: Repository, image: RemoteImage) -> Mapping[str, Any]:
    try:
        value = json.loads(repository.blob(image.config.digest, limit=_LARGEST_CONFIG))
    except (ValueError, RecursionError) as error:
        raise RegistryError("the image's configuration is not JSON", where=image.names[0]) from error
    return value if isinstance(value, dict) else {}


def _layers(config: Mapping[str, Any], blobs: tuple[Descriptor, ...]) -> tuple[LayerView, ...]:
    """Return the layers, named by the image's history; what the configuration does not tell stays unknown."""
    rootfs = config.get("rootfs")
    listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    diff_ids = listed if isinstance(listed, list) and len(listed) == len(blobs) else [""] * len(blobs)
    history = config.get("history")
    steps = [
        _text(step.get("created_by"))
        for step in (history if isinstance(history, list) else [])
        if isinstance(step, dict) and not step.get("empty_layer")
    ]
    if len(steps) != len(blobs):
        steps = [""] * len(blobs)
    views: list[LayerView] = []
    named: set[str] = set()
    for number, (blob, diff_id, step) in enumerate(zip(blobs, diff_ids, steps, strict=True), 1):
        own, below = _STEP.match(step), _BELOW.match(step)
        name = own[1][:_LONGEST_NAME] if own else f"base {number}" if below else f"layer {number}"
        if name in named:  # a stranger's history may say anything; names tell layers apart
            name = f"{name} ({number})"
        named.add(name)
        views.append(LayerView(name, _text(diff_id), blob, "" if own or below else step))
    return tuple(views)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> dict[str, str]:
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else {}


def _flat(config: Mapping[str, Any]) -> Iterable[tuple[str, object]]:
    for name in _SETTINGS:
        if config.get(name):
            yield name, config[name]
    variables, labels = config.get("Env"), config.get("Labels")
    for text in variables if isinstance(variables, list) else []:
        name, _, value = str(text).partition("=")
        yield f"Env {name}", value
    for name, value in labels.items() if isinstance(labels, dict) else ():
        yield f"Labels {name}", value
