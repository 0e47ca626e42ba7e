"""Source distributions without a wheel for the image's platform, built to wheels in a container of the base image.

::

    <sdist> -> unpacked -> [build-system] requires -> solved for the image's Python, unpacked by uv -> /himl/tools
    environment's Python ------------------------------------------------------------------------ -> /opt/himl
    container of the base image, without a network: PEP 517 backend -> wheel -> packed anew -> <cache>/wheels/<sha256>/

The same source distribution, base image, interpreter and build requirements give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himl_container.cache import Cache
from himl_container.environment.lock import BuildWorld, Built
from himl_container.environment.model import BasePin, Lock, LockedWheel, PipIndexes
from himl_container.environment.urls import scrub
from himl_container.errors import BuildError
from himl_container.image.build_tools import install_tools
from himl_container.image.engine import ContainerResult, Engine
from himl_container.image.model import EPOCH, PREFIX
from himl_container.image.sdist_source import build_system, unpack
from himl_container.image.wheel_pack import repack
from himl_container.progress import Reporter
from himl_container.settings import Settings

_FORMAT = "himl-sdist-1"
_MARKER = b"\nhiml-answer:"
_PATH = f"/himl/tools/bin:{PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108 - in a container of its own
    "LC_ALL": "C.UTF-8",
    "PATH": _PATH,
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONPATH": "/himl/tools",
    "SOURCE_DATE_EPOCH": str(EPOCH),
    "TZ": "UTC",
}
_ROUNDS = 3
"""A backend names its further requirements once; a second time may follow from those."""

_SHOWN_LINES = 40


@dataclass(frozen=True)
class _Job:
    """One build."""

    sdist: Path
    name: str
    version: str
    world: BuildWorld
    pins: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.name} {self.version}"


class SdistBuilder:
    """Builds source distributions (:class:`himl_container.environment.lock.WheelBuilder`).

    :param engine: asked for when something has to be built, and not before.
    :param image_of: returns the image of a base; by default the base is brought into the daemon when it is not there.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Callable[[], Engine],
        cache: Cache,
        reporter: Reporter,
        image_of: Callable[[BasePin], str] | None = None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._cache = cache
        self._reporter = reporter
        self._image_of = image_of or self._default_image

    def build(
        self,
        sdist: Path,
        *,
        name: str,
        version: str,
        sha256: str,
        world: BuildWorld,
        pins: tuple[str, ...] = (),
    ) -> Built:
        """Return the wheel of a source distribution; kept, and built only once.

        :param pins: the build requirements of an earlier build, to be used again.
        :raises BuildError: it cannot be built; the error carries the end of the build's output.
        :raises EngineError: no daemon answers.
        """
        key = _key(sha256, world, pins)
        known = self._known(key)
        if known is not None:
            return known
        with self._cache.lock(f"sdist-{key[:32]}"):
            known = self._known(key)
            if known is not None:
                return known
            with self._reporter.step("build", f"{name} {version} from source"):
                return self._build(_Job(sdist, name, version, world, pins), key)

    def _known(self, key: str) -> Built | None:
        record = self._cache.read_json("memo", "sdist", f"{key}.json")
        if not isinstance(record, dict):
            return None
        path = self._cache.root / "wheels" / str(record.get("sha256")) / str(record.get("filename"))
        return Built(path, tuple(record.get("requires", ()))) if path.is_file() else None

    def _build(self, job: _Job, key: str) -> Built:
        from himl_container.image.interpreter import python_closure
        from himl_container.image.packages import install

        with self._cache.new_folder() as folder:
            (folder / "source").mkdir()
            source = unpack(job.sdist, folder / "source")
            (folder / "python").mkdir()
            prefix = install(
                python_closure(job.world.conda),
                folder / "python",
                prefix=PREFIX,
                mirrors=self._settings.channel_mirrors,
                reporter=self._reporter,
            )
            answer, requires = self._run(job, source, prefix, folder)
        filename, content = _checked(answer, job)
        digest = hashlib.sha256(content).hexdigest()
        path = self._cache.folder("wheels", digest) / filename
        with self._cache.new_file() as temporary:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        record = {"sha256": digest, "filename": filename, "requires": list(requires)}
        self._cache.write_json(record, "memo", "sdist", f"{key}.json")
        return Built(path, requires)

    def _run(self, job: _Job, source: Path, prefix: Path, folder: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """Return the backend's answer and the pinned build requirements."""
        system = build_system(source)
        wanted = list(system.requires)
        image = self._image_of(job.world.base)
        script = Path(__file__).parent / "inside" / "build_wheel.py"
        for number in range(_ROUNDS):
            tools = folder / f"tools-{number}"
            requires = install_tools(
                wanted,
                tools,
                world=job.world,
                pins=job.pins,
                cache=self._cache,
                reporter=self._reporter,
                where=job.where,
            )
            request = {"backend": system.backend, "path": list(system.path), "known": wanted}
            result = self._engine().run(
                image,
                ["/himl/build_wheel.py", json.dumps(request)],
                entrypoint=[f"{PREFIX}/bin/python"],
                mounts=[
                    (prefix, PREFIX, True),
                    (tools, "/himl/tools", True),
                    (source, "/himl/source", True),
                    (script, "/himl/build_wheel.py", True),
                ],
                environment=_ENVIRONMENT,
                network=False,
            )
            answer = _answer(result, job.where)
            if "requires" not in answer:
                return answer, requires
            wanted += [str(text) for text in answer["requires"]]
        raise BuildError("the build backend names new requirements each time it is asked", where=job.where)

    def _default_image(self, base: BasePin) -> str:
        from himl_container.image.base import resolve_base

        return resolve_base(base, engine=self._engine(), reporter=self._reporter, platform=self._settings.platform).id


def ensure_built_wheels(
    lock: Lock,
    settings: Settings,
    *,
    engine: Callable[[], Engine],
    cache: Cache,
    reporter: Reporter,
    indexes: PipIndexes | None = None,
    builder: SdistBuilder | None = None,
) -> None:
    """Build again the wheels of a lock that were built from source distributions and are not in the cache.

    :raises BuildError: a wheel cannot be built, or does not come out as it was locked.
    :raises ArtifactError: a source distribution cannot be fetched, or is not the one that was locked.
    """
    missing = [wheel for wheel in lock.wheels if wheel.sdist_url and not _kept(wheel, cache).is_file()]
    if not missing:
        return
    from himl_container.environment.fetch import fetch

    indexes = indexes or PipIndexes(settings.pip_extra_index_urls, settings.pip_index_url)
    world = BuildWorld(lock.base, lock.conda, lock.python_version, lock.platform, settings.glibc, indexes)
    builder = builder or SdistBuilder(settings, engine, cache, reporter)
    for wheel in missing:
        sdist = fetch(wheel.sdist_url, wheel.sdist_sha256, cache=cache, indexes=indexes)
        built = builder.build(
            sdist,
            name=wheel.name,
            version=wheel.version,
            sha256=wheel.sdist_sha256,
            world=world,
            pins=wheel.build_requires,
        )
        if built.path != _kept(wheel, cache):
            raise BuildError(
                f"the build gives other bytes than the locked wheel: {built.path.parent.name}, not {wheel.sha256}",
                where=wheel.filename,
                hint="Its build is not reproducible. Keep the wheel and pass it as a private wheel (--wheel), or lock "
                "again with 'himl-container lock --upgrade'.",
            )


def _kept(wheel: LockedWheel, cache: Cache) -> Path:
    return cache.root / "wheels" / wheel.sha256 / wheel.filename


def _key(sha256: str, world: BuildWorld, pins: tuple[str, ...]) -> str:
    from himl_container.image.interpreter import python_closure

    parts = [_FORMAT, sha256, world.base.digest or world.base.rootfs, world.platform, world.glibc]
    parts += sorted(f"{record.name} {record.sha256}" for record in python_closure(world.conda))
    return hashlib.sha256("\n".join([*parts, *sorted(pins)]).encode()).hexdigest()


def _answer(result: ContainerResult, where: str) -> dict[str, Any]:
    """Return what the build said at its end."""
    before, marker, after = result.output.rpartition(_MARKER)
    if result.exit_code == 0 and marker:
        try:
            answer = json.loads(base64.b64decode(after.strip(), validate=True))
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return answer
    log = scrub((before or result.output).decode(errors="replace"))
    shown = "\n".join(log.strip().splitlines()[-_SHOWN_LINES:])
    hint = (
        "Build the wheel elsewhere and pass it as a private wheel with --wheel, or ask for a version that has wheels."
    )
    if result.oom_killed:
        raise BuildError("the build was killed: out of memory", where=where, hint=hint)
    if "gcc" in log and "No such file" in log:
        hint = f"The base image has no C compiler. {hint}"
    raise BuildError(f"the build from source failed (exit code {result.exit_code}):\n{shown}", where=where, hint=hint)


def _checked(answer: Mapping[str, Any], job: _Job) -> tuple[str, bytes]:
    """Return the wheel's file name and its bytes, packed anew, when it is what was asked for."""
    from packaging.utils import InvalidWheelFilename, canonicalize_name, canonicalize_version, parse_wheel_filename

    from himl_container.environment.wheel_tags import best_wheel

    filename = str(answer.get("wheel"))
    try:
        found_name, found_version, _, _ = parse_wheel_filename(filename)
        content = base64.b64decode(str(answer.get("content")), validate=True)
    except (InvalidWheelFilename, ValueError) as error:
        raise BuildError(f"the backend made no wheel: {scrub(str(error))}", where=job.where) from error
    same_version = canonicalize_version(found_version) == canonicalize_version(job.version)
    if "/" in filename or found_name != canonicalize_name(job.name) or not same_version:
        raise BuildError(f"the backend made another wheel: {filename!r}", where=job.where)
    world = job.world
    fits = best_wheel([filename], python_version=world.python_version, platform=world.platform, glibc=world.glibc)
    if fits is None:
        raise BuildError(f"the built wheel does not fit the image: {filename}", where=job.where)
    return filename, repack(content, where=filename)
