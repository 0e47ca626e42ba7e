"""Images of a few kit packages and whatever files a test adds, made in a second or two."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment.model import BasePin, Declared, Lock, LockedConda
from himl_container.image.compose import compose
from himl_container.image.docker_engine import DockerEngine
from himl_container.image.layers import build_layers
from himl_container.image.model import PREFIX, ImageInfo, ImagePlan, Layer, SystemPlan
from himl_container.image.plan import plan_layers
from himl_container.image.store import LayerStore
from himl_container.image.tar import Entry, write_tar
from himl_container.progress import SilentReporter
from himl_container.settings import Settings

SITE = f"{PREFIX}/lib/python3.11/site-packages"


def channel_lock(channel: Path, names: Iterable[str], *, base: str) -> Lock:
    """Return a lock of these packages of the kit's channel, the newest of each; all of them are declared."""
    found: dict[str, LockedConda] = {}
    for subdir in ("linux-64", "noarch"):
        repodata = json.loads((channel / subdir / "repodata.json").read_text())
        for filename, record in {**repodata["packages"], **repodata["packages.conda"]}.items():
            package = LockedConda(
                name=record["name"],
                version=record["version"],
                build=record["build"],
                build_number=record["build_number"],
                subdir=subdir,
                url=f"{channel.as_uri()}/{subdir}/{filename}",
                channel=channel.as_uri(),
                sha256=record["sha256"],
                size=record["size"],
                md5=record.get("md5", ""),
                depends=tuple(record["depends"]),
                noarch=record.get("noarch") or "",
            )
            if package.name not in found or found[package.name].version < package.version:
                found[package.name] = package
    python = found["python"].version
    return Lock(
        platform="linux-64",
        python_version=python,
        base=BasePin(base),
        virtual_packages=(),
        variables=(),
        declared=Declared((), tuple(sorted(names)), (), (), (), (), base, "linux-64", ()),
        conda=tuple(found[name] for name in names),
        wheels=(),
    )


@dataclass
class ImageMaker:
    """Makes images in a daemon; removes them when the test is over."""

    engine: DockerEngine
    cache: Cache
    settings: Settings
    base: str

    def layers(self, lock: Lock) -> tuple[Layer, ...]:
        """Return the layers of a lock."""
        return build_layers(
            plan_layers(lock),
            lock,
            wheel_paths={},
            cache=self.cache,
            settings=self.settings,
            reporter=SilentReporter(),
        )

    def extra_layer(self, files: Mapping[str, bytes | str]) -> Layer:
        """Return a layer with these files (absolute paths; text is encoded, what is below ``bin`` is executable)."""
        entries = [
            Entry(
                path.lstrip("/"),
                data=content.encode() if isinstance(content, str) else content,
                executable="/bin/" in path,
            )
            for path, content in files.items()
        ]
        with self.cache.new_file() as temporary:
            with temporary.open("wb") as out:
                written = write_tar(entries, out)
            return LayerStore(self.cache).put(written.digest.partition(":")[2], "extra", written, temporary)

    def plan(self, lock: Lock, *, environment: Mapping[str, str] | None = None) -> ImagePlan:
        """Return the plan of an image."""
        return ImagePlan(
            fingerprint="0" * 64,
            repository="himl-test",
            base=BasePin(self.base),
            system=SystemPlan(),
            layers=plan_layers(lock),
            environment=tuple(sorted((environment or {}).items())),
            labels=(("himl.test", "yes"),),
        )

    def load(
        self, tag: str, layers: tuple[Layer, ...], *, plan: ImagePlan, activation: Mapping[str, str] | None = None
    ) -> ImageInfo:
        """Compose an image and load it under a tag."""
        system = self.engine.inspect(self.base)
        assert system is not None
        image = compose(plan=plan, system=system, layers=layers, activation=activation or {}, tag=tag)
        return self.engine.load(image, SilentReporter())


def small_settings(folder: Path, cache_dir: Path, **values: object) -> Settings:
    """Return settings of a project without anything."""
    settings = Settings(root=folder, conda_files=(), lock_file=folder / "pylock.himl.toml", cache_dir=cache_dir)
    return replace(settings, **values)  # type: ignore[arg-type]
