"""Locks of the test channel and of small packages made on the spot, and building their layers."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from channel.package import Package, write_channel

from himl_container.cache import Cache
from himl_container.environment.model import BasePin, Declared, Lock, LockedConda, LockedWheel
from himl_container.image.clobber import excluded_paths
from himl_container.image.layers import build_layers
from himl_container.image.model import Layer
from himl_container.image.plan import dependency_name, plan_layers
from himl_container.progress import SilentReporter
from himl_container.settings import Settings

FORGE = "https://conda.anaconda.org/conda-forge"

# Everything of the made channel that can be installed together, without Python and with it.
GENERIC = ("tinydata", "prefix-binary", "activation", "clash-a", "clash-b", "links", "long-paths")
SAMPLES = ("python", "tinytool", "tinynative", "prefix-text", "meta", "idna", *GENERIC)


def locked(channel: Path, *names: str) -> tuple[LockedConda, ...]:
    """The latest packages of these names in a channel folder and what they depend on, dependencies first."""
    latest: dict[str, LockedConda] = {}
    for subdir in ("linux-64", "noarch"):
        index = json.loads((channel / subdir / "repodata.json").read_bytes())
        for filename, record in sorted({**index["packages"], **index["packages.conda"]}.items()):
            latest[record["name"]] = _locked(record, subdir, filename)
    found: dict[str, LockedConda] = {}

    def add(name: str) -> None:
        if name in latest and name not in found:
            for text in latest[name].depends:
                add(dependency_name(text))
            found[name] = latest[name]

    for name in names:
        assert name in latest, name
        add(name)
    return tuple(found.values())


def _locked(record: dict[str, object], subdir: str, filename: str) -> LockedConda:
    texts = {name: str(record.get(name, "")) for name in ("noarch", "license", "md5", "python_site_packages_path")}
    return LockedConda(
        name=str(record["name"]),
        version=str(record["version"]),
        build=str(record["build"]),
        build_number=0,
        subdir=subdir,
        url=f"{FORGE}/{subdir}/{filename}",
        channel=FORGE,
        sha256=str(record["sha256"]),
        size=int(str(record["size"])),
        depends=tuple(record["depends"]),  # type: ignore[arg-type]
        **texts,
    )


def lock_of(conda: Sequence[LockedConda], wheels: Sequence[LockedWheel] = ()) -> Lock:
    python = next((package.version for package in conda if package.name == "python"), "")
    return Lock(
        platform="linux-64",
        python_version=python,
        base=BasePin("base:1"),
        virtual_packages=("__glibc=2.36=0",),
        variables=(),
        declared=Declared((), ("python",), (), (), (), (), "base:1", "linux-64", ()),
        conda=tuple(conda),
        wheels=tuple(wheels),
    )


@dataclass
class Told(SilentReporter):
    """A reporter that remembers the warnings."""

    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def settings_of(channel: Path | str, root: Path, **more: object) -> Settings:
    address = channel if isinstance(channel, str) else channel.as_uri()
    return Settings(root, (), root / "lock", root / "cache", channel_mirrors=(("conda-forge", address),), **more)  # type: ignore[arg-type]


def build(
    lock: Lock,
    settings: Settings,
    *,
    wheels: Mapping[str, Path] | None = None,
    reporter: Told | None = None,
    only: str = "",
) -> tuple[Layer, ...]:
    """Plan and build the layers of a lock; ``only`` those whose name begins with a text."""
    reporter = reporter or Told()
    cache = Cache(settings.cache_dir)
    excluded = excluded_paths(lock, cache=cache, settings=settings, reporter=reporter)
    plans = [plan for plan in plan_layers(lock, excluded=excluded) if plan.name.startswith(only)]
    return build_layers(plans, lock, wheel_paths=wheels or {}, cache=cache, settings=settings, reporter=reporter)


@dataclass(frozen=True)
class Member:
    """One entry of a layer, as ``tarfile`` reads it."""

    kind: bytes
    mode: int
    data: bytes
    target: str


def members(layers: Sequence[Layer]) -> dict[str, Member]:
    """What the layers give when they are unpacked one over the other, below ``opt/himl/``."""
    found = {}
    for layer in layers:
        with tarfile.open(layer.path) as archive:
            for info in archive:
                file = archive.extractfile(info) if info.isreg() else None
                name = info.name.removeprefix("opt/himl/")
                found[name] = Member(info.type, info.mode, file.read() if file else b"", info.linkname)
                assert (info.uid, info.gid, info.uname, info.gname, info.mtime) == (0, 0, "", "", 315532800)
    return found


def make_channel(folder: Path, *packages: Package) -> Path:
    write_channel(packages, folder)
    return folder


def make_wheel(
    folder: Path,
    name: str,
    files: Mapping[str, bytes],
    *,
    entry_points: str = "",
    tag: str = "py3-none-any",
    record: bool = True,
) -> tuple[LockedWheel, Path]:
    """Write a wheel and return it as a private one of a lock; its files may have any name."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    content = dict(files)
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
    if entry_points:
        content[f"{info}/entry_points.txt"] = entry_points.encode()
    lines = "".join(f'"{path}",{record_hash(data)},{len(data)}\n' for path, data in content.items())
    content[f"{info}/RECORD"] = f"{lines}{info}/RECORD,,\n".encode() if record else b""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in content.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
    path = folder / f"{info.removesuffix('.dist-info')}-{tag}.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    return LockedWheel(name, "1.0", path.name, digest, len(buffer.getvalue()), private=True), path


def record_hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
