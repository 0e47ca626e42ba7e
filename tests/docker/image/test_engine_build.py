"""Executing Dockerfiles, with BuildKit and without."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import engines
import pytest
from tiny_images import Place

from himl_container.cache import Cache
from himl_container.errors import BuildError, EngineError
from himl_container.image.docker_engine import DockerEngine
from himl_container.image.model import SystemPlan
from himl_container.image.system import ensure_system
from himl_container.progress import SilentReporter

pytestmark = pytest.mark.docker


@dataclass
class Listening(SilentReporter):
    """A reporter that remembers what steps were busy with."""

    notes: list[str] = field(default_factory=list)

    def step(self, verb: str, subject: str = "", *, total: int | None = None, unit: str = "items"):  # type: ignore[no-untyped-def]
        task = super().step(verb, subject, total=total, unit=unit)
        task.note = self.notes.append  # type: ignore[method-assign]
        return task


@pytest.fixture(params=["engine api", pytest.param("buildx", marks=pytest.mark.network)])
def builder(request: pytest.FixtureRequest, machine: Place, tmp_path: Path) -> DockerEngine:
    """The machine's engine, without and with ``docker buildx``."""
    config = tmp_path / "docker-config"
    config.mkdir()
    if request.param == "buildx":
        config = engines.docker_config()
    engine = DockerEngine.connect({**machine.environ, "DOCKER_CONFIG": str(config)})
    if engine.info().buildx != (request.param == "buildx"):
        pytest.skip("buildx is installed for the whole machine")
    return engine


def context(folder: Path, dockerfile: str, **files: str) -> Path:
    path = folder / "context"
    path.mkdir()
    (path / "Dockerfile").write_text(dockerfile)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def test_a_context_becomes_an_image(builder: DockerEngine, machine: Place, base_image: str, tmp_path: Path) -> None:
    folder = context(
        tmp_path,
        f'FROM {base_image}\nARG WORD\nCOPY . /given/\nRUN echo "said $WORD" && echo "$WORD" > /word\n',
        kept="kept",
        dropped="dropped",
    )
    (folder / ".dockerignore").write_text("# what is not sent\ndropped\n")
    (folder / "link").symlink_to("kept")
    (folder / "kept").chmod(0o750)
    said = Listening()
    tag = machine.tag("built")
    image = builder.build(folder, tag=tag, build_args={"WORD": 'it\'s $(id) "x"'}, reporter=said)
    assert tag in image.tags
    assert any("said it's $(id)" in note for note in said.notes)
    listed = builder.run(tag, ["sh", "-c", "cat /word; ls /given; stat -c %a /given/kept; readlink /given/link"])
    assert listed.output.decode().split("\n")[:5] == ['it\'s $(id) "x"', "Dockerfile", "kept", "link", "750"]


def test_a_failing_line_is_shown_with_the_end_of_its_output(
    builder: DockerEngine, machine: Place, base_image: str, tmp_path: Path
) -> None:
    folder = context(tmp_path, f"FROM {base_image}\nRUN echo first\nRUN echo the reason; exit 7\n")
    with pytest.raises(BuildError) as caught:
        builder.build(folder, tag=machine.tag("failed"), reporter=SilentReporter())
    assert "RUN echo the reason; exit 7" in caught.value.where
    assert "the reason" in caught.value.what
    assert "first" not in caught.value.what
    assert builder.inspect(machine.tag("failed")) is None


def test_no_daemon_is_not_a_failing_line(builder: DockerEngine, machine: Place, tmp_path: Path) -> None:
    """The daemon goes away between the connection and the build."""
    from tiny_images import cutting_proxy

    environ = dict(builder._environ)
    folder = context(tmp_path, "FROM scratch\nCOPY Dockerfile /x\n")
    with cutting_proxy(Path(builder.endpoint.socket_path), tmp_path, after=1 << 40) as proxy:
        engine = DockerEngine.connect({**environ, "DOCKER_HOST": f"unix://{proxy}"})
        engine.info()
    proxy.unlink()
    with pytest.raises(EngineError):
        engine.build(folder, tag=machine.tag("gone"), reporter=SilentReporter())


@pytest.mark.network
def test_the_system_part_is_built_once(
    machine: Place, base_image: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine, cache = machine.engine, Cache(tmp_path / "cache")
    base = engine.inspect(base_image)
    assert base is not None
    text = (
        f"FROM {base_image}\nRUN apt-get update -q && apt-get install -q -y --no-install-recommends hello && "
        f"rm -rf /var/lib/apt/lists/*\nENV MARK={machine.name}\n"
    )
    plan = SystemPlan(apt=("hello",))
    said = Listening()
    system = ensure_system(plan, base, text, engine=engine, cache=cache, reporter=said)
    request.addfinalizer(lambda: engine.remove_image(system.tags[0]))
    assert system.tags[0].startswith("himl-system:")
    assert system.diff_ids[: len(base.diff_ids)] == base.diff_ids
    assert any("hello" in note for note in said.notes)
    assert b"Hello, world!" in engine.run(system.id, ["hello"]).output

    again = Listening()
    assert ensure_system(plan, base, text, engine=engine, cache=cache, reporter=again) == system
    assert again.notes == []
    assert ensure_system(SystemPlan(), base, "", engine=engine, cache=cache, reporter=again) == base


@pytest.mark.engine26
@pytest.mark.network
def test_buildx_on_a_current_engine(current_containerd, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    place = Place("26.1 containerd", current_containerd.environ, tmp_path)
    folder = context(tmp_path, "FROM scratch\nCOPY Dockerfile /x\n")
    image = place.engine.build(folder, tag=place.tag("1"), reporter=SilentReporter())
    assert len(image.diff_ids) == 1
    listed = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}}"],
        env=place.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert place.name in listed.stdout
    place.clean()
