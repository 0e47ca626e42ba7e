"""Faults on the way to an image: what is told, the exit code, nothing half-made, and that the next build succeeds.

Others of their kind are tested where they belong: the daemon that dies in mid-load in ``image/test_engine_load.py``,
two builds at once, a kill and Ctrl-C of a build in ``test_build.py``, scripts that fail in ``launch/test_run.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import kit
import pytest
from folder_server import package_index, serving
from unit.environment.wheelhouse import add_wheel

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches of these tests alone. Each test damages another package, so that none finds it whole in a cache."""
    return tmp_path_factory.mktemp("fault-caches")


@pytest.fixture
def cache_dir(caches: Path) -> Path:
    return caches / "himl"


@pytest.fixture
def cli(run_cli: kit.Cli, caches: Path, tmp_path: Path) -> kit.Cli:
    own = {"RATTLER_CACHE_DIR": str(caches / "rattler"), "UV_CACHE_DIR": str(tmp_path / "uv")}
    return kit.Cli(run_cli.cwd, {**run_cli.environ, **own, "UV_HTTP_RETRIES": "0"})


class Faulty:
    """A build that has to fail, and what it must not leave behind."""

    def __init__(self, cli: kit.Cli, cache: Path, image_name: str) -> None:
        self._cli = cli
        self._cache = cache
        self._image_name = image_name

    def __call__(self, *, code: int, says: tuple[str, ...], **environ: str) -> str:
        lock = (self._cli.cwd / "pylock.himl.toml").read_bytes()
        done = self._cli("build", environ=environ, expect=code)
        message = done.stderr[done.stderr.index("error: ") :]
        for text in says:
            assert text in message
        assert re.search(r"^  \S", message, re.MULTILINE), f"no next step: {message}"
        assert "Traceback" not in done.stderr
        assert not docker.from_env().images.list(name=self._image_name)
        assert not list((self._cache / "tmp").glob("*"))
        assert (self._cli.cwd / "pylock.himl.toml").read_bytes() == lock
        return message


@pytest.fixture
def faulty(cli: kit.Cli, cache_dir: Path, image_name: str) -> Faulty:
    return Faulty(cli, cache_dir, image_name)


@pytest.fixture
def own_channel(channel: Path, tmp_path: Path) -> Path:
    """A copy of the channel that a test may damage."""
    return Path(shutil.copytree(channel, tmp_path / "channel", copy_function=os.link))


def replace(path: Path, data: bytes) -> None:
    """Give a file other content; the original, of which it is a hard link, keeps its own."""
    path.unlink()
    path.write_bytes(data)


def mirror(url: str) -> dict[str, str]:
    return {"HIML_CONTAINER_CHANNEL_MIRRORS": f"conda-forge={url}"}


def built(cli: kit.Cli, **environ: str) -> bool:
    return bool(json.loads(cli("build", "--json", environ=environ).stdout.splitlines()[-1])["built"])


def test_a_conda_package_that_is_not_the_locked_one(
    cli: kit.Cli, faulty: Faulty, project: kit.ProjectFolder, own_channel: Path
) -> None:
    project.environment("python =3.11", "tinylib =1.1")
    cli("lock")
    package = next(own_channel.glob("noarch/tinylib-1.1-*"))
    # A whole package with other content: the same name, another version's bytes.
    replace(package, next(own_channel.glob("noarch/tinylib-1.0-*")).read_bytes())
    with serving(own_channel) as server:
        for url in (server.url(), own_channel.as_uri()):
            message = faulty(code=68, says=(package.name, "sha256", "lock --upgrade tinylib"), **mirror(url))
            # The one that came and the one that was expected.
            assert len(set(re.findall(r"\b[0-9a-f]{64}\b", message))) == 2
    assert built(cli)


def test_a_channel_whose_downloads_are_cut_short(
    cli: kit.Cli, faulty: Faulty, project: kit.ProjectFolder, own_channel: Path
) -> None:
    project.environment("python =3.11", "links")
    with serving(own_channel, cut=(".json", ".json.zst")) as server:
        done = cli("lock", environ=mirror(server.url()), expect=68)
        assert server.url() in done.stderr
        assert "Traceback" not in done.stderr
        assert not (project.path / "pylock.himl.toml").exists()
        server.cut = ()
        cli("lock", environ=mirror(server.url()))
        server.cut = (".conda",)
        faulty(code=68, says=(".conda", server.url()), **mirror(server.url()))
        server.cut = ()
        assert built(cli, **mirror(server.url()))


