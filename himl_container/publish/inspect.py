"""What is inside of an image, by package: from the registry alone where a registry has it.

A manifest, a configuration and the attached documents are a few small requests; no layer is fetched. A daemon knows the
layers, but not what is in them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from himl_container.environment.model import Lock
from himl_container.image.engine import Engine
from himl_container.image.engine import connect as connect_daemon
from himl_container.image.plan import plan_layers
from himl_container.progress import Reporter
from himl_container.publish.proof import attached_documents, attached_lock
from himl_container.publish.sbom import SBOM_TYPE
from himl_container.publish.sbom_library import NAMESPACE
from himl_container.publish.view import Connect, ImageView, find_view
from himl_container.registry.api import connect as connect_registry
from himl_container.settings import Settings


@dataclass(frozen=True)
class PackageView:
    """One package inside of an image.

    :param kind: ``conda``, ``pip``, ``private wheel``; of a stranger's document the type of its package URL.
    :param license: as the package states it; empty where that is not known without reading layers.
    :param size: bytes of the package's archive; 0 where unknown.
    :param layer: name of the layer that holds it; empty where unknown.
    """

    kind: str
    name: str
    version: str
    build: str = ""
    license: str = ""
    size: int = 0
    layer: str = ""


@dataclass(frozen=True)
class Inspection:
    """An image and its packages.

    :param packages_from: ``lock``, ``sbom``, or empty where nothing tells.
    """

    image: ImageView
    packages: tuple[PackageView, ...]
    packages_from: Literal["lock", "sbom", ""]

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        image = self.image
        layers = [
            {
                "name": layer.name,
                "diff_id": layer.diff_id,
                "digest": layer.blob.digest if layer.blob else "",
                "size": layer.blob.size if layer.blob else None,
                "media_type": layer.blob.media_type if layer.blob else "",
                "step": layer.step,
            }
            for layer in image.layers
        ]
        return {
            "name": image.name,
            "source": image.source,
            "digest": image.digest,
            "index": image.index,
            "config_digest": image.config_digest,
            "platform": image.platform,
            "created": image.created,
            "fingerprint": image.fingerprint,
            "annotations": dict(image.annotations),
            "labels": dict(image.labels),
            "layers": layers,
            "packages_from": self.packages_from,
            "packages": [asdict(package) for package in self.packages],
        }


def inspect_image(
    reference: str,
    settings: Settings,
    *,
    reporter: Reporter,
    connect: Connect | None = None,
    connect_engine: Callable[[], Engine] = connect_daemon,
) -> Inspection:
    """Return what is inside of an image: from its registry, or from the daemon where no registry has it.

    :param connect: gives repositories; the real ones by default.
    :raises InputError: there is no such image, or it is no name of one.
    :raises RegistryError, EngineError: what has to be asked does not answer.
    """
    view = find_view(
        reference,
        settings,
        connect=connect or (lambda name: connect_registry(name, reporter=reporter)),
        connect_engine=connect_engine,
    )
    packages, source = packages_of(view)
    return Inspection(view, packages, source)


def packages_of(view: ImageView) -> tuple[tuple[PackageView, ...], Literal["lock", "sbom", ""]]:
    """Return an image's packages from the documents attached to it, and which kind of document told.

    :raises RegistryError: the registry does not answer.
    """
    if view.repository is None or view.manifest is None:
        return (), ""
    lock = attached_lock(view.repository, view.manifest, annotations=view.annotations, labels=view.labels)
    if lock is not None:
        return lock_packages(lock), "lock"
    for document in attached_documents(view.repository, view.manifest, SBOM_TYPE):
        found = _sbom_packages(document)
        if found:
            return found, "sbom"
    return (), ""


def lock_packages(lock: Lock) -> tuple[PackageView, ...]:
    """Return the packages of a lock, Conda's first, by name, with the layers that they are planned for."""
    layers = {}
    for plan in plan_layers(lock):
        layers.update({("conda", package.name): plan.name for package in plan.conda})
        layers.update({("pip", wheel.name): plan.name for wheel in plan.wheels})
    conda = [
        PackageView("conda", one.name, one.version, one.build, one.license, one.size, layers["conda", one.name])
        for one in sorted(lock.conda, key=lambda package: package.name)
    ]
    wheels = [
        PackageView(
            "private wheel" if one.private else "pip",
            one.name,
            one.version,
            size=one.size,
            layer=layers["pip", one.name],
        )
        for one in sorted(lock.wheels, key=lambda wheel: wheel.name)
    ]
    return (*conda, *wheels)


def _sbom_packages(data: bytes) -> tuple[PackageView, ...]:
    """Return the packages of a CycloneDX document, anybody's; what is not of the expected type is passed over."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return ()
    components = document.get("components") if isinstance(document, dict) else None
    found = [
        _component(one)
        for one in (components if isinstance(components, list) else [])
        if isinstance(one, dict) and one.get("type") != "container" and isinstance(one.get("name"), str)
    ]
    return tuple(sorted(found, key=lambda package: (package.kind, package.name, package.version)))


def _component(one: Mapping[str, Any]) -> PackageView:
    listed = one.get("properties")
    properties = {
        str(item.get("name", "")).removeprefix(f"{NAMESPACE}:"): str(item.get("value", ""))
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict) and str(item.get("name", "")).startswith(f"{NAMESPACE}:")
    }
    url = one.get("purl")
    kind = url.removeprefix("pkg:").partition("/")[0] if isinstance(url, str) else "package"
    kind = "private wheel" if properties.get("private") == "true" else properties.get("kind", kind)
    size = properties.get("size", "")
    return PackageView(
        kind,
        str(one["name"]),
        str(one.get("version") or ""),
        properties.get("build", ""),
        _license(one.get("licenses")),
        int(size) if size.isdecimal() and len(size) < 18 else 0,
        properties.get("layer", ""),
    )


def _license(listed: object) -> str:
    texts = []
    for item in listed if isinstance(listed, list) else []:
        inner = item.get("license") if isinstance(item, dict) else None
        if isinstance(inner, dict):
            texts.append(str(inner.get("id") or inner.get("name") or ""))
        elif isinstance(item, dict) and isinstance(item.get("expression"), str):
            texts.append(item["expression"])
    return ", ".join(filter(None, texts))
