"""The image's bill of materials (CycloneDX 1.6, JSON), made from the lock alone.

The same lock gives the same bytes on every machine: the serial number is a hash of the content, the time is that of
the lock (:func:`himl_container.publish.manifest.created`), and the text is sorted. Neither the network nor a layer is
asked, so a licence is known where the lock states it: for Conda packages, not for wheels.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from himl_container import __version__
from himl_container.environment.model import BasePin, Lock, LockedConda, LockedWheel
from himl_container.image.model import PREFIX
from himl_container.image.plan import dependency_name, plan_layers
from himl_container.publish.manifest import created
from himl_container.registry.reference import parse_reference

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

SBOM_TYPE = "application/vnd.cyclonedx+json"
"""Media type and artifact type of the document (registered with IANA)."""

NAMESPACE = "himl"
"""What the names of our properties begin with (CycloneDX, "Property Taxonomy")."""

_LONGEST_EXPRESSION = 300
"""Characters up to which a licence is tried as an SPDX expression; a hostile one must not keep the parser busy."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def make_sbom(lock: Lock, *, name: str = "", digest: str = "", environ: Mapping[str, str] | None = None) -> bytes:
    """Return the bill of materials of an image as JSON bytes.

    :param name: the image's repository, with its registry's address (``myworkspace.azurecr.io/himl/train``).
    :param digest: of the image's manifest; empty before it is known.
    :param environ: the process's environment where not given; ``SOURCE_DATE_EPOCH`` is taken from it.
    :raises InputError: ``SOURCE_DATE_EPOCH`` is not a number of seconds.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    time = created(lock, os.environ if environ is None else environ)
    layers = _layers(lock)
    root = _image(name, digest)
    packages = {conda.name: _conda(conda, layers) for conda in lock.conda}
    wheels = [_wheel(wheel, layers) for wheel in lock.wheels]
    base = _base(lock.base)
    tool = Component(type=ComponentType.APPLICATION, name="himl-container", version=__version__, bom_ref="tool")
    bom = Bom(
        components=[base, *packages.values(), *wheels],
        metadata=BomMetaData(
            component=root,
            tools=ToolRepository(components=[tool]),
            timestamp=datetime.datetime.fromisoformat(time.replace("Z", "+00:00")),
            properties=_properties(platform=lock.platform, prefix=PREFIX, python=lock.python_version),
        ),
    )
    wanted = {dependency_name(text) for text in lock.declared.conda}
    bom.register_dependency(root, [base, *(packages[one] for one in sorted(wanted & packages.keys())), *wheels])
    for conda in lock.conda:
        needed = {dependency_name(text) for text in conda.depends} & packages.keys() - {conda.name}
        bom.register_dependency(packages[conda.name], [packages[one] for one in sorted(needed)])
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    document.pop("serialNumber", None)
    content = hashlib.sha256(_text(document)).digest()
    document["serialNumber"] = f"urn:uuid:{uuid.UUID(bytes=content[:16], version=5)}"
    return _text(document)


def clean(text: str) -> str:
    """Return a text that any reader of JSON or XML takes: control characters and lone surrogates are replaced."""
    return _UNSAFE.sub("\ufffd", text).strip()


def _text(document: Any) -> bytes:
    return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def _layers(lock: Lock) -> dict[str, str]:
    """Return the layer's name of each artifact, by the artifact's sha256 and name."""
    found: dict[str, str] = {}
    for plan in plan_layers(lock):
        found |= {f"{conda.sha256} {conda.name}": plan.name for conda in plan.conda}
        found |= {f"{wheel.sha256} {wheel.name}": plan.name for wheel in plan.wheels}
    return found


def _image(name: str, digest: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    version = digest or None
    purl = _oci(name, digest) if name and digest else None
    return Component(
        type=ComponentType.CONTAINER, name=clean(name) or "image", version=version, purl=purl, bom_ref="image"
    )


def _base(base: BasePin) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    reference = parse_reference(base.reference)
    digest = base.digest or reference.digest
    return Component(
        type=ComponentType.CONTAINER,
        name=reference.repository,
        version=reference.tag or digest or None,
        bom_ref="base",
        purl=_oci(reference.repository, digest, reference.tag) if digest else None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest.partition(":")[2])] if digest else [],
        properties=_properties(role="base image", rootfs=base.rootfs),
    )


def _conda(package: LockedConda, layers: Mapping[str, str]) -> Component:
    from packageurl import PackageURL

    kind = "tar.bz2" if package.filename.endswith(".tar.bz2") else "conda"
    qualifiers = {"build": package.build, "channel": package.channel, "subdir": package.subdir, "type": kind}
    return _package(
        package,
        reference=f"conda:{package.name}",
        purl=PackageURL("conda", None, package.name, package.version, qualifiers),
        license_text=package.license,
        urls=(package.url,),
        properties=_properties(
            kind="conda",
            build=package.build,
            channel=package.channel,
            subdir=package.subdir,
            layer=layers.get(f"{package.sha256} {package.name}", ""),
            size=str(package.size),
        ),
    )


def _wheel(wheel: LockedWheel, layers: Mapping[str, str]) -> Component:
    from packageurl import PackageURL

    # pkg:pypi would say that this is the public package of that name, which somebody else may own.
    private = {"checksum": f"sha256:{wheel.sha256}", "file_name": wheel.filename}
    purl = (
        PackageURL("generic", None, wheel.name, wheel.version, private)
        if wheel.private
        else PackageURL("pypi", None, wheel.name, wheel.version)
    )
    return _package(
        wheel,
        reference=f"pip:{wheel.name}",
        purl=purl,
        license_text="",
        urls=tuple(filter(None, (wheel.url, wheel.sdist_url))),
        properties=_properties(
            kind="pip",
            file=wheel.filename,
            layer=layers.get(f"{wheel.sha256} {wheel.name}", ""),
            private="true" if wheel.private else "",
            sdist=f"sha256:{wheel.sdist_sha256}" if wheel.sdist_url else "",
            size=str(wheel.size),
        ),
    )


def _package(
    package: LockedConda | LockedWheel,
    *,
    reference: str,
    purl: Any,
    license_text: str,
    urls: tuple[str, ...],
    properties: list[Any],
) -> Component:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        bom_ref=reference,
        purl=purl,
        licenses=_licenses(license_text),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)],
        external_references=[
            ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(clean(url))) for url in urls
        ],
        properties=properties,
    )


def _licenses(text: str) -> Iterable[DisjunctiveLicense | LicenseExpression]:
    """Return a licence as SPDX id or expression where it is one, else as the name that the package gives it."""
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
    from cyclonedx.spdx import fixup_id, is_expression

    stated = clean(text)
    if not stated:
        return []
    known = fixup_id(stated)
    if known:
        return [DisjunctiveLicense(id=known)]
    if len(stated) <= _LONGEST_EXPRESSION and is_expression(stated):
        return [LicenseExpression(stated)]
    return [DisjunctiveLicense(name=stated)]


def _properties(**values: str) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=f"{NAMESPACE}:{name}", value=clean(value)) for name, value in values.items() if value]


def _oci(repository: str, digest: str, tag: str = "") -> Any:
    from packageurl import PackageURL

    qualifiers = {"repository_url": repository} | ({"tag": tag} if tag else {})
    return PackageURL("oci", None, repository.rpartition("/")[2], digest, qualifiers)
