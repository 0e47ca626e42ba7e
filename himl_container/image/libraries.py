"""Shared libraries of the layers: read once for each layer, then kept by the layer's digest."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from himl_container.cache import Cache
from himl_container.image import elf, tar_scan
from himl_container.image.model import PREFIX

_FORMAT = 1


def needs_from_base(digests: tuple[str, ...], cache: Cache) -> dict[str, list[str]] | None:
    """Return which libraries the environment needs from the base, and what for; see :func:`elf.outside`.

    :param digests: of the image's layers; those that the store does not have are the base's. None means that the
        store has none of them (the image was made by Docker itself), so that the image must be asked.
    """
    ours = [digest for digest in digests if cache.blob(digest).is_file()]
    if not ours:
        return None
    files: dict[str, elf.Elf] = {}
    links: dict[str, str] = {}
    for digest in ours:
        found = _libraries(digest, cache)
        files.update({path: elf.Elf(*values) for path, values in found["files"].items()})
        links.update(found["links"])
    return elf.outside(files, links, PREFIX)


def _libraries(digest: str, cache: Cache) -> Mapping[str, Any]:
    memo = ("memo", "elf", f"{digest.partition(':')[2]}.json")
    known = cache.read_json(*memo)
    if isinstance(known, dict) and known.get("format") == _FORMAT:
        return known
    files: dict[str, elf.Elf] = {}
    links: dict[str, str] = {}
    with tar_scan.opened(cache.blob(digest)) as data:
        for member in tar_scan.members(data):
            path = "/" + member.path
            if member.kind == "link" and ".so" in member.path:
                links[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.target))
            elif member.kind == "file":
                found = elf.read_elf(data, member.offset, member.size)
                if found is not None:
                    files[path] = found
    result = {"format": _FORMAT, "files": files, "links": links}
    cache.write_json(result, *memo)
    return result
