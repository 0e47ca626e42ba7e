"""Small plans, locks and layers as plain data, for tests that need no daemon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment.model import BasePin, Declared, Lock, LockedConda, LockedWheel
from himl_container.image.model import ImagePlan, Layer, LayerPlan, SystemPlan
from himl_container.image.store import LayerStore
from himl_container.image.tar import Entry, write_tar

DIGEST = "sha256:" + "ab" * 32


def conda(name: str, version: str = "1.0", *, depends: Sequence[str] = ()) -> LockedConda:
    return LockedConda(
        name=name,
        version=version,
        build="0",
        build_number=0,
        subdir="linux-64",
        url=f"https://example.org/linux-64/{name}-{version}-0.conda",
        channel="conda-forge",
        sha256=f"{abs(hash((name, version))):064x}"[:64],
        size=1000,
        depends=tuple(depends),
    )


def wheel(name: str, version: str = "1.0", *, private: bool = False) -> LockedWheel:
    filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return LockedWheel(name, version, filename, f"{abs(hash((name, version))):064x}"[:64], 1000, private=private)


def lock(
    packages: Sequence[LockedConda] = (), wheels: Sequence[LockedWheel] = (), *, declared: Declared | None = None
) -> Lock:
    return Lock(
        platform="linux-64",
        python_version="3.11.7",
        base=BasePin("debian:12", DIGEST),
        virtual_packages=("__glibc=2.28",),
        variables=(),
        declared=declared or Declared((), (), (), (), (), (), "debian:12", "linux-64", ()),
        conda=tuple(packages),
        wheels=tuple(wheels),
    )


def plan(
    *,
    base: BasePin | None = None,
    apt: Sequence[str] = (),
    lines: Sequence[str] = (),
    layers: Sequence[LayerPlan] = (),
    environment: Sequence[tuple[str, str]] = (),
    labels: Sequence[tuple[str, str]] = (),
) -> ImagePlan:
    return ImagePlan(
        fingerprint="cd" * 32,
        repository="himl",
        base=base or BasePin("registry.example/team/base:1", DIGEST),
        system=SystemPlan(tuple(apt), tuple(lines)),
        layers=tuple(layers),
        environment=tuple(environment),
        labels=tuple(labels),
    )


def stored_layer(cache: Cache, name: str, files: dict[str, bytes | str], links: dict[str, str] | None = None) -> Layer:
    """Put a layer with these files (paths from the root) and symbolic links into the store."""
    entries = [
        Entry(path.lstrip("/"), data=content.encode() if isinstance(content, str) else content)
        for path, content in files.items()
    ]
    entries += [Entry(path.lstrip("/"), kind="link", target=target) for path, target in (links or {}).items()]
    with cache.new_file() as temporary:
        with Path(temporary).open("wb") as out:
            written = write_tar(entries, out)
        return LayerStore(cache).put(written.digest.partition(":")[2], name, written, temporary)
