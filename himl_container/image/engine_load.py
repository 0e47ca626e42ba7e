"""Bringing a composed image into the daemon, sending only the layers that it lacks.

**Classic image store.** ``POST /images/load`` takes a docker-archive whose ``manifest.json`` names all layers; the
daemon looks each one up by its chain id first and opens the archive's file only for one that it does not have.

**containerd's image store.** The same request takes an OCI layout. Blobs that containerd's store has already may be
left out. The manifest has to describe the base's layers as the store holds them (compressed, where they were pulled),
so those descriptors come from the daemon (:mod:`himl_container.image.engine_images`).

In both, the archive carries no name: the image comes in unnamed, is compared with what was sent, and only then gets
its tag. A daemon that refuses the short archive (an image was removed meanwhile) gets all of our layers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.errors import EngineError, InputError
from himl_container.image.engine_client import RefusedError
from himl_container.image.engine_errors import DISK_HINT
from himl_container.image.engine_images import Descriptor, StoredImage, StoredImages
from himl_container.image.model import ComposedImage, Layer, chain_ids
from himl_container.image.tar_stream import CHUNK, data_entry, end, file_entry
from himl_container.progress import Reporter

if TYPE_CHECKING:
    from himl_container.image.engine_client import Client

OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class Shipment:
    """What is about to be sent.

    :param id: the id that the daemon will give the image.
    :param documents: small files of the archive, by name.
    :param layers: the layers to send; all of ``image.layers`` where the daemon has none.
    :param layer_name: the name of a layer's file in the archive.
    """

    id: str
    documents: tuple[tuple[str, bytes], ...]
    layers: tuple[Layer, ...]
    layer_name: Callable[[Layer], str]

    @property
    def size(self) -> int:
        """Bytes of the layers."""
        return sum(layer.size for layer in self.layers)

    def chunks(self, sent: Callable[[Layer, int], None]) -> Iterator[bytes]:
        """Yield the archive; ``sent`` is told of each chunk of a layer."""
        for name, data in self.documents:
            yield data_entry(name, data)
        for layer in self.layers:
            for chunk in file_entry(self.layer_name(layer), layer.path, layer.size):
                sent(layer, len(chunk))
                yield chunk
        yield end()


def docker_archive(image: ComposedImage, layers: Iterable[Layer], names: Sequence[str] = ()) -> Shipment:
    """Return a docker-archive of an image that contains only the given layers.

    :param names: the names that loading it gives; none for an image that gets its name later.
    """
    config = f"{image.id.removeprefix('sha256:')}.json"
    files = [_archive_name(diff_id) for diff_id in image.diff_ids]
    manifest = [{"Config": config, "RepoTags": list(names) or None, "Layers": files}]
    documents = ((config, image.config), ("manifest.json", _canonical(manifest)))
    return Shipment(image.id, documents, _distinct(layers), lambda layer: _archive_name(layer.digest))


def oci_archive(image: ComposedImage, below: Sequence[Descriptor], layers: Iterable[Layer]) -> Shipment:
    """Return an OCI layout of an image that contains only the given layers.

    :param below: the blobs of the layers that are not ours.
    """
    ours = [Descriptor(OCI_TAR, layer.digest, layer.size) for layer in image.layers]
    manifest = _canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _json_descriptor(Descriptor(OCI_CONFIG, image.id, len(image.config))),
            "layers": [_json_descriptor(blob) for blob in [*below, *ours]],
        }
    )
    digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_json_descriptor(Descriptor(OCI_MANIFEST, digest, len(manifest)))],
    }
    documents = (
        ("oci-layout", _canonical({"imageLayoutVersion": "1.0.0"})),
        ("index.json", _canonical(index)),
        (_blob_name(digest), manifest),
        (_blob_name(image.id), image.config),
    )
    return Shipment(digest, documents, _distinct(layers), lambda layer: _blob_name(layer.digest))


class Loader:
    """Loads images into one daemon. ``sent`` is the number of layer bytes that went out."""

    def __init__(self, client: Client, stored: StoredImages, *, containerd_store: bool) -> None:
        self._client = client
        self._stored = stored
        self._containerd_store = containerd_store
        self.sent = 0

    def load(self, image: ComposedImage, reporter: Reporter) -> str:
        """Bring an image in and return its id; it has no name yet.

        :raises EngineError: the daemon went away or refused the image, or the layers below ours are not in it.
        """
        present = self._stored.present()
        short, whole = self._prepare(image, present)
        if self._is_there(short.id, image, present):
            return short.id
        try:
            self._send(short, image, reporter)
        except RefusedError as error:
            if len(short.layers) == len(whole.layers) or error.hint == DISK_HINT:
                raise
            self._discard(short.id)
            self._send(whole, image, reporter)
        self._stored.learn(whole.id, StoredImage(image.diff_ids, self._blobs_after(image, present)))
        return whole.id

    def _prepare(self, image: ComposedImage, present: dict[str, StoredImage]) -> tuple[Shipment, Shipment]:
        """Return the archive with the missing layers only, and the one with all of ours."""
        chains = chain_ids(image.diff_ids)
        known = {chain for stored in present.values() for chain in chain_ids(stored.diff_ids)}
        below = len(image.diff_ids) - len(image.layers)
        if below and chains[below - 1] not in known:
            raise EngineError(
                "the image below the environment is no longer in the daemon",
                where=image.tag,
                hint="Something removed it meanwhile; run the command again.",
            )
        if not self._containerd_store:
            missing = [layer for layer, chain in zip(image.layers, chains[below:], strict=True) if chain not in known]
            return docker_archive(image, missing), docker_archive(image, image.layers)
        blobs = self._blobs_below(image, present)
        held = {blob.digest for stored in present.values() for blob in stored.blobs}
        missing = [layer for layer in image.layers if layer.digest not in held]
        return oci_archive(image, blobs, missing), oci_archive(image, blobs, image.layers)

    def _blobs_below(self, image: ComposedImage, present: dict[str, StoredImage]) -> tuple[Descriptor, ...]:
        count = len(image.diff_ids) - len(image.layers)
        candidates = [
            (not stored.blobs, len(stored.diff_ids), id_)
            for id_, stored in present.items()
            if stored.diff_ids[:count] == image.diff_ids[:count]
        ]
        for _, _, id_ in sorted(candidates):
            blobs = self._stored.blobs(id_, present[id_])
            if blobs or not count:
                return blobs[:count]
        if not count:
            return ()
        raise EngineError(
            "the daemon does not tell how it stores the layers of the base image",
            where=image.tag,
            hint="Pull or load the base image again.",
        )

    def _blobs_after(self, image: ComposedImage, present: dict[str, StoredImage]) -> tuple[Descriptor, ...]:
        if not self._containerd_store:
            return ()
        ours = tuple(Descriptor(OCI_TAR, layer.digest, layer.size) for layer in image.layers)
        return self._blobs_below(image, present) + ours

    def _send(self, shipment: Shipment, image: ComposedImage, reporter: Reporter) -> None:
        with reporter.step("load", f"{len(shipment.layers)} layers", total=shipment.size, unit="bytes") as task:
            last: list[str] = []

            def passed(layer: Layer, amount: int) -> None:
                if last[-1:] != [layer.name]:
                    last.append(layer.name)
                    task.note(layer.name)
                self.sent += amount
                task.advance(amount)

            answer = self._client.messages(
                "load the image", "/images/load", data=shipment.chunks(passed), params=_QUIET
            )
            for _ in answer:
                pass  # "Loaded image ID: ..."; what counts is what the daemon has in the end
        self._verify(shipment.id, image)

    def _verify(self, id_: str, image: ComposedImage) -> None:
        answer = self._client.json("look at the loaded image", f"/images/{id_}/json")
        layers = ((answer or {}).get("RootFS") or {}).get("Layers") or []
        if tuple(layers) != image.diff_ids:
            raise self._client.refusal("load the image", "the daemon holds something else than what was sent")
        if self._containerd_store:
            self._verify_unpacked(id_)

    def _verify_unpacked(self, id_: str) -> None:
        """See that a container can be made: containerd takes an image whose layers it lacks without a word."""
        body = json.dumps({"Image": id_, "Cmd": ["true"]}).encode()
        created = list(
            self._client.messages(
                "check the loaded image",
                "/containers/create",
                data=body,
                headers={"Content-Type": "application/json"},
            )
        )
        with self._client.converting("check the loaded image"):
            self._client.sdk.remove_container(created[0]["Id"], force=True)

    def _is_there(self, id_: str, image: ComposedImage, present: dict[str, StoredImage]) -> bool:
        if id_ not in present:
            return False
        try:
            self._verify(id_, image)
        except RefusedError:
            return False
        return True

    def _discard(self, id_: str) -> None:
        import docker.errors

        with self._client.converting("remove the unfinished image"):
            try:
                self._client.sdk.remove_image(id_, force=True)
            except docker.errors.APIError:
                return  # there was none: the daemon refused before it made one


def load_file(client: Client, path: Path, reporter: Reporter) -> tuple[str, ...]:
    """Load an image archive (docker-archive or OCI layout, also compressed) and return the names that it brought.

    :raises InputError: the file cannot be read.
    :raises EngineError: it is not an image archive, or the daemon went away.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file, reporter.step("load", str(path), total=size, unit="bytes") as task:

            def chunks() -> Iterator[bytes]:
                while chunk := file.read(CHUNK):
                    task.advance(len(chunk))
                    yield chunk

            text = ""
            for message in client.messages("load the archive", "/images/load", data=chunks(), params=_QUIET):
                text += str(message.get("stream") or "")
    except OSError as error:
        raise InputError(f"cannot read the archive: {error.strerror or error}", where=str(path)) from error
    return tuple(re.findall(r"^Loaded image(?: ID)?: (\S+)$", text, re.MULTILINE))


_QUIET = {"quiet": "1"}


def _distinct(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Leave out further layers of the same content: an archive holds one file of a name."""
    return tuple({layer.digest: layer for layer in layers}.values())


def _archive_name(diff_id: str) -> str:
    return diff_id.removeprefix("sha256:") + ".tar"


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json_descriptor(blob: Descriptor) -> dict[str, object]:
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
