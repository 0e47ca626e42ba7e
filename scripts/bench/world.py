"""Both sides of the benchmark, prepared alike: files, images, locks, and the commands that are timed."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

from registry_server import Host, registry

from bench.baseline import write_client, write_context
from bench.environment import (
    LARGE_IMPORT,
    MIDDLE,
    MIDDLE_VERSIONS,
    PYTHON,
    SMALL,
    SMALL_VERSIONS,
    names,
    write_environment,
    write_wheel,
)
from bench.measure import Measured, timed

_HIML = str(Path(sys.executable).with_name("himl-container"))
_BASELINE = "himl-bench-baseline"
_CLIENT = "himl-bench-client"
_OURS = "himl-bench"


class World:
    """One benchmark: a folder with everything, and the present state of both sides.

    :param folder: an empty folder.
    :param base: the base image in the daemon.
    :param scale: size of the environment.
    """

    def __init__(self, folder: Path, base: str, scale: float) -> None:
        self.folder, self.base, self.scale = folder, base, scale
        self.project = folder / "project"
        self.context = folder / "baseline"
        # An installation has its bytecode; a checkout gets it at the first start, unless this variable says otherwise.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.environment = {
            **inherited,
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "RATTLER_CACHE_DIR": str(folder / "cache" / "rattler"),
            "UV_CACHE_DIR": str(folder / "cache" / "uv"),
            "HIML_CONTAINER_CACHE_DIR": str(folder / "cache" / "himl"),
        }
        self._small = 0
        self._middle = 0
        self._wheel = 0
        self._host: Host
        self._registry = ExitStack()

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._remove_images()
        self._registry.close()

    def prepare(self) -> None:
        """Make the channel, the wheels, the project and the first lock; build both sides once."""
        (self.folder / "home").mkdir()
        self.project.mkdir()
        write_environment(self.folder / "kit", self.scale)
        self._serve(self.folder / "kit" / "channel")
        write_client(self.folder / "client", self.base)
        self._run("docker", "build", "-q", "-t", _CLIENT, str(self.folder / "client"))
        self.empty_registry()
        (self.project / "train.py").write_text("print('training')\n")
        self._write_inputs()
        self.docker_build()
        self.himl_build()

    def empty_registry(self) -> None:
        """Start the registry, or start it anew, with nothing in it but the base image of both sides."""
        self._registry.close()
        shutil.rmtree(self.folder / "registry", ignore_errors=True)
        port = int(self._host.rpartition(":")[2]) if hasattr(self, "_host") else 0
        self._host = self._registry.enter_context(registry(self.folder / "registry", port=port))
        self._run("docker", "tag", _CLIENT, self._client)
        self._run("docker", "push", self._client)

    @property
    def _client(self) -> str:
        return f"{self._host}/{_CLIENT}:latest"

    @property
    def _tag(self) -> str:
        return f"{self._host}/{_BASELINE}:latest"

    @property
    def stored_bytes(self) -> int:
        """Bytes of all that the registry holds."""
        return sum(self._host.blob_file(digest).stat().st_size for digest in self._host.blobs())

    def docker_build(self, *, memory: bool = False) -> Measured:
        """Time the baseline's ``docker build``."""
        command = ["docker", "build", "-q", "--network", "host", "-t", self._tag, "."]
        return timed(command, cwd=self.context, environment=os.environ, memory=memory)

    def docker_push(self) -> Measured:
        """Time ``docker push`` of what :meth:`docker_build` made."""
        return self._sending(["docker", "push", self._tag], self.context, os.environ)

    def docker_build_from_cache(self) -> Measured:
        """Time what a fresh agent does that has the last image in the registry for a cache."""
        build = ["docker", "build", "-q", "--network", "host", "--cache-from", self._tag, "-t", self._tag, "."]
        # Without buildx, the builder looks for cached layers in the daemon alone.
        pull = [] if self._has_buildx else ["docker", "pull", "-q", self._tag]
        inline = ["--cache-to", "type=inline"] if self._has_buildx else []
        script = " && ".join(shlex.join(command) for command in (pull, [*build[:-1], *inline, build[-1]]) if command)
        return timed(["sh", "-c", script], cwd=self.context, environment=os.environ)

    def himl_build(self, *, memory: bool = False, test: bool = False) -> Measured:
        """Time ``himl-container build``, from the lock to the image in the daemon.

        :param test: with its test; what is built already is only tested.
        """
        command = [_HIML, "build", "--locked", "--quiet", "--test" if test else "--no-test"]
        return timed(command, cwd=self.project, environment=self.environment, memory=memory)

    def himl_push(self) -> Measured:
        """Time ``himl-container build --push``, from the lock to the image in the registry."""
        command = [_HIML, "build", "--locked", "--quiet", "--push", "--no-test"]
        return self._sending(command, self.project, {**self.environment, "HIML_CONTAINER_REGISTRY": self._host})

    def requests_of_push(self) -> int:
        """Push once more and return how many requests the registry got for it."""
        before = self._host.log.read_text().count(' HTTP/1.1"')
        self.himl_push()
        return self._host.log.read_text().count(' HTTP/1.1"') - before

    def change_conda_package(self) -> None:
        """Move the small package to a version that neither side has seen, in both sides' lock."""
        self._small += 1
        self._write_inputs()

    def change_middle_package(self) -> None:
        """Move the package on which others depend to a version that neither side has seen."""
        self._middle += 1
        self._write_inputs()

    def change_wheel(self) -> None:
        """Give the private wheel a version that neither side has seen."""
        self._wheel += 1
        write_wheel(self.folder / "kit" / "wheels", "privatelib", f"1.{self._wheel}", modules=30)
        self._write_inputs()

    def forget_everything(self) -> None:
        """Remove every image of both sides, and our caches, but the base; what the registry has stays."""
        self._remove_images()
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        self._run("docker", "builder", "prune", "-af", check=False)
        subprocess.run(["sync"], check=True)

    def docker_run(self, *command: str) -> Measured:
        """Time ``docker run --rm``."""
        tag = self._our_tag()
        return timed(["docker", "run", "--rm", tag, *command], cwd=self.project, environment=os.environ)

    def himl_run(self, *command: str) -> Measured:
        """Time ``himl-container run --local``."""
        return timed([_HIML, "run", "--local", "--quiet", *command], cwd=self.project, environment=self.environment)

    def import_times(self) -> tuple[Measured, Measured]:
        """Seconds inside a container of our image: an import after one that wrote bytecode, and a first import."""
        clock = f"import time; t = time.perf_counter(); import {LARGE_IMPORT}; print(time.perf_counter() - t)"
        root = f"/opt/himl/lib/python{PYTHON}/site-packages/{LARGE_IMPORT}"
        warm = f"rm -rf {root}/__pycache__; python -c 'import {LARGE_IMPORT}'; python -c '{clock}'"
        return self._inside(warm), self._inside(f"python -c '{clock}'")

    def python_start(self) -> Measured:
        """Time an interpreter that does nothing."""
        return timed([sys.executable, "-c", ""], cwd=self.project, environment=self.environment)

    def himl_help(self) -> Measured:
        """Time ``himl-container --help``."""
        return timed([_HIML, "--help"], cwd=self.project, environment=self.environment)

    def facts(self) -> dict[str, object]:
        """What the figures depend on."""
        engine = self._run("docker", "version", "--format", "{{.Server.Version}}").strip()
        return {
            "engine": engine,
            "cores": os.cpu_count(),
            "scale": self.scale,
            "packages": len(names()) + 4,
            "private_wheel_mb": round(self._private_wheel.stat().st_size / 1e6, 3),
        }

    def _write_inputs(self) -> None:
        """Write the environment file, lock it, and give the same packages and wheels to the baseline."""
        chosen = self._private_wheel
        others = sorted((self.folder / "kit" / "wheels").glob("wheel_*.whl"))
        shutil.copy(chosen, self.project)
        (self.project / "pyproject.toml").write_text(
            f'[tool.himl-container]\nbase-image = "{self._client}"\nimage-name = "{_OURS}"\n'
            f'wheels = ["{chosen.name}"]\n'
        )
        specs = [f"python ={PYTHON}", "pip", f"{SMALL} =={SMALL_VERSIONS[self._small]}", *names()]
        specs.append(f"{MIDDLE} =={MIDDLE_VERSIONS[self._middle]}")
        text = f"name: bench\nchannels: [{self._channel}]\ndependencies:\n"
        text += "".join(f"  - {spec}\n" for spec in specs)
        text += f"  - pip:\n    - --find-links {others[0].parent}\n"
        text += "".join(f"    - wheel-{number}==1.0\n" for number in range(len(others)))
        (self.project / "environment.yml").write_text(text)
        self._run(_HIML, "lock", "--quiet", cwd=self.project)
        write_context(self.context, base=self._client, listing=self._listing(), wheels=[*others, chosen])

    @property
    def _private_wheel(self) -> Path:
        return self.folder / "kit" / "wheels" / f"privatelib-1.{self._wheel}-py3-none-any.whl"

    def _listing(self) -> str:
        from himl_container.environment.lockfile import read_lock

        return json.dumps([asdict(package) for package in read_lock(self.project / "pylock.himl.toml").conda])

    def _our_tag(self) -> str:
        text = self._run(_HIML, "build", "--locked", "--json", cwd=self.project)
        return str(json.loads(text.splitlines()[-1])["tag"])

    @functools.cached_property
    def _has_buildx(self) -> bool:
        return subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode == 0

    def _sending(self, command: list[str], cwd: Path, environment: Mapping[str, str]) -> Measured:
        before = self.stored_bytes
        measured = timed(command, cwd=cwd, environment=environment)
        return replace(measured, sent_bytes=self.stored_bytes - before)

    def _inside(self, script: str) -> Measured:
        start = time.perf_counter()
        text = self._run("docker", "run", "--rm", self._our_tag(), "sh", "-c", script)
        return Measured(float(text.split()[-1]) if text.strip() else time.perf_counter() - start, 0)

    def _serve(self, folder: Path) -> None:
        handler = functools.partial(_Quiet, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._channel = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _remove_images(self) -> None:
        listed = self._run("docker", "images", "-q", "--filter", f"reference={_OURS}", check=False).split()
        self._run("docker", "rmi", "-f", *listed, self._tag, check=False)
        self._run("docker", "image", "prune", "-f", check=False)

    def _run(self, *command: str, cwd: Path | None = None, check: bool = True) -> str:
        done = subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""
