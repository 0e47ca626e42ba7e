"""What is attached to an image in its registry: the lock and the bill of materials, as OCI referrers.

A referrer names the image's manifest by digest, so it belongs to exactly this image; but whoever may push to the
repository may attach something. So nothing that is attached is believed for being there: :func:`read_lock_of` returns a
lock only when the image itself names it: by its digest in the manifest, or by the hash over all of its packages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from himl_container.cache import Cache
from himl_container.environment.model import Lock
from himl_container.errors import InputError
from himl_container.progress import Reporter
from himl_container.publish.gzip_text import gunzipped, gzipped
from himl_container.publish.manifest import LOCK
from himl_container.publish.sbom import SBOM_TYPE, make_sbom
from himl_container.registry.api import Attachment, Repository
from himl_container.registry.model import Descriptor, Manifest, sha256_of
from himl_container.settings import Settings

LOCK_TYPE = "application/vnd.himl.lock.v1+toml"
"""Artifact type and media type of an attached lock."""

_GZIP = "+gzip"
"""Ends the media type of a document that is compressed, as registered suffixes do (RFC 6713)."""

_TITLE = "org.opencontainers.image.title"

_MOST_DOCUMENTS = 20
"""Attached documents of one type that are looked at; more are nothing that we made."""

_LONGEST_DOCUMENT = 64 << 20


def attach_proof(
    repository: Repository,
    subject: Descriptor,
    *,
    lock: Lock,
    lock_bytes: bytes,
    settings: Settings,
    reporter: Reporter,
) -> None:
    """Attach the lock and the bill of materials to an image, each only where it is not attached already.

    Costs one request where both are there. Safe to repeat after a failure, and before the image's manifest is pushed.

    :param subject: the image's manifest in this repository.
    :param lock_bytes: the lock file as it is, of which ``lock`` was read.
    :raises RegistryError: the registry does not answer or refuses.
    """
    made_from = sha256_of(lock_bytes)
    attached = repository.referrers(subject.digest)
    missing = [kind for kind in (LOCK_TYPE, SBOM_TYPE) if not _is_attached(repository, attached, kind, made_from)]
    if not missing:
        return
    with reporter.step("attach", "lock and bill of materials", total=len(missing), unit="documents") as task:
        name = f"{repository.host}/{repository.name}"
        documents = []
        for kind in missing:
            if kind == LOCK_TYPE:
                data, title = lock_bytes, settings.lock_file.name
            else:
                data = make_sbom(lock, name=name, digest=subject.digest, cache=Cache(settings.cache_dir))
                title = f"{settings.image_name.rpartition('/')[2]}.cdx.json"
            notes = {LOCK: made_from, _TITLE: f"{title}.gz"}
            documents.append(Attachment(gzipped(data), kind, f"{kind}{_GZIP}", notes))
        repository.attach_all(subject, documents)
        task.advance(len(missing))


def read_lock_of(repository: Repository, subject: Descriptor) -> Lock | None:
    """Return the lock that is attached to an image; None where there is none that the image itself confirms.

    :raises RegistryError: the registry does not answer or refuses, or what it sends is not what its digest says.
    """
    image = repository.manifest(subject.digest)
    if image is None:
        return None
    stated = image.content.get("annotations")
    annotations = stated if isinstance(stated, dict) else {}
    labels = {} if annotations.get(LOCK) else labels_of(_config(repository, image))
    return attached_lock(repository, subject, annotations=annotations, labels=labels)


def attached_lock(
    repository: Repository, subject: Descriptor, *, annotations: Mapping[str, str], labels: Mapping[str, str]
) -> Lock | None:
    """Return the attached lock as :func:`read_lock_of` does, for an image that is known already.

    :param annotations: of the image's manifest; the one that names the lock's digest decides where it is there.
    :param labels: of the image's configuration; the hash over all packages decides otherwise.
    """
    from himl_container.environment.lock_reader import read_lock_text

    noted = annotations.get(LOCK, "")
    for data in attached_documents(repository, subject, LOCK_TYPE):
        if noted and sha256_of(data) != noted:
            continue  # somebody else's document under our type; ours, if there is one, comes too
        try:
            lock = read_lock_text(data.decode("utf-8"), where=f"the lock attached to {subject.digest}")
        except (InputError, UnicodeDecodeError):
            continue
        if noted or artifacts_of(lock) == labels.get("himl.artifacts"):
            return lock
    return None


def attached_documents(repository: Repository, subject: Descriptor, artifact_type: str) -> Iterator[bytes]:
    """Yield the documents of a type that are attached to an image, in the order of their digests.

    :raises RegistryError: as :func:`read_lock_of`.
    """
    found = [
        item for item in repository.referrers(subject.digest, artifact_type) if item.artifact_type == artifact_type
    ]
    for descriptor in sorted(found, key=lambda item: item.digest)[:_MOST_DOCUMENTS]:
        manifest = repository.manifest(descriptor.digest)
        content = manifest.content if manifest is not None else {}
        about, layers = content.get("subject"), content.get("layers")
        if not isinstance(about, dict) or about.get("digest") != subject.digest or not isinstance(layers, list):
            continue
        layer = layers[0] if len(layers) == 1 and isinstance(layers[0], dict) else {}
        if isinstance(layer.get("digest"), str) and isinstance(layer.get("size"), int):
            if layer["size"] > _LONGEST_DOCUMENT:
                continue
            data = repository.blob(layer["digest"], limit=_LONGEST_DOCUMENT)
            if not str(layer.get("mediaType")).endswith(_GZIP):
                yield data
            elif (text := gunzipped(data, _LONGEST_DOCUMENT)) is not None:
                yield text


def artifacts_of(lock: Lock) -> str:
    """Return the digest over the hashes of all packages, which an image of the lock has as label ``himl.artifacts``."""
    from himl_container.image.config import image_labels

    return dict(image_labels(lock, ""))["himl.artifacts"]


def labels_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of an OCI image configuration; none where it is malformed."""
    inner = config.get("config")
    labels = inner.get("Labels") if isinstance(inner, dict) else None
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}


def _config(repository: Repository, image: Manifest) -> Mapping[str, Any]:
    import json

    descriptor = image.content.get("config")
    if not isinstance(descriptor, dict) or not isinstance(descriptor.get("digest"), str):
        return {}
    try:
        value = json.loads(repository.blob(descriptor["digest"]))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_attached(repository: Repository, attached: tuple[Descriptor, ...], artifact_type: str, made_from: str) -> bool:
    """Whether a document of a type, made from this lock, is attached; some registries list no annotations."""
    for item in attached:
        if item.artifact_type != artifact_type:
            continue
        noted = item.annotations.get(LOCK)
        if noted is None:
            manifest = repository.manifest(item.digest)
            annotations = manifest.content.get("annotations") if manifest is not None else None
            noted = annotations.get(LOCK) if isinstance(annotations, dict) else None
        if noted == made_from:
            return True
    return False
