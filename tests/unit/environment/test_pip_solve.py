from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from himl_container.cache import Cache
from himl_container.environment.model import (
    EnvironmentSpec,
    LockedWheel,
    Origin,
    PipIndexes,
    PipRequirement,
    PrivateWheel,
)
from himl_container.environment.pip_result import Sdist
from himl_container.environment.pip_run import PipRequest, python_platform, resolve
from himl_container.environment.pip_solve import solve_pip
from himl_container.errors import ArtifactError, HimlError, InputError, UnsolvableError
from himl_container.progress import SilentReporter

from . import wheelhouse


@pytest.fixture(autouse=True)
def _own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a network, without the developer's settings, with its own cache."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


@dataclass
class World:
    """A folder of wheels and what is asked of it."""

    folder: Path
    cache: Cache
    built: list[Sdist] = field(default_factory=list)
    build: Callable[[Sdist], Path] | None = None

    @property
    def links(self) -> Path:
        return self.folder / "links"

    def request(
        self,
        *requirements: str,
        provided: dict[str, str] | None = None,
        wheels: tuple[PrivateWheel, ...] = (),
        previous: tuple[LockedWheel, ...] = (),
        constraints: tuple[str, ...] = (),
        indexes: PipIndexes | None = None,
        python: str = "3.11.7",
        glibc: str = "2.28",
    ) -> PipRequest:
        self.links.mkdir(exist_ok=True)

        def pip(texts: tuple[str, ...]) -> tuple[PipRequirement, ...]:
            return tuple(
                PipRequirement(text, text.split("=")[0], Origin("env.yml", n)) for n, text in enumerate(texts, 7)
            )

        spec = EnvironmentSpec(
            "test",
            (),
            (),
            pip(requirements),
            indexes or PipIndexes(find_links=(self.links.as_uri(),)),
            wheels=wheels,
            constraints=pip(constraints),
        )
        return PipRequest(spec, python, "linux-64", glibc, provided or {}, previous)

    def solve(self, *requirements: str, **more: object) -> dict[str, LockedWheel]:
        def build(sdist: Sdist) -> tuple[Path, tuple[str, ...]]:
            self.built.append(sdist)
            assert self.build is not None
            return self.build(sdist), ("backend==1.0",)

        request = self.request(*requirements, **more)  # type: ignore[arg-type]
        found = solve_pip(request, build=build, cache=self.cache, reporter=SilentReporter())
        return {wheel.name: wheel for wheel in found}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, Cache(tmp_path / "cache"))


def versions(wheels: dict[str, LockedWheel]) -> dict[str, str]:
    return {name: wheel.version for name, wheel in wheels.items()}


def test_a_wheel_is_locked_with_its_address_and_hash(world: World) -> None:
    path = wheelhouse.add_wheel(world.links, "Nice_Name", "1.0", requires=["other>=1"])
    wheelhouse.add_wheel(world.links, "other", "1.1")
    locked = world.solve("nice.name")
    assert versions(locked) == {"nice-name": "1.0", "other": "1.1"}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert locked["nice-name"] == LockedWheel(
        "nice-name", "1.0", path.name, digest, path.stat().st_size, url=path.as_uri()
    )


def test_nothing_asked_is_nothing_solved(world: World) -> None:
    assert world.solve(indexes=PipIndexes(index="http://127.0.0.1:9/")) == {}


def test_what_conda_installed_is_taken_as_given(world: World) -> None:
    wheelhouse.add_wheel(world.links, "model", requires=["numpy>=1.20", "helper"])
    wheelhouse.add_wheel(world.links, "numpy", "2.0")
    wheelhouse.add_wheel(world.links, "helper")
    assert versions(world.solve("model", provided={"numpy": "1.24.0"})) == {"model": "1.0", "helper": "1.0"}
    assert versions(world.solve("model", "numpy>1", provided={"numpy": "1.24.0"})) == {"model": "1.0", "helper": "1.0"}


def test_a_contradiction_to_conda_is_the_solver_s_error(world: World) -> None:
    wheelhouse.add_wheel(world.links, "model", requires=["numpy>=2"])
    wheelhouse.add_wheel(world.links, "numpy", "2.0")
    with pytest.raises(UnsolvableError) as caught:
        world.solve("model", provided={"numpy": "1.24.0", "num": "1.0"})
    assert "model depend" in caught.value.what
    assert "Installed by Conda: numpy 1.24.0." in caught.value.what
    assert caught.value.where == "env.yml"
    assert str(world.cache.root) not in str(caught.value)


def test_what_was_locked_stays_and_moves_on_purpose(world: World) -> None:
    for version in ("1.0", "1.1"):
        wheelhouse.add_wheel(world.links, "a", version)
        wheelhouse.add_wheel(world.links, "b", version)
    before = world.solve("a==1.0", "b==1.0")
    after = world.solve("a", "b", previous=tuple(before.values()))
    assert versions(after) == {"a": "1.0", "b": "1.0"}
    assert versions(world.solve("a", "b", previous=(before["a"],))) == {"a": "1.0", "b": "1.1"}
    assert versions(world.solve("a>1.0", "b", previous=tuple(before.values()))) == {"a": "1.1", "b": "1.0"}


