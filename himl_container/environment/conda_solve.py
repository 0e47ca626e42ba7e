"""The Conda part of a lock: py-rattler's solver over the channels' package lists.

Priority of channels is strict, as Conda's documentation recommends: a package comes from the first channel that has
its name.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from himl_container.environment.channels import Mirrors, canonical, channel_urls, sources, to_mirror
from himl_container.environment.model import CondaDependency, EnvironmentSpec, LockedConda
from himl_container.environment.urls import scrub
from himl_container.errors import ArtifactError, InputError, UnsolvableError
from himl_container.progress import Reporter

if TYPE_CHECKING:
    from rattler import Gateway, MatchSpec, RepoDataRecord
    from rattler.virtual_package import GenericVirtualPackage

T = TypeVar("T")


@dataclass(frozen=True)
class CondaRequest:
    """What is to be solved.

    :param virtual_packages: what may be assumed of the machine, ``name=version`` or ``name=version=build``.
    :param previous: packages that are kept where they still fit, for example those of the last lock.
    :param recheck_channels: whether the channels may have changed since ``previous``, so that a package which a channel
        of higher priority now has is not kept.
    """

    spec: EnvironmentSpec
    platform: str
    virtual_packages: tuple[str, ...]
    mirrors: Mirrors = ()
    previous: tuple[LockedConda, ...] = ()
    recheck_channels: bool = False


def solve_conda(request: CondaRequest, *, reporter: Reporter) -> tuple[LockedConda, ...]:
    """Return the packages of an environment in topological order, ties by name.

    :raises UnsolvableError: no set of packages fits; the error carries the solver's reason.
    :raises ArtifactError: a channel cannot be reached, or has a package without a checksum.
    :raises InputError: a spec is malformed, or the environment has no ``python``.
    """
    specs = [_match_spec(dependency, request.mirrors) for dependency in request.spec.dependencies]
    addresses = _addresses(request, specs)
    with reporter.step("solve", f"{len(specs)} Conda packages from {_list(request.spec.channels)}"):
        records = _run(_solve(request, specs, addresses))
    locked = tuple(_locked(record, request.mirrors) for record in _in_order(records))
    if not any(record.name == "python" for record in locked):
        raise InputError(
            "the environment has no python",
            where=request.spec.dependencies[0].origin.path if request.spec.dependencies else request.spec.name,
            hint="Add a line such as 'python=3.11' to the dependencies: the image needs an interpreter.",
        )
    return locked


async def _solve(request: CondaRequest, specs: Sequence[MatchSpec], addresses: tuple[str, ...]) -> list[RepoDataRecord]:
    import rattler
    from rattler.exceptions import FetchRepoDataError, GatewayError, InvalidChannelError, SolverError

    gateway = rattler.Gateway(client=rattler.Client.default_client())
    try:
        return await rattler.solve(
            addresses,
            specs,
            gateway=gateway,
            platforms=[request.platform, "noarch"],  # type: ignore[list-item]
            locked_packages=await _kept(request, gateway, addresses),
            virtual_packages=[_virtual(text) for text in request.virtual_packages],
            channel_relations="disabled",
        )
    except SolverError as error:
        raise _unsolvable(str(error), request, addresses) from error
    except (GatewayError, FetchRepoDataError, InvalidChannelError) as error:
        raise _unreachable(str(error), request, addresses) from error


async def _kept(request: CondaRequest, gateway: Gateway, addresses: tuple[str, ...]) -> list[RepoDataRecord]:
    """Return the records of earlier packages that the solver shall prefer."""
    rank = {canonical(address, request.mirrors): index for index, address in enumerate(addresses)}
    kept = [record for record in request.previous if record.channel in rank]
    if request.recheck_channels and kept:
        first: dict[str, int] = {}
        for index, address in enumerate(addresses):
            for name in await gateway.names(
                [address],
                [request.platform, "noarch"],  # type: ignore[list-item]
                channel_relations="disabled",
            ):
                first.setdefault(name.normalized, index)
        kept = [record for record in kept if first.get(record.name) == rank[record.channel]]
    return [_record(record, request.mirrors) for record in kept]


def _addresses(request: CondaRequest, specs: Sequence[MatchSpec]) -> tuple[str, ...]:
    """Return the channels to ask; one that only a spec names (``channel::package``) comes last, as Conda has it."""
    named = [spec.channel.base_url.rstrip("/") for spec in specs if spec.channel is not None]
    addresses = (*sources(request.spec.channels, request.mirrors), *named)
    if not addresses:
        raise InputError(
            "the environment has no channel",
            where=request.spec.dependencies[0].origin.path if request.spec.dependencies else request.spec.name,
            hint="Add 'channels: [conda-forge]' to the environment file.",
        )
    return tuple(dict.fromkeys(addresses))


def _match_spec(dependency: CondaDependency, mirrors: Mirrors) -> MatchSpec:
    """Parse a spec; the channel in it becomes the address that is really asked."""
    import rattler
    from rattler.exceptions import InvalidChannelError, InvalidMatchSpecError

    try:
        spec = rattler.MatchSpec(dependency.spec)
        channel = spec.channel
        if channel is None:
            return spec
        name = dependency.spec.partition("::")[0] if "::" in dependency.spec else channel.name or channel.base_url
        address = to_mirror(channel_urls("defaults" if name == "defaults" else channel.base_url)[0], mirrors)
        quoted = address.replace('"', "%22")
        return rattler.MatchSpec(re.sub(r'(?<=channel=")[^"]*', lambda _: quoted, spec.to_canonical_string()))
    except (InvalidMatchSpecError, InvalidChannelError, ValueError) as error:
        raise InputError(
            f"the Conda spec {scrub(dependency.spec)!r} is not valid: {scrub(str(error))}", where=str(dependency.origin)
        ) from error


def _virtual(text: str) -> GenericVirtualPackage:
    import rattler
    from rattler.exceptions import InvalidVersionError
    from rattler.package import BuildString
    from rattler.virtual_package import GenericVirtualPackage

    name, version, build = [*text.split("="), "0"][:3]
    try:
        return GenericVirtualPackage(rattler.PackageName(name), rattler.Version(version), BuildString(build))
    except InvalidVersionError as error:
        raise InputError(
            f"{version!r} is not a version",
            where=f"virtual package {name}",
            hint="See 'glibc' and 'cuda' in the settings.",
        ) from error


def _in_order(records: Sequence[RepoDataRecord]) -> list[RepoDataRecord]:
    from rattler import PackageRecord

    named = {record.name.normalized: record for record in records}
    # Sorted first: rattler visits packages in the given order, so the result depends on the set alone.
    ordered = PackageRecord.sort_topologically([named[name] for name in sorted(named)])
    return [named[record.name.normalized] for record in ordered]


def _locked(record: RepoDataRecord, mirrors: Mirrors) -> LockedConda:
    """Return a solved record as it stands in the lock: canonical addresses, a checksum in any case."""
    sha256 = record.sha256.hex() if record.sha256 else _computed_sha256(record)
    timestamp = record.timestamp
    return LockedConda(
        name=record.name.normalized,
        version=str(record.version),
        build=str(record.build),
        build_number=record.build_number,
        subdir=record.subdir,
        url=canonical(record.url, mirrors),
        channel=canonical(record.channel.rstrip("/"), mirrors),
        sha256=sha256,
        size=record.size or 0,
        md5=record.md5.hex() if record.md5 else "",
        depends=tuple(record.depends),
        constrains=tuple(record.constrains),
        noarch="python" if record.noarch.python else "generic" if record.noarch.generic else "",
        license=record.license or "",
        timestamp=round(timestamp.timestamp() * 1000) if timestamp else 0,
        python_site_packages_path=record.python_site_packages_path or "",
        track_features=tuple(record.track_features),
    )


def _computed_sha256(record: RepoDataRecord) -> str:
    """Return the checksum of a package whose channel does not state it; possible where the channel is a folder."""
    if record.url.startswith("file://"):
        path = Path(unquote(urlsplit(record.url).path))
        try:
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
                return digest.hexdigest()
        except OSError as error:
            raise ArtifactError(f"a package cannot be read: {error.strerror}", where=str(path)) from error
    raise ArtifactError(
        f"the channel states no sha256 for {record.name.normalized} {record.version}, so it cannot be locked",
        where=scrub(record.url),
        hint="Index the channel again with a current indexer ('rattler-index' or 'conda-index').",
    )


def _record(locked: LockedConda, mirrors: Mirrors) -> RepoDataRecord:
    """Return a locked package as the solver takes it, at the address that is really asked."""
    from datetime import datetime, timezone

    import rattler
    from rattler.package import BuildString

    record = rattler.PackageRecord(
        locked.name,
        locked.version,
        BuildString(locked.build),
        locked.build_number,
        locked.subdir,
        noarch=locked.noarch or None,  # type: ignore[arg-type]
        depends=list(locked.depends),
        constrains=list(locked.constrains),
        sha256=bytes.fromhex(locked.sha256),
        md5=bytes.fromhex(locked.md5) or None,
        size=locked.size or None,
        license=locked.license or None,
        python_site_packages_path=locked.python_site_packages_path or None,
    )
    if locked.timestamp:
        record.timestamp = datetime.fromtimestamp(locked.timestamp / 1000, tz=timezone.utc)
    if locked.track_features:
        record.track_features = list(locked.track_features)
    url = to_mirror(locked.url, mirrors)
    return rattler.RepoDataRecord(record, locked.filename, url, to_mirror(locked.channel, mirrors) + "/")


def _unsolvable(reason: str, request: CondaRequest, addresses: Sequence[str]) -> UnsolvableError:
    text = scrub(_public(reason, request, addresses)).removeprefix("Cannot solve the request because of: ").strip()
    if "__glibc" in text:
        hint = "The solver assumes no newer C library than 'glibc' of the settings says; the base image decides."
    elif "__cuda" in text:
        hint = "Set 'cuda' (for example cuda = \"12.4\") for packages that need a GPU."
    elif "No candidates were found for" in text:
        hint = f"Searched {_list(request.spec.channels)} for {request.platform}: check the name and the version."
    else:
        hint = "Loosen one of the specs named above."
    files = dict.fromkeys(dependency.origin.path for dependency in request.spec.dependencies)
    return UnsolvableError(
        f"the Conda packages cannot be installed together:\n{text}", where=", ".join(files), hint=hint
    )


def _unreachable(reason: str, request: CondaRequest, addresses: Sequence[str]) -> ArtifactError:
    culprit = next((address for address in addresses if address in reason), "")
    channel = scrub(canonical(culprit, request.mirrors)) if culprit else _list(request.spec.channels)
    first = scrub(reason).strip().splitlines()
    summary = first[0] + (f" ({first[-1].removeprefix('Caused by: ')})" if len(first) > 1 else "")
    mirrored = culprit and canonical(culprit, request.mirrors) != culprit
    asked = f" (asked at {scrub(culprit)})" if mirrored else ""
    return ArtifactError(
        f"the channel cannot be read{asked}: {summary}",
        where=channel,
        hint="Check the network and the channel's name; without internet, map the channel to a mirror or a folder with "
        "'channel-mirrors' of the settings.",
    )


def _public(text: str, request: CondaRequest, addresses: Sequence[str]) -> str:
    """Name channels in a text as the user does, not by their mirrors."""
    for address in sorted(addresses, key=len, reverse=True):
        text = text.replace(address, canonical(address, request.mirrors))
    return text


def _list(channels: Sequence[str]) -> str:
    return ", ".join(scrub(channel) for channel in channels) or "no channel"


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where the caller (a notebook) has an event loop of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, work).result()
