"""Both sides of the benchmark, prepared alike: files, images, locks, and the commands that are timed."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from bench.baseline import write_client, write_context
from bench.environment import LARGE_IMPORT, PYTHON, SMALL, SMALL_VERSIONS, names, write_environment, write_wheel
from bench.measure import Measured, timed

_HIML = str(Path(sys.executable).with_name("himl-container"))
_TAG = "himl-bench-baseline:latest"
_CLIENT = "himl-bench-client:latest"


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
        self.environment = {
            **os.environ,
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "RATTLER_CACHE_DIR": str(folder / "cache" / "rattler"),
            "UV_CACHE_DIR": str(folder / "cache" / "uv"),
            "HIML_CONTAINER_CACHE_DIR": str(folder / "cache" / "himl"),
        }
        self._small = 0
        self._wheel = 0

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._remove_images()

    def prepare(self) -> None:
        """Make the channel, the wheels, the project and the first lock; build both sides once."""
        (self.folder / "home").mkdir()
        self.project.mkdir()
        write_environment(self.folder / "kit", self.scale)
        self._serve(self.folder / "kit" / "channel")
        write_client(self.folder / "client", self.base)
        self._run("docker", "build", "-q", "-t", _CLIENT, str(self.folder / "client"))
        (self.project / "train.py").write_text("print('training')\n")
        self._write_inputs()
        self.docker_build()
        self.himl_build()

    def docker_build(self, *, memory: bool = False) -> Measured:
        """Time the baseline's ``docker build``."""
        command = ["docker", "build", "-q", "--network", "host", "-t", _TAG, "."]
        return timed(command, cwd=self.context, environment=os.environ, memory=memory)

    def himl_build(self, *, memory: bool = False) -> Measured:
        """Time ``himl-container build``, from the lock to the tested image in the daemon."""
        command = [_HIML, "build", "--locked", "--quiet"]
        return timed(command, cwd=self.project, environment=self.environment, memory=memory)

    def change_conda_package(self) -> None:
        """Move the small package to a version that neither side has seen, in both sides' lock."""
        self._small += 1
        self._write_inputs()

    def change_wheel(self) -> None:
        """Give the private wheel a version that neither side has seen."""
        self._wheel += 1
        write_wheel(self.folder / "kit" / "wheels", "privatelib", f"1.{self._wheel}", modules=30)
        self._write_inputs()

    def forget_everything(self) -> None:
        """Remove every image of both sides, and our caches; the client image that is the base of both stays."""
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
        return {"engine": engine, "cores": os.cpu_count(), "scale": self.scale, "packages": len(names()) + 2}

    def _write_inputs(self) -> None:
        """Write the environment file, lock it, and give the same packages and wheels to the baseline."""
        chosen = self.folder / "kit" / "wheels" / f"privatelib-1.{self._wheel}-py3-none-any.whl"
        others = sorted((self.folder / "kit" / "wheels").glob("wheel_*.whl"))
        shutil.copy(chosen, self.project)
        (self.project / "pyproject.toml").write_text(
            f'[tool.himl-container]\nbase-image = "{_CLIENT}"\nimage-name = "himl-bench"\nwheels = ["{chosen.name}"]\n'
        )
        specs = [f"python ={PYTHON}", "pip", f"{SMALL} =={SMALL_VERSIONS[self._small]}", *names()]
        text = f"name: bench\nchannels: [{self._channel}]\ndependencies:\n"
        text += "".join(f"  - {spec}\n" for spec in specs)
        text += f"  - pip:\n    - --find-links {others[0].parent}\n"
        text += "".join(f"    - wheel-{number}==1.0\n" for number in range(len(others)))
        (self.project / "environment.yml").write_text(text)
        self._run(_HIML, "lock", "--quiet", cwd=self.project)
        write_context(self.context, base=_CLIENT, listing=self._listing(), wheels=[*others, chosen])

    def _listing(self) -> str:
        from himl_container.environment.lockfile import read_lock

        return json.dumps([asdict(package) for package in read_lock(self.project / "pylock.himl.toml").conda])

    def _our_tag(self) -> str:
        text = self._run(_HIML, "build", "--locked", "--json", cwd=self.project)
        return str(json.loads(text.splitlines()[-1])["tag"])

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
        listed = self._run("docker", "images", "-q", "--filter", "reference=himl-bench", check=False).split()
        self._run("docker", "rmi", "-f", *listed, _TAG, check=False)
        self._run("docker", "image", "prune", "-f", check=False)

    def _run(self, *command: str, cwd: Path | None = None, check: bool = True) -> str:
        done = subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""
