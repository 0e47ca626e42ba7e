"""Small images with real layers, in a registry and a daemon that live in memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import zstandard
from memory_registry import MemoryRegistry, MemoryRepository

from himl_container.environment.lockfile import lock_text
from himl_container.environment.model import BasePin, Declared, Lock, LockedConda, LockedWheel
from himl_container.errors import EngineError
from himl_container.image.config import image_labels
from himl_container.image.engine import EngineInfo
from himl_container.image.fingerprint import fingerprint
from himl_container.image.model import ImageInfo, SystemPlan
from himl_container.image.plan import plan_layers
from himl_container.publish.manifest import Origin, image_annotations, image_manifest
from himl_container.registry.api import Repository
from himl_container.registry.model import (
    OCI_MANIFEST,
    OCI_TAR,
    OCI_TAR_GZIP,
    OCI_TAR_ZSTD,
    Descriptor,
    canonical_json,
    sha256_of,
)
from himl_container.settings import Settings

HOST = "registry.example:5000"
NAME = f"{HOST}/team/train"
FORGE = "https://conda.anaconda.org/conda-forge"
PREFIX = "opt/himl"


def conda(name: str, version: str = "1.0", *, depends: Sequence[str] = (), license: str = "MIT") -> LockedConda:  # noqa: A002
    return LockedConda(
        name=name,
        version=version,
        build="h1_0",
        build_number=0,
        subdir="linux-64",
        url=f"{FORGE}/linux-64/{name}-{version}-h1_0.conda",
        channel=FORGE,
        sha256=hashlib.sha256(f"{name} {version}".encode()).hexdigest(),
        size=6_000_000,
        depends=tuple(depends),
        license=license,
        timestamp=1_700_000_000_000,
    )


def wheel(name: str, version: str = "1.0", *, private: bool = False) -> LockedWheel:
    filename = f"{name}-{version}-py3-none-any.whl"
    return LockedWheel(
        name=name,
        version=version,
        filename=filename,
        sha256=hashlib.sha256(f"{name} {version} {private}".encode()).hexdigest(),
        size=6_000_000,
        url="" if private else f"https://files.example/{filename}",
        private=private,
    )


def lock(*packages: LockedConda, wheels: Sequence[LockedWheel] = (), **more: object) -> Lock:
    values: dict[str, object] = {
        "platform": "linux-64",
        "python_version": "3.11.7",
        "base": BasePin("ubuntu:22.04", digest="sha256:" + "c" * 64),
        "virtual_packages": ("__glibc=2.28",),
        "variables": (),
        "declared": Declared((FORGE,), ("python", "numpy"), (), (), (), (), "ubuntu:22.04", "linux-64", ()),
        "conda": (conda("python", "3.11.7"), *packages),
        "wheels": tuple(wheels),
    }
    return Lock(**(values | more))  # type: ignore[arg-type]


def tar(files: Mapping[str, bytes | str], *, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002
    """An archive; a text as content is the target of a symbolic link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def conda_files(name: str, version: str, files: Mapping[str, bytes]) -> dict[str, bytes | str]:
    """What a Conda package puts into a layer, with its record."""
    record = json.dumps({"name": name, "files": sorted(files)}).encode()
    found: dict[str, bytes | str] = {f"{PREFIX}/{path}": data for path, data in files.items()}
    return {f"{PREFIX}/conda-meta/{name}-{version}-h1_0.json": record, **found}


def wheel_files(name: str, version: str, files: Mapping[str, bytes]) -> dict[str, bytes | str]:
    """What a wheel puts into a layer, with its RECORD."""
    site, info = f"{PREFIX}/lib/python3.11/site-packages", f"{name}-{version}.dist-info"
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]).encode()
    return {f"{site}/{info}/RECORD": record, **{f"{site}/{path}": data for path, data in files.items()}}


@dataclass(frozen=True)
class Made:
    """An image in the registry."""

    subject: Descriptor
    config: bytes
    lock: Lock
    lock_bytes: bytes
    fingerprint: str
    tag: str
    tars: tuple[bytes, ...]

    @property
    def name(self) -> str:
        return f"{NAME}:{self.tag}"

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(map(sha256_of, self.tars))

    def in_daemon(self, *tags: str, **more: object) -> ImageInfo:
        """The same image as a daemon with the classic store describes it."""
        content = json.loads(self.config)
        values: dict[str, object] = {
            "id": sha256_of(self.config),
            "tags": tags,
            "repo_digests": (),
            "diff_ids": self.diff_ids,
            "architecture": "amd64",
            "os": "linux",
            "size": 0,
            "config": content["config"],
        }
        return ImageInfo(**(values | more))  # type: ignore[arg-type]


