"""Canaries in every place where a credential may stand; afterwards, everything that is left behind is searched.

The canaries: the login of a package index in the environment file, one in a setting whose password is a variable, a
netrc, Docker's ``config.json``, and the login of a channel's mirror. Each server refuses whoever does not bring the
right one, so that a command can only succeed by using them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import mmap
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import docker
import kit
import pytest
from folder_server import FolderServer, basic, package_index, serving
from unit.environment.wheelhouse import add_sdist, add_wheel

# PyPI has the front end that builds source distributions.
pytestmark = [pytest.mark.docker, pytest.mark.network]

# With characters that a URL has to encode, so that both forms exist.
FILE = "canary-file-4f1d@x"
SETTING = "canary-setting-9a2c"
NETRC = "canary-netrc-77be"
DOCKER = "canary-docker-e03b"
MIRROR = "canary-mirror-51aa@y"
WRONG = "canary-wrong-c8d4"
USER = "canaryuser"

BACKEND = """
import zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name, info = "fromsource-1.0-py3-none-any.whl", "fromsource-1.0.dist-info/"
    with zipfile.ZipFile(f"{wheel_directory}/{name}", "w") as archive:
        archive.writestr("fromsource.py", "")
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: fromsource\\nVersion: 1.0\\n")
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(info + "RECORD", "fromsource.py,,\\n" + info + "METADATA,,\\n" + info + "WHEEL,,\\n")
    return name
