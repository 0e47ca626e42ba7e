"""Images as archives: the two forms that ``POST /images/load`` takes, whole or with layers left out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from himl_container.image.model import ComposedImage, Layer
from himl_container.image.tar_stream import data_entry, end, file_entry
from himl_container.registry.model import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    OCI_TAR,
    Descriptor,
    canonical_json,
    sha256_of,
)


@dataclass(frozen=True)
class Shipment:
    """What is about to be sent: an archive of layers, then small files that describe the image.

    The description comes last, so that layers can travel before the rest of the image is known.

    :param id: the id that the daemon will give the image.
    :param layers: the layers to send.
    :param layer_name: the name of a layer's file in the archive.
    :param documents: the small files, by name.
    """

    id: str
    layers: tuple[Layer, ...]
    layer_name: Callable[[Layer], str]
    documents: tuple[tuple[str, bytes], ...]

    @property
    def size(self) -> int:
        """Bytes of the layers."""
        return sum(layer.size for layer in self.layers)

    def chunks(self, sent: Callable[[Layer, int], None]) -> Iterator[bytes]:
        """Yield the archive; ``sent`` is told how many bytes of a layer went out."""
        for layer in self.layers:
            yield from file_entry(self.layer_name(layer), layer.path, layer.size, functools.partial(sent, layer))
        yield self.description()

    def description(self) -> bytes:
        """Return the small files and the end of the archive."""
        return b"".join(data_entry(name, data) for name, data in self.documents) + end()


def docker_archive(image: ComposedImage, layers: Iterable[Layer], names: Sequence[str] = ()) -> Shipment:
    """Return a docker-archive of an image that contains only the given layers.

    :param names: the names that loading it gives; none for an image that gets its name later.
    """
    config = f"{image.id.removeprefix('sha256:')}.json"
    files = [archive_name(diff_id) for diff_id in image.diff_ids]
    manifest = [{"Config": config, "RepoTags": list(names) or None, "Layers": files}]
    documents = ((config, image.config), ("manifest.json", canonical_json(manifest)))
    return Shipment(image.id, distinct(layers), lambda layer: archive_name(layer.digest), documents)


def oci_archive(image: ComposedImage, below: Sequence[Descriptor], layers: Iterable[Layer]) -> Shipment:
    """Return an OCI layout of an image that contains only the given layers.

    :param below: the blobs of the layers that are not ours.
    """
    ours = [Descriptor(OCI_TAR, layer.digest, layer.size) for layer in image.layers]
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor(OCI_CONFIG, image.id, len(image.config)).as_json(),
            "layers": [blob.as_json() for blob in [*below, *ours]],
        }
    )
    digest = sha256_of(manifest)
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [Descriptor(OCI_MANIFEST, digest, len(manifest)).as_json()],
    }
    documents = (
        ("oci-layout", canonical_json({"imageLayoutVersion": "1.0.0"})),
        ("index.json", canonical_json(index)),
        (blob_name(digest), manifest),
        (blob_name(image.id), image.config),
    )
    return Shipment(digest, distinct(layers), lambda layer: blob_name(layer.digest), documents)


def distinct(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Leave out further layers of the same content: an archive holds one file of a name."""
    return tuple({layer.digest: layer for layer in layers}.values())


def archive_name(diff_id: str) -> str:
    """Return the name of a layer's file in a docker-archive."""
    return diff_id.removeprefix("sha256:") + ".tar"


def blob_name(digest: str) -> str:
    """Return the name of a blob's file in an OCI layout."""
    return "blobs/" + digest.replace(":", "/")
