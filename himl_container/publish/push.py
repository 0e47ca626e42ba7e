"""Pushing an image: its layers, its configuration, and last its manifest, so that a reader sees all of it or nothing.

The digest of the manifest is known before it is sent, and what the registry then reports has to be equal. Two machines
may push the same tag at once: who comes second takes what is there when it is the same image, and fails otherwise. A
tag is never silently given another meaning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from himl_container.cache import Cache
from himl_container.errors import BuildError, RegistryError
from himl_container.progress import Reporter
from himl_container.publish.compress import CompressedStore
from himl_container.publish.known_names import remember
from himl_container.publish.manifest import image_manifest
from himl_container.publish.model import Pushed, PushImage
from himl_container.publish.placing import Connect, Export, How, Placed, Placer
from himl_container.publish.push_result import layers_of, other_image, same_image
from himl_container.publish.transfer import Transfer
from himl_container.registry.api import Repository, connect
from himl_container.registry.model import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, sha256_of
from himl_container.registry.refusals import MissingBlobsError
from himl_container.registry.stored import store_whole

Attach = Callable[[Descriptor], None]
"""Adds something to an image that is about to get its tag."""


def push(
    image: PushImage,
    target: Repository,
    tag: str,
    *,
    cache: Cache,
    compression: str,
    reporter: Reporter,
    export: Export | None = None,
    before: Descriptor | None = None,
    connect_to: Connect = connect,
    attach: Attach | None = None,
    seen: Set[str] = frozenset(),
) -> Pushed:
    """Bring an image into a repository under a tag. Whole or not at all; a second try sends only the rest.

    After an error ``target`` cannot be used any more: its connection is stopped, so that no thread waits on it.

    :param compression: ``gzip`` or ``zstd``, for layers whose compressed form is not known yet.
    :param export: see :data:`himl_container.publish.placing.Export`; called at most for layers that are nowhere else.
    :param before: what the tag meant when the caller looked. None: nothing. Only that meaning is replaced.
    :param connect_to: how to reach the registries that layers are copied from.
    :param attach: called with the manifest's descriptor before the tag is given, so that who finds the image finds
        what belongs to it.
    :param seen: digests of layers that ``target`` was just asked for, and has.
    :raises RegistryError: the registry does not answer or refuses, the tag means something else by now, or a layer is
        nowhere to be had.
    :raises BuildError: the image does not fit together, or a layer's file is damaged.
    :raises StorageError: the cache cannot be written.
    """
    _check(image)
    name = f"{target.host}/{target.name}:{tag}"
    requests = target.requests
    count = len({layer.diff_id for layer in image.layers})
    # One push of a tag from this machine at a time; and while a lock is held, pruning leaves the layers alone.
    with (
        cache.lock("push-" + hashlib.sha256(name.encode()).hexdigest()[:3]),
        CompressedStore(cache, compression) as store,
        reporter.step("push", f"{count} layers", unit="bytes") as task,
        Transfer(task, reporter) as transfer,
    ):
        placer = Placer(target, store, transfer, export, connect_to, seen=seen)
        done = _Push(image, target, tag, placer, before=before, attach=attach).run()
        if done.manifest.digest == image_manifest(image.config, done.layers, image.annotations)[1].digest:
            # A run of this image can then say by which digest the registry has it.
            remember(cache, [sha256_of(image.config)], [f"{target.host}/{target.name}@{done.manifest.digest}"])
        return Pushed(
            name=name,
            manifest=done.manifest,
            layers=done.layers,
            bytes_sent=transfer.bytes_sent + done.manifest_bytes,
            requests=target.requests - requests,
            existed=done.existed,
            sent=done.count("sent"),
            mounted=done.count("mounted"),
            copied=done.count("copied"),
        )


@dataclass(frozen=True)
class _Done:
    manifest: Descriptor
    layers: tuple[Descriptor, ...]
    placed: Mapping[str, Placed]
    manifest_bytes: int = 0
    existed: bool = False

    def count(self, how: How) -> int:
        return sum(one.how == how for one in self.placed.values())


class _Push:
    """One push: layers and configuration, then the manifest, then a look at what the registry has."""

    def __init__(
        self,
        image: PushImage,
        target: Repository,
        tag: str,
        placer: Placer,
        *,
        before: Descriptor | None,
        attach: Attach | None,
    ) -> None:
        self.image = image
        self.target = target
        self.tag = tag
        self.placer = placer
        self.before = before
        self.attach = attach
        self.config = Descriptor(OCI_CONFIG, sha256_of(image.config), len(image.config))
        self.manifest_bytes = 0

    def run(self) -> _Done:
        placed = self.placer.place(self.image.layers, documents=[(self.image.config, self.config)])
        try:
            return self._name(placed)
        except RegistryError as error:
            if not _blobs_are_missing(error):
                raise
            again = self._again(placed, error)
        try:
            return self._name(again)
        except RegistryError as error:
            if _blobs_are_missing(error):
                error.what = f"the registry says that it has blobs, and does not have them: {error.what}"
            raise

    def _name(self, placed: dict[str, Placed]) -> _Done:
        """Put the manifest under the tag, and see that it is there."""
        layers = tuple(placed[layer.diff_id].descriptor for layer in self.image.layers)
        data, expected = image_manifest(self.image.config, layers, self.image.annotations)
        store_whole(data, OCI_MANIFEST, put=self.target.put_manifest, head=self.target.head, where=self._where)
        self.manifest_bytes += len(data)
        if self.attach is not None:
            self.attach(expected)
        found = self.target.head(self.tag)  # as late as can be
        if found is not None and found.digest == expected.digest:
            return _Done(expected, layers, placed, self.manifest_bytes, existed=True)
        if found is not None and (self.before is None or found.digest != self.before.digest):
            return self._theirs(found, placed)
        try:
            reported = self.target.put_manifest(data, OCI_MANIFEST, self.tag)
        except RegistryError as error:
            if _blobs_are_missing(error):
                raise
            # A registry that guards its tags refuses the second of two pushes instead of letting it win.
            found = self.target.head(self.tag)
            if found is None or (self.before is not None and found.digest == self.before.digest):
                raise
            return self._theirs(found, placed)
        self.manifest_bytes += len(data)
        if reported != expected.digest:
            raise RegistryError(
                f"the registry reports the digest {reported} for what was sent as {expected.digest}", where=self._where
            )
        found = self.target.head(self.tag)
        if found is None:
            raise RegistryError("the registry took the image and does not have it", where=self._where, hint=_AGAIN)
        if found.digest != expected.digest:
            return self._theirs(found, placed)
        return _Done(expected, layers, placed, self.manifest_bytes)

    def _theirs(self, found: Descriptor, placed: Mapping[str, Placed]) -> _Done:
        """Take what somebody else pushed under our tag, when it is the same image.

        :raises RegistryError: it is another.
        """
        manifest = self.target.manifest(found.digest)
        if manifest is None or not self._same(manifest):
            raise other_image(self._where, found.digest)
        return _Done(manifest.descriptor, layers_of(manifest), placed, self.manifest_bytes, existed=True)

    def _same(self, manifest: Manifest) -> bool:
        """Whether a manifest is of our image. Its labels may differ: another version of this tool writes its own."""
        if same_image(manifest, self.config.digest):
            return True
        config = manifest.content.get("config")
        digest = config.get("digest") if isinstance(config, dict) else None
        return isinstance(digest, str) and _essence(self.target.blob(digest)) == _essence(self.image.config)

    def _again(self, placed: dict[str, Placed], error: RegistryError) -> dict[str, Placed]:
        """Send what the registry said that it had, and has not.

        :raises RegistryError: they cannot be had.
        """
        named = error.digests if isinstance(error, MissingBlobsError) else ()
        missing = {d: one for d, one in placed.items() if one.descriptor.digest in named}
        if not missing and self.config.digest not in named:
            believed = {d: one for d, one in placed.items() if one.how in ("there", "mounted")}
            missing = {d: one for d, one in believed.items() if not self._readable(one.descriptor)} or believed
        self.placer.transfer.inform(
            f"the registry lacks {max(len(missing), 1)} blobs that it said it had; they are sent again"
        )
        digests = {one.descriptor.digest for one in missing.values()}
        self.placer.distrusted = self.placer.distrusted | digests | {self.config.digest}
        layers = [layer for layer in self.image.layers if layer.diff_id in missing]
        try:
            again = self.placer.place(layers, documents=[(self.image.config, self.config)])
        except RegistryError as reason:
            raise RegistryError(
                "the registry says that it has layers, and does not have them; they cannot be sent either: "
                + reason.what,
                where=self._where,
                hint=reason.hint,
            ) from error
        return {**placed, **again}

    def _readable(self, blob: Descriptor) -> bool:
        """Whether the registry gives the first bytes of a blob: what it says of it cannot be trusted here."""
        pieces = self.target.stream(blob)
        try:
            next(iter(pieces), b"")
        except RegistryError:
            return False
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
        return True

    @property
    def _where(self) -> str:
        return f"{self.target.host}/{self.target.name}:{self.tag}"


_AGAIN = "Push again; only what is missing is sent."


def _blobs_are_missing(error: RegistryError) -> bool:
    """Whether a manifest was refused because the registry lacks what it names."""
    return isinstance(error, MissingBlobsError) or "BLOB_UNKNOWN" in error.what


def _essence(config: bytes) -> object:
    """Return what an image configuration says of the image's content and behaviour."""
    try:
        value = json.loads(config)
        inner = {name: item for name, item in value["config"].items() if name != "Labels"}
        return inner, value["rootfs"], value["os"], value["architecture"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return config


def _check(image: PushImage) -> None:
    """See that an image's layers are those of its configuration.

    :raises BuildError: they are not.
    """
    try:
        diff_ids = json.loads(image.config)["rootfs"]["diff_ids"]
    except (ValueError, KeyError, TypeError) as error:
        raise BuildError("the image's configuration is malformed") from error
    if diff_ids != [layer.diff_id for layer in image.layers]:
        raise BuildError(
            "the image's configuration names other layers than the image has",
            hint="Something changed meanwhile; run the command again.",
        )