@dataclass
class World:
    """A registry and a daemon."""

    root: Path
    registry: MemoryRegistry = field(default_factory=lambda: MemoryRegistry(HOST))
    images: dict[str, ImageInfo] = field(default_factory=dict)
    archives: dict[str, bytes] = field(default_factory=dict)
    running: bool = True
    containerd: bool = False

    @property
    def repository(self) -> MemoryRepository:
        return self.registry.repository("team/train")

    @property
    def settings(self) -> Settings:
        return Settings(
            root=self.root,
            conda_files=(),
            lock_file=self.root / "pylock.himl.toml",
            cache_dir=self.root / "cache",
            image_name="team/train",
            registry=HOST,
        )

    def connect(self, name: str) -> Repository:
        host, _, repository = name.partition("/")
        assert host == HOST, f"a registry that is not there was asked: {name}"
        return self.registry.repository(repository)

    def engine(self) -> World:
        if not self.running:
            raise EngineError("no Docker daemon is running")
        return self

    def inspect(self, reference: str) -> ImageInfo | None:
        return self.images.get(reference)

    def info(self) -> EngineInfo:
        return EngineInfo("28.0", "1.47", self.containerd, True, "amd64")

    @contextmanager
    def export(self, id_: str) -> Iterator[Iterator[bytes]]:
        yield iter([self.archives[id_]])

    def push(
        self,
        made_from: Lock,
        files: Mapping[str, Mapping[str, bytes | str]] | None = None,
        *,
        compression: str = "gzip",
        annotated: bool = True,
        **config: object,
    ) -> Made:
        """Put the image of a lock into the registry, without attaching anything.

        :param files: content of layers by name; each layer that is planned has its name as content where not given.
        """
        data = lock_text(made_from).encode()
        value = fingerprint(data, SystemPlan(), b"")
        names = [plan.name for plan in plan_layers(made_from)]
        tars = [tar({"etc/base": b"base"})]
        tars += [tar((files or {}).get(name, {f"{PREFIX}/{name}": name.encode()})) for name in names]
        kinds = {"gzip": OCI_TAR_GZIP, "zstd": OCI_TAR_ZSTD, "none": OCI_TAR}
        layers = []
        for content in tars:
            packed = pack(content, compression)
            layers.append(Descriptor(kinds[compression], self.repository.upload_bytes(packed), len(packed)))
        history = ["himl-container: ubuntu:22.04, layer 1", *(f"himl-container: {name}" for name in names)]
        inner = {
            "Env": ["PATH=/opt/himl/bin"],
            "Cmd": ["python"],
            "Labels": dict(image_labels(made_from, value)),
            **config,
        }
        image = canonical_json(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": "1980-01-01T00:00:00Z",
                "config": inner,
                "history": [{"created_by": step} for step in history],
                "rootfs": {"type": "layers", "diff_ids": [sha256_of(content) for content in tars]},
            }
        )
        self.repository.upload_bytes(image)
        origin = Origin(made_from, data, value, self.root, tested=True)
        manifest, subject = image_manifest(image, layers, image_annotations(origin, {}) if annotated else {})
        self.repository.put_manifest(manifest, OCI_MANIFEST, value[:32])
        return Made(subject, image, made_from, data, value, value[:32], tuple(tars))

    def with_settings(self, **more: object) -> Settings:
        return replace(self.settings, **more)  # type: ignore[arg-type]


def pack(data: bytes, compression: str = "gzip") -> bytes:
    if compression == "zstd":
        return zstandard.ZstdCompressor().compress(data)
    return gzip.compress(data, mtime=0) if compression == "gzip" else data


def saved(made: Made, *, layout: str = "docker") -> bytes:
    """The image as ``docker save`` writes it: engines before 25, or those since."""
    files: dict[str, bytes | str] = {}
    for number, content in enumerate(made.tars):
        name = f"{number:064x}/layer.tar" if layout == "docker" else f"blobs/sha256/{sha256_of(content)[7:]}"
        files[name] = content
    files["blobs/sha256/" + sha256_of(made.config)[7:]] = made.config
    return tar({**files, "manifest.json": b"[]"})
