"""What a daemon's images are made of, asked once per image.

An image id is a digest, so what is below it never changes: the answers are kept in the cache, and hundreds of images
cost one request (their list) and one file. The record is only ever about images that the daemon has at this moment.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from himl_container.cache import Cache
from himl_container.errors import StorageError
from himl_container.image.docker_http import segment
from himl_container.image.model import chain_ids
from himl_container.registry.model import Descriptor

if TYPE_CHECKING:
    from himl_container.image.engine_client import Client

_LARGEST_JSON = 8 << 20


@dataclass(frozen=True)
class StoredImage:
    """What an image is made of.

    :param blobs: the layers' blobs in containerd's store; empty where that is not known (yet).
    """

    diff_ids: tuple[str, ...]
    blobs: tuple[Descriptor, ...] = ()


class StoredImages:
    """The images of one daemon, with what is known of each.

    :param daemon: what identifies the daemon, so that one's record is never taken for another's.
    :param cache: where answers are kept; None keeps them for the life of this object only.
    """

    def __init__(self, client: Client, daemon: str, cache: Cache | None) -> None:
        self._client = client
        self._cache = cache
        self._file = ("memo", "daemon-images", hashlib.sha256(daemon.encode()).hexdigest()[:32] + ".json")
        self._known: dict[str, StoredImage] = self._read()

    def present(self) -> dict[str, StoredImage]:
        """Return all images that the daemon has now, those without a name too, by id.

        :raises EngineError: the daemon does not answer.
        """
        listed = self._client.json("list the images", "/images/json", {"all": "1"}) or []
        ids = dict.fromkeys(str(image["Id"]) for image in listed)
        images = {id_: self._known.get(id_) or self._ask(id_) for id_ in ids}
        found = {id_: image for id_, image in images.items() if image is not None}
        if found != self._known:
            self._known = found
            self._write()
        return found

    def chain_ids(self) -> frozenset[str]:
        """Return the chain ids of all layers of all images that the daemon has now."""
        return frozenset(chain for image in self.present().values() for chain in chain_ids(image.diff_ids))

    def learn(self, id_: str, image: StoredImage) -> None:
        """Keep what was found out of an image."""
        self._known[id_] = image
        self._write()

    def blobs(self, id_: str, image: StoredImage) -> tuple[Descriptor, ...]:
        """Return the blobs of an image's layers in containerd's store, lowest first; empty when it does not tell.

        The Engine API gives them only inside of an export of the whole image; it is read and thrown away, once per
        image, and only until the manifest has come by.
        """
        if not image.blobs:
            image = StoredImage(image.diff_ids, self._exported_blobs(id_, image.diff_ids))
            self.learn(id_, image)
        return image.blobs

    def _exported_blobs(self, id_: str, diff_ids: tuple[str, ...]) -> tuple[Descriptor, ...]:
        doing = "read the base image's manifest"
        with (
            self._client.open(doing, f"/images/{segment(id_)}/get") as stream,
            self._client.converting(doing),
            tarfile.open(fileobj=stream.body, mode="r|", bufsize=1 << 20) as archive,
        ):
            documents: dict[str, Any] = {}
            for entry in archive:
                if entry.isfile() and entry.size <= _LARGEST_JSON and entry.name.startswith("blobs/"):
                    content = archive.extractfile(entry)
                    documents["sha256:" + entry.name.rsplit("/", 1)[-1]] = _json(content.read() if content else b"")
                    found = _layers_of(id_, documents, diff_ids)
                    if found:
                        return found
        return ()

    def _ask(self, id_: str) -> StoredImage | None:
        answer = self._client.json("look up an image", f"/images/{segment(id_)}/json")
        return None if answer is None else StoredImage(tuple((answer.get("RootFS") or {}).get("Layers") or ()))

    def _read(self) -> dict[str, StoredImage]:
        record = self._cache.read_json(*self._file) if self._cache else None
        try:
            return {
                id_: StoredImage(tuple(image["diff_ids"]), tuple(Descriptor(**blob) for blob in image["blobs"]))
                for id_, image in (record or {}).items()
            }
        except (AttributeError, KeyError, TypeError):
            return {}

    def _write(self) -> None:
        if self._cache is None:
            return
        try:
            self._cache.write_json({id_: _as_json(image) for id_, image in self._known.items()}, *self._file)
        except StorageError:
            return  # a record that cannot be kept costs time at the next build, nothing else


def _as_json(image: StoredImage) -> dict[str, Any]:
    return {"diff_ids": image.diff_ids, "blobs": [asdict(blob) for blob in image.blobs]}


def _layers_of(id_: str, documents: Mapping[str, Any], diff_ids: tuple[str, ...]) -> tuple[Descriptor, ...]:
    """Return the layers of an image once its manifest and configuration are among the documents.

    An index is followed. It may list other platforms and attestations, so the configuration decides which one it is.
    """
    document = documents.get(id_)
    if not isinstance(document, dict):
        return ()
    if isinstance(document.get("layers"), list):
        config = documents.get(str((document.get("config") or {}).get("digest")))
        if not isinstance(config, dict) or (config.get("rootfs") or {}).get("diff_ids") != list(diff_ids):
            return ()
        layers = document["layers"]
        return tuple(Descriptor(str(layer["mediaType"]), str(layer["digest"]), int(layer["size"])) for layer in layers)
    children = [str(child.get("digest")) for child in document.get("manifests") or () if isinstance(child, dict)]
    found = [layers for child in children if child != id_ and (layers := _layers_of(child, documents, diff_ids))]
    return found[0] if found else ()


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