def test_constraints_bound_but_do_not_ask(world: World) -> None:
    for version in ("1.0", "2.0"):
        wheelhouse.add_wheel(world.links, "a", version)
    assert versions(world.solve("a", constraints=("a<2", "absent==3"))) == {"a": "1.0"}


def test_the_best_wheel_for_the_image_is_taken(world: World) -> None:
    for tag in (
        "py3-none-any",
        "cp311-cp311-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux_2_28_x86_64",
        "cp311-cp311-manylinux_2_34_x86_64",
        "cp310-abi3-manylinux_2_28_x86_64",
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp311-cp311-win_amd64",
        "cp311-cp311-manylinux_2_28_aarch64",
    ):
        wheelhouse.add_wheel(world.links, "fast", tag=tag)
    assert world.solve("fast")["fast"].filename == "fast-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert world.solve("fast", glibc="2.17")["fast"].filename == "fast-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"
    assert world.solve("fast", python="3.10.4")["fast"].filename == "fast-1.0-cp310-abi3-manylinux_2_28_x86_64.whl"


def test_a_private_wheel_brings_its_dependencies(world: World) -> None:
    wheelhouse.add_wheel(world.links, "dep", "1.0")
    wheelhouse.add_wheel(world.links, "dep", "2.0")
    wheelhouse.add_wheel(world.links, "my-lib", "9.0")
    path = wheelhouse.add_wheel(world.folder / "odd name #1 ${HOME}", "my-lib", "0.1+local.1", requires=["dep<2"])
    private = wheelhouse.private_wheel(path)
    locked = world.solve("my-lib", wheels=(private,))
    assert locked["my-lib"] == LockedWheel(
        "my-lib", "0.1+local.1", path.name, private.sha256, private.size, private=True
    )
    assert locked["dep"].version == "1.0"


def test_a_private_wheel_that_conda_has_too_is_refused(world: World) -> None:
    private = wheelhouse.private_wheel(wheelhouse.add_wheel(world.folder, "mylib"))
    with pytest.raises(InputError, match="also a Conda package"):
        world.solve(wheels=(private,), provided={"mylib": "2.0"})


def test_a_source_distribution_is_built_and_its_dependencies_count(world: World) -> None:
    sdist = wheelhouse.add_sdist(world.links, "slow", "1.0")
    wheelhouse.add_wheel(world.links, "slow", "1.0", tag="cp311-cp311-win_amd64")
    wheelhouse.add_wheel(world.links, "user", requires=["slow"])
    wheelhouse.add_wheel(world.links, "dep", "3.0")
    world.build = lambda _: wheelhouse.add_wheel(
        world.folder / "built", "slow", tag="cp311-cp311-linux_x86_64", requires=["dep"]
    )
    locked = world.solve("user")
    assert versions(locked) == {"user": "1.0", "slow": "1.0", "dep": "3.0"}
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    assert world.built == [Sdist("slow", "1.0", sdist.as_uri(), digest, sdist.stat().st_size)]
    built = world.folder / "built" / "slow-1.0-cp311-cp311-linux_x86_64.whl"
    assert locked["slow"] == LockedWheel(
        "slow",
        "1.0",
        built.name,
        hashlib.sha256(built.read_bytes()).hexdigest(),
        built.stat().st_size,
        sdist_url=sdist.as_uri(),
        sdist_sha256=digest,
        sdist_size=sdist.stat().st_size,
        build_requires=("backend==1.0",),
    )


def test_several_source_distributions_that_need_each_other(world: World) -> None:
    wheelhouse.add_sdist(world.links, "one")
    wheelhouse.add_sdist(world.links, "two")
    needs = {"one": ["two"], "two": []}
    world.build = lambda sdist: wheelhouse.add_wheel(world.folder / "built", sdist.name, requires=needs[sdist.name])
    assert versions(world.solve("one")) == {"one": "1.0", "two": "1.0"}


def test_an_older_wheel_is_taken_before_a_newer_source_distribution(world: World) -> None:
    wheelhouse.add_wheel(world.links, "a", "1.0")
    wheelhouse.add_sdist(world.links, "a", "2.0")
    wheelhouse.add_sdist(world.links, "b", "1.0")
    world.build = lambda sdist: wheelhouse.add_wheel(world.folder / "built", sdist.name)
    assert versions(world.solve("a", "b")) == {"a": "1.0", "b": "1.0"}
    assert [sdist.name for sdist in world.built] == ["b"]


def test_no_code_of_a_source_distribution_runs_here(world: World) -> None:
    marker = world.folder / "RAN"
    code = f"open({str(marker)!r}, 'w').write('x')\n"
    files = {"backend.py": code, "setup.py": code}
    wheelhouse.add_sdist(world.links, "evil", files=files)
    found = resolve(world.request("evil"), cache=world.cache, probed=())
    assert found.wants_build == "evil"
    found = resolve(world.request("evil"), cache=world.cache, probed={"evil"})
    assert [package["name"] for package in found.packages] == ["evil"]
    assert not marker.exists()


