"""Layers from a registry into the store of blobs: downloaded, unpacked as a stream, and compared with their diff ids.

A blob of the store is named by the sha256 of its content, so it appears there by a rename after the comparison, and
what is there need not be fetched, whoever made it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from himl_container.cache import Cache
from himl_container.errors import HimlError, RegistryError
from himl_container.registry.api import Repository, Sent
from himl_container.registry.model import Descriptor

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_BLOCK = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_FREE, _RATIO = 1 << 30, 100


def is_digest(text: object) -> bool:
    """Whether a value is a digest that we take: sha256 alone, so that it can be a file's name."""
    return isinstance(text, str) and _DIGEST.match(text) is not None


def plausible_size(compressed: int) -> int:
    """Return the bytes at which the unpacking of a layer stops, where nobody has said how large it is.

    1 GiB and a hundred times the compressed size. Files of programs compress 2 to 10 times, and text rarely 30 times;
    the gibibyte is for a layer that holds an empty disk image or the like, which gzip makes a thousandth of. Deflate
    cannot do more than that thousandth (1032:1, https://zlib.net/zlib_tech.html), zstd can do much more: a few
    kilobytes can fill any disk.
    """
    return _FREE + _RATIO * compressed


def fetch_layer(
    repository: Repository,
    descriptor: Descriptor,
    diff_id: str,
    *,
    cache: Cache,
    received: Sent | None = None,
    check: Callable[[], None] | None = None,
    size: int = 0,
) -> Path:
    """Return the uncompressed tar of a layer from the store of blobs, downloading it when it is not there.

    Whole or not at all; several processes and threads may ask for the same layer, one of them fetches it. What a
    killed process had of the download is used by the next.

    :param descriptor: of the layer's form in the registry: gzip, zstd or plain.
    :param received: told of the bytes that come in; not of those that need not be fetched.
    :param check: called every few milliseconds; what it raises ends the work.
    :param size: bytes of the tar where they are known; else :func:`plausible_size` is the limit.
    :raises RegistryError: the registry does not give the layer, or it is damaged, too large, or another one.
    :raises StorageError: the cache cannot be written.
    """
    if not is_digest(diff_id) or not is_digest(descriptor.digest):
        raise RegistryError("a layer has no sha256 digest", where=f"{repository.host}/{repository.name}")
    target = cache.blob(diff_id)
    if target.is_file():
        return target
    value = diff_id.partition(":")[2]
    # Locks of one folder, shared by many digests: their files are never removed, and so must be few.
    with cache.lock(f"blob-{value[:3]}"):
        if target.is_file():
            return target
        packed = cache.folder("tmp") / f"layer-{descriptor.digest.partition(':')[2]}"
        if not packed.is_file():
            repository.download(descriptor, packed, received=received)
        try:
            _take(packed, target, descriptor, diff_id, cache=cache, check=check or _nothing, size=size)
        except HimlError as error:
            packed.unlink(missing_ok=True)  # damaged, or there is no room for both
            error.where = error.where or f"{repository.host}/{repository.name}@{descriptor.digest}"
            raise
        packed.unlink(missing_ok=True)
    return target


def _take(
    packed: Path,
    target: Path,
    descriptor: Descriptor,
    diff_id: str,
    *,
    cache: Cache,
    check: Callable[[], None],
    size: int,
) -> None:
    cache.folder(*target.parent.relative_to(cache.root).parts)
    if descriptor.digest == diff_id:
        os.replace(packed, target)  # not compressed, and compared already
        return
    limit = size or plausible_size(descriptor.size)
    total, done = hashlib.sha256(), 0
    with cache.new_file() as temporary:
        with packed.open("rb") as file, temporary.open("wb") as out:
            for block in _unpacked(file):
                check()
                done += len(block)
                if done > limit:
                    raise RegistryError(
                        f"a layer of {descriptor.size} bytes unpacks to more than {limit} bytes",
                        hint="It is not what the image says, or made to fill the disk. Nothing of it was kept.",
                    )
                total.update(block)
                out.write(block)
        found = "sha256:" + total.hexdigest()
        if found != diff_id:
            raise RegistryError(
                f"a layer is not the one that the image's configuration names: {found[:19]}, not {diff_id[:19]}",
                hint="The image was pushed damaged. Push it again from the machine that made it.",
            )
        os.replace(temporary, target)


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """Yield a layer's tar. Its first bytes decide how it is compressed, as Docker does it; media types are often wrong.

    :raises RegistryError: it is damaged.
    """
    import zstandard
    from isal import igzip
    from isal.igzip_lib import IsalError

    head = file.read(len(_ZSTD))
    file.seek(0)
    with contextlib.ExitStack() as stack:
        source: BinaryIO = file
        if head.startswith(_GZIP):
            source = stack.enter_context(cast("Any", igzip).IGzipFile(fileobj=file, mode="rb"))
        elif head == _ZSTD:
            unpacker = zstandard.ZstdDecompressor()  # refuses a window of more than 128 MB, and so bounds the memory
            reader = unpacker.stream_reader(file, read_across_frames=True, closefd=False)
            source = stack.enter_context(cast("BinaryIO", reader))
        damage = (EOFError, gzip.BadGzipFile, cast("type[Exception]", IsalError), zstandard.ZstdError)
        try:
            while block := source.read(_BLOCK):
                yield block
        except damage as error:
            raise RegistryError(
                f"a layer is damaged: {error}", hint="Push the image again from the machine that made it."
            ) from error


def _nothing() -> None:
    return None
