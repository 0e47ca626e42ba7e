"""Images that are built of a definition: by our own pipeline (Conda dependencies), or by Docker (a Dockerfile).

Nothing is tested here, as in Azure: what a definition asks for is what comes out. ``himl-container build`` tests.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from himl_container.cache import Cache
from himl_container.emulator.compute.model import Say
from himl_container.emulator.images.bring import Bringer
from himl_container.emulator.images.inputs import BuildInputs
from himl_container.emulator.images.own_registry import BUILT, OwnRegistry
from himl_container.emulator.images.progress import SayReporter
from himl_container.emulator.images.spec import WHERE_REPLACED, ImageSpec, replaced
from himl_container.errors import BuildError, InputError
from himl_container.image.engine import Engine
from himl_container.image.model import ImageInfo

_MACHINE = ("CHANNEL_MIRRORS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "GLIBC", "PYPI_NAMES", "SKIP_POST_LINK")
_FROM = re.compile(r"(?P<before>\s*FROM\s+(?:--\S+\s+)*)(?P<name>\S+)(?P<after>.*)", re.IGNORECASE)


class Builder:
    """Builds images and leaves them in the emulator's registry, under the hash of what they were made of.

    :param environ: variables of this machine: package mirrors (``HIML_CONTAINER_CHANNEL_MIRRORS``), proxies.
    :param folder: for temporary files.
    """

    def __init__(
        self,
        registry: OwnRegistry,
        inputs: BuildInputs,
        bringer: Bringer,
        *,
        cache: Cache,
        connect_engine: Callable[[Cache], Engine],
        folder: Path,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._registry, self._inputs, self._bringer = registry, inputs, bringer
        self._cache, self._connect_engine, self._environ = cache, connect_engine, environ
        self._folder = folder

    def name(self, spec: ImageSpec) -> str:
        """Return the name that the image of a definition has in the registry."""
        return f"{self._registry.host}/{BUILT}:{spec.key}"

    def exists(self, spec: ImageSpec) -> bool:
        """Whether the registry has the image of a definition.

        :raises RegistryError: it does not answer.
        """
        return self._registry.connect(f"{self._registry.host}/{BUILT}").head(spec.key) is not None

    def build(self, spec: ImageSpec, say: Say) -> None:
        """Build the image of a definition and put it into the registry.

        :raises HimlError: it cannot be built; any of the family.
        """
        if spec.dockerfile or spec.context:
            below = replace(spec, conda="")
            self._dockerfile(below, say)
            base = self.name(below)
        else:
            base = spec.base_image
        if spec.conda:
            self._conda(spec, base, say)

    # --- Conda dependencies ---

    def _conda(self, spec: ImageSpec, base: str, say: Say) -> None:
        from himl_container.publish.build import build
        from himl_container.settings import load_settings

        say(f"Building {self.name(spec)} of Conda dependencies on {base}.")
        with ExitStack() as stack:
            if self._registry.has(base) or spec.login is not None:
                # With the registry's login, and under a name that the daemon knows.
                base = self._named(self._bringer.bring(base, spec.login, say), spec, stack)
            name = stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder, prefix="build-"))
            project = self._inputs.project(spec.conda, Path(name))
            # A project of its own, so that no file above it is found and decides something.
            (project.folder / "pyproject.toml").write_text("[tool.himl-container]\n", encoding="utf-8")
            flags = {
                "conda_files": (str(project.environment),),
                "wheels": tuple(str(path) for path in project.wheels),
                "base_image": base,
                "image_name": BUILT,
                "registry": self._registry.host,
                "cache_dir": str(self._cache.root),
            }
            settings = load_settings(flags, cwd=project.folder, environ=self._of_machine())
            built = build(
                settings,
                reporter=SayReporter(say, notes=False),
                push=True,
                test=False,
                connect_engine=self._connect_engine,
                connect_to=self._registry.connect,
            )
        if built.remote is None:
            raise BuildError("the image was built and is not in the registry", where=self.name(spec))
        repository = self._registry.connect(settings.remote_name)
        manifest = repository.manifest(built.remote.manifest.digest)
        if manifest is None:
            raise BuildError("the image was pushed and is gone again", where=self.name(spec))
        repository.put_manifest(manifest.data, manifest.media_type, spec.key)
        say(f"Image {self.name(spec)} is in the registry ({manifest.digest}).")

    def _of_machine(self) -> dict[str, str]:
        """Return the variables without settings of a project that the emulator may have been started in."""
        ours = {f"HIML_CONTAINER_{name}" for name in _MACHINE}
        return {k: v for k, v in self._environ.items() if k in ours or not k.startswith("HIML_CONTAINER_")}

    def _named(self, image: ImageInfo, spec: ImageSpec, stack: ExitStack) -> str:
        """Give an image a name that every builder takes (BuildKit knows no ids), until the stack is left."""
        tag = f"himl-emulator/base:{spec.key}-{image.id.rpartition(':')[2][:32]}"
        engine = self._connect_engine(self._cache)
        engine.tag(image.id, tag)
        stack.callback(engine.remove_image, tag)
        return tag

    # --- Dockerfiles ---

    def _dockerfile(self, spec: ImageSpec, say: Say) -> None:
        if self.exists(spec):
            return
        name = self.name(spec)
        say(f"Building {name} of a Dockerfile.")
        engine = self._connect_engine(self._cache)
        with ExitStack() as stack:
            context = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder, prefix="build-")))
            path = spec.dockerfile_path if spec.context else "Dockerfile"
            if spec.context:
                self._inputs.context(spec.context, context)
            file = context / path
            # The client's own text; a link could only be one of ours, and there is none.
            if spec.context and (not file.resolve().is_relative_to(context.resolve()) or not file.is_file()):
                raise InputError(f"the build context has no Dockerfile {path!r}")
            text = file.read_text(encoding="utf-8", errors="replace") if spec.context else spec.dockerfile
            file.write_text(self._with_bases(text, spec, say, stack), encoding="utf-8")
            image = engine.build(context, tag=name, dockerfile=path, reporter=SayReporter(say))
        self._push(image, spec, say)

    def _with_bases(self, text: str, spec: ImageSpec, say: Say, stack: ExitStack) -> str:
        """Return a Dockerfile whose bases the daemon can get, and bring those of the emulator's registry to it."""
        lines = []
        for line in text.splitlines():
            found = _FROM.fullmatch(line)
            if found is None:
                lines.append(line)
                continue
            name = replaced(found["name"], spec.stand_in)
            if name != found["name"]:
                say(f"{found['name']} is replaced by {name} ({WHERE_REPLACED}).")
            mine = spec.login is not None and name.startswith(f"{spec.login.address}/")
            if self._registry.has(name) or mine:
                name = self._named(self._bringer.bring(name, spec.login, say), spec, stack)
            lines.append(f"{found['before']}{name}{found['after']}")
        return "\n".join(lines) + "\n"

    def _push(self, image: ImageInfo, spec: ImageSpec, say: Say) -> None:
        """Push an image that Docker has built: our own client takes it out of the daemon and sends it."""
        from himl_container.publish.compose import lower_layers
        from himl_container.publish.engine_layers import export_layers
        from himl_container.publish.model import PushImage
        from himl_container.publish.push import push

        reporter = SayReporter(say, notes=False)
        layers = lower_layers(image.diff_ids, None, cache=self._cache)
        wanted = {layer.diff_id: layer.name for layer in layers}
        exported = export_layers(image.id, wanted, cache=self._cache, reporter=reporter, config_of=image.diff_ids)
        layers = tuple(replace(one, path=exported.layers[one.diff_id]) for one in layers)
        repository = self._registry.connect(f"{self._registry.host}/{BUILT}", reporter=reporter)
        pushed = push(
            PushImage(exported.config, layers),
            repository,
            spec.key,
            cache=self._cache,
            compression="gzip",
            reporter=reporter,
            connect_to=self._registry.connect,
        )
        say(f"Image {self.name(spec)} is in the registry ({pushed.manifest.digest}).")
