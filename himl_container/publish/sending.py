"""The end of ``build --push``: the image is sent with its proof, and the layer index learns of its layers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from himl_container.errors import RegistryError
from himl_container.image.prepare import Prepared
from himl_container.image.smoke_verdict import SmokeCheck
from himl_container.publish.index_update import Held, hold_facts, update_index
from himl_container.publish.manifest import Origin, image_annotations
from himl_container.publish.model import Pushed
from himl_container.publish.proof import attach_proof
from himl_container.publish.publication import Publication
from himl_container.publish.push import push
from himl_container.publish.remote import RemoteImage, attach_test, find_remote
from himl_container.publish.source import RegistrySource
from himl_container.registry.model import Descriptor


def send(
    publication: Publication,
    prepared: Prepared,
    source: RegistrySource,
    *,
    tested: bool,
    passed: Iterable[SmokeCheck] = (),
) -> tuple[RemoteImage, Pushed]:
    """Bring an image into the registry under its fingerprint's tag; return what the registry has then.

    :param tested: whether the image has passed its tests; written into its manifest.
    :param passed: the tests, for an image that somebody else has pushed meanwhile without.
    :raises RegistryError: the registry does not answer, refuses, or has another image under the tag by now.
    """
    settings, repository, reporter = source.settings, source.repository, source.reporter
    lock, lock_bytes, value = prepared.lock, settings.lock_file.read_bytes(), prepared.fingerprint
    origin = Origin(lock, lock_bytes, value, settings.root, tested)

    cache = source.knowing(prepared)
    held: list[Held] = []

    def hold(manifest: Descriptor) -> None:
        with contextlib.suppress(RegistryError):  # tried again, and told, when the index is written
            held.append(hold_facts(source.index, publication, manifest, lock=lock, repository=repository, cache=cache))

    def attach(manifest: Descriptor) -> None:
        """Attach the proof before the image has its name: who finds the image finds the proof."""
        with ThreadPoolExecutor(1, thread_name_prefix="hold") as pool:
            holding = pool.submit(hold, manifest)
            attach_proof(repository, manifest, lock=lock, lock_bytes=lock_bytes, settings=settings, reporter=reporter)
            holding.result()

    pushed = push(
        replace(publication.image, annotations=image_annotations(origin, os.environ)),
        repository,
        value[:32],
        cache=cache,
        compression=settings.compression,
        reporter=reporter,
        export=publication.export,
        connect_to=source.connect,
        attach=attach,
        seen=source.seen,
    )
    try:
        update_index(
            source.index,
            publication,
            pushed,
            lock=lock,
            repository=repository,
            cache=cache,
            reporter=reporter,
            held=held[-1] if held else None,
        )
    except RegistryError as error:
        reporter.warn(f"the image is pushed; the layer index could not be written ({error.what})")
    if not pushed.existed:
        return RemoteImage(pushed.name, pushed.manifest, tested), pushed
    return _of_another(source, pushed, value, tested, tuple(passed)), pushed


def _of_another(
    source: RegistrySource, pushed: Pushed, value: str, tested: bool, passed: tuple[SmokeCheck, ...]
) -> RemoteImage:
    """Return the image that somebody else pushed while we did; our test counts for it, because it is the same."""
    found = find_remote(source.settings, value, reporter=source.reporter, repository=source.repository)
    if found is None:
        raise RegistryError("the image was there and is gone again", where=pushed.name, hint="Push it again.")
    if tested and not found.tested:
        attach_test(source.repository, found.manifest, value, passed)
        found = replace(found, tested=True)
    return found
