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

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.errors import EngineError, InputError
from himl_container.image.archive import (
    Shipment,
    archive_name,
    blob_name,
    docker_archive,
    oci_archive,
)
from himl_container.image.docker_http import segment
from himl_container.image.engine_client import RefusedError
from himl_container.image.engine_errors import DISK_HINT
from himl_container.image.engine_images import StoredImage, StoredImages
from himl_container.image.model import ComposedImage, Layer, chain_ids
from himl_container.image.tar_stream import CHUNK
from himl_container.progress import Reporter
from himl_container.registry.model import OCI_TAR, Descriptor

if TYPE_CHECKING:
    from himl_container.image.engine_client import Client


@dataclass(frozen=True)
class Destination:
    """What a daemon has of an image that is about to come.

    :param containerd_store: which kind of archive it takes.
    :param images: ids of its images.
    :param chains: chain ids of its layers.
    :param blobs: digests of the blobs that containerd's store has.
    :param below: the blobs of the layers below ours; only for containerd's store.
    """

    containerd_store: bool
    images: frozenset[str]
    chains: frozenset[str]
    blobs: frozenset[str]
    below: tuple[Descriptor, ...]

    def lacks(self, layer: Layer, chain: str) -> bool:
        """Whether a layer, with the chain id that it has in the image, must be sent."""
        return layer.digest not in self.blobs if self.containerd_store else chain not in self.chains

    def missing(self, image: ComposedImage) -> list[Layer]:
        """Return our layers that must be sent."""
        chains = chain_ids(image.diff_ids)[len(image.diff_ids) - len(image.layers) :]
        return [layer for layer, chain in zip(image.layers, chains, strict=True) if self.lacks(layer, chain)]

    def archive(self, image: ComposedImage, layers: Iterable[Layer]) -> Shipment:
        """Return the archive that this daemon takes."""
        return oci_archive(image, self.below, layers) if self.containerd_store else docker_archive(image, layers)

    def layer_name(self, layer: Layer) -> str:
        """Return the name of a layer's file in such an archive."""
        return blob_name(layer.digest) if self.containerd_store else archive_name(layer.digest)


class Loader:
    """Loads images into one daemon. ``sent`` is the number of layer bytes that went out."""

    def __init__(self, client: Client, stored: StoredImages, *, containerd_store: bool) -> None:
        self.client = client
        self._stored = stored
        self._containerd_store = containerd_store
        self.sent = 0

    def load(self, image: ComposedImage, reporter: Reporter, destination: Destination | None = None) -> str:
        """Bring an image in and return its id; it has no name yet.

        :param destination: what the daemon has, where that was asked a moment ago.
        :raises EngineError: the daemon went away or refused the image, or the layers below ours are not in it.
        """
        below = image.diff_ids[: len(image.diff_ids) - len(image.layers)]
        destination = destination or self.destination(below)
        short = destination.archive(image, destination.missing(image))
        if short.id in destination.images and self._is_whole(short.id, image):
            return short.id
        try:
            self._send(short, image, reporter)
        except RefusedError as error:
            whole = destination.archive(image, image.layers)
            if len(short.layers) == len(whole.layers) or error.hint == DISK_HINT:
                raise
            self.discard(short.id)
            self._send(whole, image, reporter)
        self.keep(short.id, image, destination)
        return short.id

    def destination(self, below: tuple[str, ...]) -> Destination:
        """Ask what the daemon has.

        :param below: diff ids of the layers below ours.
        :raises EngineError: it lacks those, or does not answer.
        """
        present = self._stored.present()
        chains = frozenset(chain for image in present.values() for chain in chain_ids(image.diff_ids))
        if below and chain_ids(below)[-1] not in chains:
            raise EngineError(
                "the image below the environment is no longer in the daemon",
                where=str(self.client.endpoint),
                hint="Something removed it meanwhile; run the command again.",
            )
        return Destination(
            containerd_store=self._containerd_store,
            images=frozenset(present),
            chains=chains,
            blobs=frozenset(blob.digest for image in present.values() for blob in image.blobs),
            below=self._blobs(below, present) if self._containerd_store else (),
        )

    def verify(self, id_: str, image: ComposedImage) -> None:
        """See that the daemon has exactly this image, ready for use.

        :raises RefusedError: it has not.
        """
        answer = self.client.json("look at the loaded image", f"/images/{segment(id_)}/json")
        layers = ((answer or {}).get("RootFS") or {}).get("Layers") or []
        if tuple(layers) != image.diff_ids:
            raise self.client.refusal("load the image", "the daemon holds something else than what was sent")
        if self._containerd_store:
            self._verify_unpacked(id_)

    def keep(self, id_: str, image: ComposedImage, destination: Destination) -> None:
        """Remember what a loaded image is made of."""
        ours = tuple(Descriptor(OCI_TAR, layer.digest, layer.size) for layer in image.layers)
        blobs = (*destination.below, *ours) if self._containerd_store else ()
        self._stored.learn(id_, StoredImage(image.diff_ids, blobs))

    def discard(self, id_: str) -> None:
        """Remove an image that is not whole or no longer needed, if it is there."""
        with contextlib.suppress(RefusedError):  # the daemon made something of it that is in use
            self.client.delete("remove an unfinished image", f"/images/{segment(id_)}", {"force": "1"})

    def _blobs(self, below: tuple[str, ...], present: dict[str, StoredImage]) -> tuple[Descriptor, ...]:
        if not below:
            return ()
        candidates = [
            (not image.blobs, len(image.diff_ids), id_)
            for id_, image in present.items()
            if image.diff_ids[: len(below)] == below
        ]
        for _, _, id_ in sorted(candidates):
            blobs = self._stored.blobs(id_, present[id_])
            if blobs:
                return blobs[: len(below)]
        raise EngineError(
            "the daemon does not tell how it stores the layers of the base image",
            where=str(self.client.endpoint),
            hint="Pull or load the base image again.",
        )

    def _send(self, shipment: Shipment, image: ComposedImage, reporter: Reporter) -> None:
        with reporter.step("load", f"{len(shipment.layers)} layers", total=shipment.size, unit="bytes") as task:
            last: list[str] = []

            def passed(layer: Layer, amount: int) -> None:
                if last[-1:] != [layer.name]:
                    last.append(layer.name)
                    task.note(layer.name)
                self.sent += amount
                task.advance(amount)

            self.post(shipment.chunks(passed))
        self.verify(shipment.id, image)

    def post(self, chunks: Iterator[bytes]) -> None:
        """Send an archive and wait until the daemon has taken it in."""
        for _ in self.client.messages("load the image", "/images/load", data=chunks, params=_QUIET):
            pass  # "Loaded image ID: ..."; what counts is what the daemon has in the end

    def _verify_unpacked(self, id_: str) -> None:
        """See that a container can be made: containerd takes an image whose layers it lacks without a word."""
        doing = "check the loaded image"
        created = self.client.post(doing, "/containers/create", body={"Image": id_, "Cmd": ["true"]})
        self.client.delete(doing, f"/containers/{segment(created['Id'])}", {"force": "1"})

    def _is_whole(self, id_: str, image: ComposedImage) -> bool:
        try:
            self.verify(id_, image)
        except RefusedError:
            return False
        return True


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
