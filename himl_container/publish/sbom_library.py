"""The bill of materials of a lock, made by the CycloneDX library; and what of it others need to write in the same way.

The library takes 0.16 s to import and as long to write 150 packages, so what it has made is kept
(:mod:`himl_container.publish.sbom`), and it is imported only where that is missing.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from himl_container import __version__
from himl_container.environment.model import BasePin, Lock, LockedConda, LockedWheel
from himl_container.image.model import PREFIX
from himl_container.image.plan import dependency_name
from himl_container.registry.reference import parse_reference

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

NAMESPACE = "himl"
"""What the names of our properties begin with (CycloneDX, "Property Taxonomy")."""

_LONGEST_EXPRESSION = 300
"""Characters up to which a licence is tried as an SPDX expression; a hostile one must not keep the parser busy."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def made_by_library(lock: Lock, layers: Mapping[str, str], time: str, wanted: Sequence[str]) -> dict[str, Any]:
    """Return the document of a lock, for an image without a name and without a serial number.

    :param layers: name of the layer of each artifact, by the artifact's sha256 and name.
    :param time: RFC 3339, with ``Z``.
    :param wanted: the Conda packages that were asked for by name.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    root = Component(type=ComponentType.CONTAINER, name="image", bom_ref="image")
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
    bom.register_dependency(root, [base, *(packages[one] for one in wanted), *wheels])
    for conda in lock.conda:
        needed = {dependency_name(text) for text in conda.depends} & packages.keys() - {conda.name}
        bom.register_dependency(packages[conda.name], [packages[one] for one in sorted(needed)])
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    document.pop("serialNumber", None)
    return document


def clean(text: str) -> str:
    """Return a text that any reader of JSON or XML takes: control characters and lone surrogates are replaced."""
    return _UNSAFE.sub("\ufffd", text).strip()


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
        purl=image_purl(reference.repository, digest, reference.tag) if digest else None,
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

    return _package(
        wheel,
        reference=f"pip:{wheel.name}",
        purl=private_purl(wheel) if wheel.private else PackageURL("pypi", None, wheel.name, wheel.version),
        license_text="",
        urls=tuple(filter(None, (wheel.url, wheel.sdist_url))),
        properties=_properties(**wheel_facts(wheel, layers)),
    )


def wheel_facts(wheel: LockedWheel, layers: Mapping[str, str]) -> dict[str, str]:
    """Return the properties of a wheel's component, those that are empty included; not cleaned yet."""
    return {
        "kind": "pip",
        "file": wheel.filename,
        "layer": layers.get(f"{wheel.sha256} {wheel.name}", ""),
        "private": "true" if wheel.private else "",
        "sdist": f"sha256:{wheel.sdist_sha256}" if wheel.sdist_url else "",
        "size": str(wheel.size),
    }


def private_purl(wheel: LockedWheel) -> Any:
    """Return the URL of a private wheel: ``pkg:pypi`` would mean the public package, which somebody else may own."""
    from packageurl import PackageURL

    facts = {"checksum": f"sha256:{wheel.sha256}", "file_name": wheel.filename}
    return PackageURL("generic", None, wheel.name, wheel.version, facts)


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


def image_purl(repository: str, digest: str, tag: str = "") -> Any:
    """Return the URL of an image."""
    from packageurl import PackageURL

    qualifiers = {"repository_url": repository} | ({"tag": tag} if tag else {})
    return PackageURL("oci", None, repository.rpartition("/")[2], digest, qualifiers)