"""
SCRIPT = """
import os, pathlib, sys
lines = [f"{key}={value}" for key, value in os.environ.items()]
pathlib.Path("outputs/environ.txt").write_text("\\n".join(lines))
print(*lines, sep="\\n")
"""


def needles() -> list[bytes]:
    """Return every form in which a canary may appear."""
    found: list[str] = []
    for secret in (FILE, SETTING, NETRC, DOCKER, MIRROR, WRONG):
        coded = base64.b64encode(f"{USER}:{secret}".encode()).decode()
        # The user's name in front shifts base64 of a part, so the password alone is looked for as well.
        found += [secret, quote(secret, safe=""), coded, base64.b64encode(secret.encode()).decode()]
    return [text.rstrip("=").encode() for text in dict.fromkeys(found)]


def canaries(data: bytes | mmap.mmap) -> list[str]:
    return [needle.decode() for needle in needles() if data.find(needle) >= 0]


def canaries_below(folder: Path) -> dict[str, list[str]]:
    """Return the files with canaries in them, or in their names."""
    found = {}
    for path in folder.rglob("*"):
        here = canaries(os.fsencode(path.relative_to(folder)))
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                here += canaries(data)
        if here:
            found[str(path.relative_to(folder))] = here
    return found


class CommandLines:
    """Looks at the command lines of all processes of this machine, again and again."""

    def __init__(self) -> None:
        self.found: set[bytes] = set()
        self.looked = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> CommandLines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    line = path.read_bytes()
                    self.looked += b"himl-container" in line
                    if canaries(line):
                        self.found.add(line)


@dataclass
class World:
    """Where the commands ran, and what they said."""

    folder: Path
    cli: kit.Cli
    tag: str = ""
    said: dict[str, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    servers: dict[str, FolderServer] = field(default_factory=dict)
    command_lines: CommandLines = field(default_factory=CommandLines)

    def run(self, *arguments: str, title: str = "", expect: int | None = 0, **environ: str) -> str:
        done = self.cli(*arguments, environ=environ, expect=expect)
        title = title or " ".join(arguments)
        self.said[title] = done.stdout + done.stderr
        self.codes[title] = done.returncode
        return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, channel: Path, base_image: str) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("credentials")
    project = kit.ProjectFolder(folder / "project")
    name = "himl-test-credentials"
    add_wheel(folder / "one" / "fromfile", "fromfile")
    add_wheel(folder / "two" / "fromsetting", "fromsetting")
    add_sdist(folder / "two" / "fromsource", "fromsource", files={"backend.py": BACKEND})
    add_wheel(folder / "three" / "fromnetrc", "fromnetrc")
    with contextlib.ExitStack() as stack:
        servers = {
            "file": stack.enter_context(serving(package_index(folder / "one"), login=f"{USER}:{FILE}")),
            "setting": stack.enter_context(serving(package_index(folder / "two"), login=f"{USER}:{SETTING}")),
            "netrc": stack.enter_context(serving(package_index(folder / "three"), login=f"{USER}:{NETRC}")),
            "mirror": stack.enter_context(serving(channel, login=f"{USER}:{MIRROR}")),
        }
        in_file = servers["file"].url(login=f"{USER}:{quote(FILE, safe='')}")
        pip = [f"--extra-index-url {in_file}", "fromfile", "fromsetting", "fromsource", "fromnetrc"]
        project.path.mkdir()
        project.environment("python =3.11", "tinylib", pip=pip)
        # A system part, because Docker is told the registries' logins when it builds one.
        project.write("pyproject.toml", '[tool.himl-container]\nsystem-lines = ["RUN true"]\n')
        project.write("source/show.py", SCRIPT)
        for place in ("tmp", "home", "docker"):
            (folder / place).mkdir()
        (folder / "netrc").write_text(f"machine localhost login {USER} password {NETRC}\n")
        auth = base64.b64encode(f"{USER}:{DOCKER}".encode()).decode()
        auths = {host: {"auth": auth} for host in ("127.0.0.1:5000", "https://index.docker.io/v1/")}
        (folder / "docker" / "config.json").write_text(json.dumps({"auths": auths}))
        environ = kit.clean_environ(
            HOME=str(folder / "home"),
            TMPDIR=str(folder / "tmp"),
            NETRC=str(folder / "netrc"),
            DOCKER_CONFIG=str(folder / "docker"),
            RATTLER_CACHE_DIR=str(folder / "rattler"),
            UV_CACHE_DIR=str(folder / "uv"),
            NO_PROXY="127.0.0.1,localhost",
            no_proxy="127.0.0.1,localhost",
            INDEX_PASSWORD=SETTING,
            HIML_CONTAINER_CACHE_DIR=str(folder / "cache"),
            HIML_CONTAINER_IMAGE_NAME=name,
            HIML_CONTAINER_BASE_IMAGE=base_image,
            HIML_CONTAINER_PIP_EXTRA_INDEX_URL=_indexes(servers, f"{USER}:${{INDEX_PASSWORD}}"),
            HIML_CONTAINER_CHANNEL_MIRRORS=f"conda-forge={servers['mirror'].url(login=f'{USER}:{quote(MIRROR)}')}",
        )
        made = World(folder, kit.Cli(project.path, environ), servers=servers)
        with made.command_lines:
            _use(made)
        yield made
        subprocess.run(["docker", "image", "rm", "-f", made.tag], check=False, capture_output=True)


def _indexes(servers: dict[str, FolderServer], login: str) -> str:
    return f"{servers['setting'].url(login=login)} {servers['netrc'].url(host='localhost')}"


def _use(world: World) -> None:
    """Run every command, also with errors of every kind."""
    wrong_index = _indexes(world.servers, f"{USER}:{WRONG}")
    dead_index = f"http://{USER}:{WRONG}@127.0.0.1:9"
    wrong_mirror = f"conda-forge={world.servers['mirror'].url(login=f'{USER}:{WRONG}')}"
    debug = {"HIML_CONTAINER_DEBUG": "1"}
    failing: dict[str, dict[str, str]] = {
        "wrong index": {"HIML_CONTAINER_PIP_EXTRA_INDEX_URL": wrong_index},
        "dead index": {"HIML_CONTAINER_PIP_EXTRA_INDEX_URL": dead_index, "UV_HTTP_RETRIES": "0"},
        "wrong mirror": {"HIML_CONTAINER_CHANNEL_MIRRORS": wrong_mirror},
        "malformed index": {"HIML_CONTAINER_PIP_INDEX_URL": f"http://{USER}:{WRONG}@[::1"},
        "wrong variable": {"INDEX_PASSWORD": WRONG},
    }
    with ThreadPoolExecutor(2) as pool:  # they leave nothing, so none disturbs another

        def fail(title: str, *form: str) -> None:
            world.run("lock", *form, title=f"{title} {form}", expect=None, **debug, **failing[title])

        runs = [pool.submit(fail, title, *form) for form in ((), ("--json",)) for title in failing]
    for run in runs:
        run.result()
    world.run("lock", **debug)
    world.run("lock", "--check")
    world.run("lock", "--upgrade", "tinylib", "--json", **debug)
    world.run("build", "--dry-run")
    # What a build has to fetch while the mirror refuses.
    world.run("build", title="build, wrong mirror", expect=None, HIML_CONTAINER_CHANNEL_MIRRORS=wrong_mirror, **debug)
    world.run("render", "--output", str(world.folder / "context"))
    events = world.run("build", "--json", **debug)
    world.tag = next(event for line in events.splitlines() if (event := json.loads(line))["event"] == "result")["tag"]
    subprocess.run(["docker", "save", "-o", world.folder / "assembled.tar", world.tag], check=True)
    subprocess.run(["docker", "image", "rm", "-f", world.tag], check=True, capture_output=True)
    world.run("build", "--builder", "docker", **debug)
    subprocess.run(["docker", "save", "-o", world.folder / "built.tar", world.tag], check=True)
    folders = ("--runs-dir", str(world.folder / "runs"), "--source", str(world.cli.cwd / "source"))
    world.run("run", "--local", *folders, "show.py")
    world.run("run", "--local", "--json", *folders, "show.py", **debug)
    world.run("explain")
    world.run("explain", "--json")
    world.run("base", "show")
    world.run("cache", "ls")
    world.run("doctor", expect=None)


def test_every_credential_was_needed_and_used(world: World) -> None:
    for name, secret in {"file": FILE, "setting": SETTING, "netrc": NETRC, "mirror": MIRROR}.items():
        assert basic(f"{USER}:{secret}") in {header for _, header in world.servers[name].seen}, name
    lock = (world.cli.cwd / "pylock.himl.toml").read_text()
    for package in ("fromfile", "fromsetting", "fromsource", "fromnetrc", "tinylib"):
        assert f'"{package}"' in lock


def test_no_server_got_the_credential_of_another(world: World) -> None:
    right = {"file": {FILE}, "setting": {SETTING, WRONG}, "netrc": {NETRC}, "mirror": {MIRROR, WRONG}}
    for name, server in world.servers.items():
        expected = {"", *(basic(f"{USER}:{secret}") for secret in right[name])}
        assert {header for _, header in server.seen} <= expected, name


def test_what_fails_for_its_credentials_says_so(world: World) -> None:
    codes = {title: code for title, code in world.codes.items() if title.startswith(("wrong", "dead", "malformed"))}
    assert {title: code for title, code in codes.items() if title.startswith("malformed")} != {}
    for title, code in codes.items():
        assert code == (65 if title.startswith("malformed") else 68), world.said[title]
    assert world.codes["build, wrong mirror"] == 68


def test_nothing_that_was_said_has_one(world: World) -> None:
    assert {title: found for title, text in world.said.items() if (found := canaries(text.encode()))} == {}


def test_no_process_was_started_with_one(world: World) -> None:
    assert world.command_lines.looked > 10
    assert world.command_lines.found == set()


@pytest.mark.parametrize("place", ["cache", "context", "runs", "tmp", "home"])
def test_no_folder_has_one(world: World, place: str) -> None:
    if place in ("cache", "context", "runs"):
        assert any((world.folder / place).rglob("*"))
    # rattler's own cache of package lists notes which address each came from, as Conda's does.
    found = canaries_below(world.folder / place)
    assert {path: what for path, what in found.items() if not path.startswith(".cache/rattler/")} == {}


def test_the_project_has_them_where_the_user_wrote_them_and_nowhere_else(world: World) -> None:
    assert set(canaries_below(world.cli.cwd)) == {"environment.yml"}


def test_no_image_has_one(world: World) -> None:
    images = world.folder / "images"
    images.mkdir()
    for name in ("assembled.tar", "built.tar"):
        (world.folder / name).rename(images / name)
        assert (images / name).stat().st_size > 10_000_000
    assert canaries_below(images) == {}
    inspected = docker.from_env().api.inspect_image(world.tag)
    history = docker.from_env().api.history(world.tag)
    assert canaries(json.dumps([inspected, history]).encode()) == []
