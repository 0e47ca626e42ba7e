"""The image's bill of materials (CycloneDX 1.6, JSON), made from the lock alone.

The same lock gives the same bytes on every machine: the serial number is a hash of the content, the time is that of
the lock (:func:`himl_container.publish.manifest.created`), and the text is sorted. Neither the network nor a layer is
asked, so a licence is known where the lock states it: for Conda packages, not for wheels.

What changes most, the private wheels and the image's own name, is put into a document that the library has made of the
rest. That one is kept: making it takes longer than building a changed wheel's layer and pushing it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from himl_container import __version__
from himl_container.cache import Cache
from himl_container.environment.model import Lock, LockedWheel
from himl_container.errors import StorageError
from himl_container.image.model import PREFIX
from himl_container.image.plan import dependency_name, plan_layers
from himl_container.publish.manifest import created
from himl_container.publish.sbom_library import (
    NAMESPACE,
    clean,
    image_purl,
    made_by_library,
    private_purl,
    wheel_facts,
)

SBOM_TYPE = "application/vnd.cyclonedx+json"
"""Media type and artifact type of the document (registered with IANA)."""

_FORMAT = 1
"""Version of the kept documents: to be raised where this module makes another one of the same lock."""


def make_sbom(
    lock: Lock,
    *,
    name: str = "",
    digest: str = "",
    environ: Mapping[str, str] | None = None,
    cache: Cache | None = None,
) -> bytes:
    """Return the bill of materials of an image as JSON bytes.

    :param name: the image's repository, with its registry's address (``myworkspace.azurecr.io/himl/train``).
    :param digest: of the image's manifest; empty before it is known.
    :param environ: the process's environment where not given; ``SOURCE_DATE_EPOCH`` is taken from it.
    :param cache: keeps the part that other private wheels do not change.
    :raises InputError: ``SOURCE_DATE_EPOCH`` is not a number of seconds.
    """
    time = created(lock, os.environ if environ is None else environ)
    layers = _layers(lock)
    own = [wheel for wheel in lock.wheels if _is_own(wheel)]
    document = _without_own(lock, layers, time, cache)
    document["metadata"]["component"].update(_identity(name, digest))
    document["components"] = sorted(
        [*document["components"], *(_own_wheel(wheel, layers) for wheel in own)], key=lambda one: str(one["bom-ref"])
    )
    references = [f"pip:{wheel.name}" for wheel in own]
    dependencies = {one["ref"]: one for one in [*document["dependencies"], *({"ref": ref} for ref in references)]}
    root = dependencies["image"]
    root["dependsOn"] = sorted([*root.get("dependsOn", []), *references])
    document["dependencies"] = [dependencies[ref] for ref in sorted(dependencies)]
    content = hashlib.sha256(_text(document)).digest()
    document["serialNumber"] = f"urn:uuid:{uuid.UUID(bytes=content[:16], version=5)}"
    return _text(document)


def _without_own(whole: Lock, layers: Mapping[str, str], time: str, cache: Cache | None) -> dict[str, Any]:
    """Return the document of a lock without its private wheels, of an image without a name."""
    lock = replace(whole, wheels=tuple(wheel for wheel in whole.wheels if not _is_own(wheel)))
    apart = {f"{wheel.sha256} {wheel.name}" for wheel in whole.wheels if _is_own(wheel)}
    places = sorted((artifact, layer) for artifact, layer in layers.items() if artifact not in apart)
    wanted = sorted({dependency_name(text) for text in lock.declared.conda} & {conda.name for conda in lock.conda})
    parts = (lock.conda, lock.wheels, lock.base, lock.platform, lock.python_version)
    inputs = (_FORMAT, __version__, PREFIX, parts, wanted, places, time)
    memo = ("memo", "sbom", f"{hashlib.sha256(repr(inputs).encode('utf-8', 'backslashreplace')).hexdigest()}.json")
    known = cache.read_json(*memo) if cache is not None else None
    if isinstance(known, dict) and isinstance(known.get("components"), list):
        return known
    document = made_by_library(lock, layers, time, wanted)
    if cache is not None:
        with contextlib.suppress(StorageError):
            cache.write_json(document, *memo)
    return document


def _text(document: Any) -> bytes:
    # Not indented, which is a quarter smaller and seven times faster: the standard library indents in Python.
    return (json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def _layers(lock: Lock) -> dict[str, str]:
    """Return the layer's name of each artifact, by the artifact's sha256 and name."""
    found: dict[str, str] = {}
    for plan in plan_layers(lock):
        found |= {f"{conda.sha256} {conda.name}": plan.name for conda in plan.conda}
        found |= {f"{wheel.sha256} {wheel.name}": plan.name for wheel in plan.wheels}
    return found


def _identity(name: str, digest: str) -> dict[str, str]:
    """Return what the document's own component says of one image."""
    identity = {"name": clean(name) or "image"}
    if digest:
        identity["version"] = digest
    if name and digest:
        identity["purl"] = image_purl(name, digest).to_string()
    return identity


def _is_own(wheel: LockedWheel) -> bool:
    return wheel.private and not wheel.url and not wheel.sdist_url


def _own_wheel(wheel: LockedWheel, layers: Mapping[str, str]) -> dict[str, Any]:
    """Return the component of a private wheel as the library would write it (a test compares)."""
    facts = sorted((f"{NAMESPACE}:{name}", clean(value)) for name, value in wheel_facts(wheel, layers).items() if value)
    return {
        "bom-ref": f"pip:{wheel.name}",
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "name": wheel.name,
        "properties": [{"name": name, "value": value} for name, value in facts],
        "purl": private_purl(wheel).to_string(),
        "type": "library",
        "version": wheel.version,
    }