def test_a_conflict_is_not_mistaken_for_a_lack_of_wheels(world: World) -> None:
    wheelhouse.add_wheel(world.links, "a", requires=["c<2"])
    wheelhouse.add_wheel(world.links, "b", requires=["c>=2"])
    wheelhouse.add_wheel(world.links, "c", "1.0")
    wheelhouse.add_wheel(world.links, "c", "2.0")
    with pytest.raises(UnsolvableError) as caught:
        world.solve("a", "b")
    assert "incompatible" in caught.value.what
    assert "cause:" not in caught.value.what
    assert world.built == []


def test_a_repository_is_refused_with_its_line(world: World, tmp_path: Path) -> None:
    with pytest.raises(HimlError) as caught:
        world.solve("thing @ git+file:///nowhere/thing.git")
    assert caught.value.where.startswith("env.yml")


def test_a_stray_configuration_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1.0", "2.0"):
        wheelhouse.add_wheel(world.links, "a", version)
    (world.folder / "uv.toml").write_text('resolution = "lowest"\n')
    home = world.folder / "home" / ".config" / "uv"
    home.mkdir(parents=True)
    (home / "uv.toml").write_text('resolution = "lowest"\nno-index = true\n')
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("UV_RESOLUTION", "lowest")
    monkeypatch.setenv("UV_CONSTRAINT", "/nonexistent")
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    assert versions(world.solve("a")) == {"a": "2.0"}


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        server.seen.append((self.path, self.headers.get("Authorization", "")))  # type: ignore[attr-defined]
        if server.needs_login and not self.headers.get("Authorization"):  # type: ignore[attr-defined]
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ThreadingHTTPServer]]:
    monkeypatch.delenv("UV_OFFLINE")
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path, *, needs_login: bool = False) -> ThreadingHTTPServer:
        for package in folder.iterdir():
            if package.is_dir():
                links = "".join(f"<a href='{file.name}'>{file.name}</a>" for file in package.glob("*.whl"))
                (package / "index.html").write_text(links)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        server.seen = []  # type: ignore[attr-defined]
        server.needs_login = needs_login  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _address(server: ThreadingHTTPServer, login: str = "") -> str:
    return f"http://{login}127.0.0.1:{server.server_address[1]}"


def test_the_private_index_is_searched_first_and_its_password_goes_nowhere_else(
    world: World, serve: Callable[..., ThreadingHTTPServer]
) -> None:
    wheelhouse.add_wheel(world.folder / "private" / "mine", "mine", "1.0", requires=["common"])
    wheelhouse.add_wheel(world.folder / "public" / "mine", "mine", "99.0")
    wheelhouse.add_wheel(world.folder / "public" / "common", "common")
    private, public = serve(world.folder / "private", needs_login=True), serve(world.folder / "public")
    indexes = PipIndexes(private=(_address(private, "user:s3cr%40t@"),), index=_address(public))
    locked = world.solve("mine", indexes=indexes)
    assert versions(locked) == {"mine": "1.0", "common": "1.0"}
    assert locked["mine"].url == f"{_address(private)}/mine/mine-1.0-py3-none-any.whl"
    assert len(locked["mine"].sha256) == 64
    assert not any(header for _, header in public.seen)  # type: ignore[attr-defined]


def test_a_refused_login_and_a_silent_index_are_told_without_the_password(
    world: World, serve: Callable[..., ThreadingHTTPServer]
) -> None:
    (world.folder / "private").mkdir()
    server = serve(world.folder / "private", needs_login=True)
    with pytest.raises((ArtifactError, UnsolvableError)) as refused:
        world.solve("mine", indexes=PipIndexes(index=_address(server)))
    assert "netrc" in refused.value.hint or "401" in str(refused.value)


def test_an_index_that_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(ArtifactError) as caught:
        world.solve("mine", indexes=PipIndexes(index="http://user:s3cret@127.0.0.1:9/simple"))
    assert "127.0.0.1:9" in caught.value.what
    assert "s3cret" not in str(caught.value)


def test_the_target_platform_is_one_that_uv_knows() -> None:
    assert python_platform("linux-64", "2.28") == "x86_64-manylinux_2_28"
    assert python_platform("linux-aarch64", "2.30") == "aarch64-manylinux_2_28"
    assert python_platform("linux-64", "2.41") == "x86_64-manylinux_2_40"
    assert python_platform("linux-64", "2.12") == "x86_64-manylinux_2_17"


@pytest.mark.network
def test_a_real_index(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_OFFLINE")
    locked = world.solve("requests>=2.28", "markupsafe", provided={"idna": "3.4"}, indexes=PipIndexes())
    assert {"requests", "urllib3", "certifi", "charset-normalizer", "markupsafe"} == set(locked)
    assert all(wheel.size > 0 and len(wheel.sha256) == 64 for wheel in locked.values())
    assert all(wheel.url.startswith("https://") for wheel in locked.values())
    assert "cp311-cp311-manylinux" in locked["markupsafe"].filename
    assert "x86_64" in locked["markupsafe"].filename