def test_a_wheel_of_an_index_that_is_cut_short_or_another_one(
    cli: kit.Cli, faulty: Faulty, project: kit.ProjectFolder, tmp_path: Path
) -> None:
    wheel = add_wheel(tmp_path / "index" / "fromindex", "fromindex")
    whole = wheel.read_bytes()
    with serving(package_index(tmp_path / "index")) as server:
        index = {"HIML_CONTAINER_PIP_INDEX_URL": server.url()}
        project.environment("python =3.11", pip=["fromindex"])
        cli("lock", environ=index)
        shutil.rmtree(tmp_path / "uv")
        server.cut = (".whl",)
        faulty(code=68, says=("fromindex",), **index)
        server.cut = ()
        add_wheel(tmp_path / "index" / "fromindex", "fromindex", requires=["something"])
        faulty(code=68, says=("fromindex", "sha256"), **index)
        wheel.write_bytes(whole)
        assert built(cli, **index)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("full", ["cache", "packages"])
def test_a_disk_that_is_full(
    cli: kit.Cli, faulty: Faulty, project: kit.ProjectFolder, tmp_path: Path, full: str
) -> None:
    project.environment("python =3.11", "tinytool")
    cli("lock")
    with small_disk(tmp_path / "small", "30m") as disk:
        caches = {
            "HIML_CONTAINER_CACHE_DIR": str(disk if full == "cache" else tmp_path / "large"),
            "RATTLER_CACHE_DIR": str(disk if full == "packages" else tmp_path / "large"),
        }
        faulty(code=74, says=("space",), **caches)
        assert not list((Path(caches["HIML_CONTAINER_CACHE_DIR"]) / "tmp").glob("*"))
        if full == "cache":
            # What is there is whole: the same disk with more room serves the next build.
            subprocess.run(["mount", "-o", "remount,size=1000m", disk], check=True)
            assert built(cli, **caches)


def test_ctrl_c_while_locking_and_rendering(cli: kit.Cli, project: kit.ProjectFolder, own_channel: Path) -> None:
    """The moment is the first request of the channel's server; the server then keeps it waiting."""
    project.environment("python =3.11", "tinylib")
    for command, left in (("lock", "pylock.himl.toml"), ("render", "himl-context")):
        with serving(own_channel) as server:  # its own: another one may still be hearing of the command before
            server.hold = True
            environ = {**cli.environ, **mirror(server.url())}
            process = subprocess.Popen(
                [kit.COMMAND, command], cwd=project.path, env=environ, stderr=subprocess.PIPE, text=True
            )
            while not server.seen and process.poll() is None:
                time.sleep(0.01)  # until it has asked for something
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=60)[1]
            server.hold = False
            assert process.returncode == 130, errors
            assert "Traceback" not in errors
            assert not (project.path / left).exists()
    with serving(own_channel) as server:
        cli("render", environ=mirror(server.url()))
        assert (project.path / "himl-context" / "Dockerfile").is_file()


def test_labels_and_names_of_a_hostile_environment_are_data(
    cli: kit.Cli, project: kit.ProjectFolder, image_name: str
) -> None:
    """Names of an environment and of its file, and values, go into labels and Dockerfile lines of both builders."""
    name = "a'b\" $(touch canary) `touch canary` # größe.yml"
    code = "$(touch /canary) `touch /canary` \\ ' \" # $HOME ${PATH}"
    path = project.environment("python =3.11", name=name)
    path.write_text(path.read_text() + f"variables:\n  HOSTILE: {json.dumps(code)}\n")
    for builder in ("assemble", "docker"):
        done = cli("build", "--json", "--conda-file", name, "--builder", builder)
        tag = json.loads(done.stdout.splitlines()[-1])["tag"]
        client = docker.from_env()
        assert f"HOSTILE={code}" in client.images.get(tag).attrs["Config"]["Env"]
        assert client.containers.run(tag, ["sh", "-c", "ls / | grep -c canary || true"], remove=True) == b"0\n"
        client.images.remove(tag, force=True)
    assert not list(project.path.rglob("canary"))
