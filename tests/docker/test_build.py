"""From files to a tested image, by the command line, on the real daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import kit
import pytest
from docker.errors import ImageNotFound
from image_listing import listing

pytestmark = pytest.mark.docker

PACKAGES = ("python =3.11", "tinytool", "meta")


@pytest.fixture
def cache_dir(warm_cache_dir: Path) -> Path:
    return warm_cache_dir


@pytest.fixture
def client() -> docker.DockerClient:
    return docker.from_env(timeout=300)


def built(run_cli: kit.Cli, *arguments: str, **options: object) -> dict[str, object]:
    """Run ``build`` and return its result."""
    done = run_cli("build", "--json", *arguments, **options)  # type: ignore[arg-type]
    return next(event for line in done.stdout.splitlines() if (event := json.loads(line))["event"] == "result")


def test_environment_file_becomes_a_tagged_image_and_is_found_the_second_time(
    run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient
) -> None:
    project.environment(*PACKAGES)
    first = built(run_cli)
    assert first["built"]
    image = client.images.get(str(first["tag"]))
    assert image.id == first["id"]
    assert image.labels["himl.fingerprint"] == first["fingerprint"]
    output = client.containers.run(image.id, ["tinytool"], remove=True)
    assert b"tinytool with tinylib" in output
    second = built(run_cli)
    assert (second["built"], second["id"]) == (False, first["id"])


def test_plain_docker_build_of_the_rendered_context_gives_the_same_file_system(
    run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient, image_name: str
) -> None:
    project.environment(*PACKAGES, "activation", "clash-a", "clash-b", "links", "long-paths")
    ours = built(run_cli)
    run_cli("render", "--output", "context")
    plain = f"{image_name}:plain"
    subprocess.run(["docker", "build", "-q", "-t", plain, str(project.path / "context")], check=True)
    expected = listing(str(ours["tag"]))
    assert len(expected) > 1000
    assert listing(plain) == expected
    ours_config, plain_config = (client.api.inspect_image(str(name))["Config"] for name in (ours["tag"], plain))
    for key in ("Env", "Cmd", "Entrypoint", "Labels", "WorkingDir", "User"):
        assert (ours_config.get(key) or None) == (plain_config.get(key) or None), key


def test_builder_docker_gives_the_same_file_system_under_the_same_tag(
    run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient
) -> None:
    project.environment(*PACKAGES, "links")
    ours = built(run_cli)
    expected = listing(str(ours["tag"]))
    client.images.remove(str(ours["tag"]), force=True)
    theirs = built(run_cli, "--builder", "docker")
    assert theirs["built"]
    assert theirs["tag"] == ours["tag"]
    assert listing(str(theirs["tag"])) == expected


def test_same_lock_gives_the_same_layers_and_image_elsewhere(
    run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient, tmp_path: Path
) -> None:
    project.environment(*PACKAGES, "activation", "clash-a", "clash-b")
    first = built(run_cli)
    client.images.remove(str(first["tag"]), force=True)
    other = tmp_path / "an other folder"
    shutil.copytree(project.path, other)
    cold = {
        "HIML_CONTAINER_CACHE_DIR": str(tmp_path / "cold"),
        "RATTLER_CACHE_DIR": str(tmp_path / "rattler"),
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "C",
        "HOME": str(tmp_path),
        "PYTHONHASHSEED": "7",
    }
    before = os.umask(0o077)
    try:
        second = built(run_cli, "--locked", cwd=other, environ=cold)
    finally:
        os.umask(before)
    assert second["built"]
    assert second["layers"] == first["layers"]
    assert second["id"] == first["id"]


def test_one_changed_package_changes_one_layer_and_the_generated_one(
    run_cli: kit.Cli, project: kit.ProjectFolder
) -> None:
    project.environment("python =3.11", "tinylib =1.0", "prefix-text")
    first = built(run_cli)
    project.environment("python =3.11", "tinylib =1.1", "prefix-text")
    second = built(run_cli)
    changed = [new["name"] for old, new in zip(first["layers"], second["layers"], strict=True) if old != new]  # type: ignore[call-overload]
    assert len(changed) == 2
    assert "himl" in changed


def test_failing_test_keeps_the_image_under_another_name(
    run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient, image_name: str
) -> None:
    project.environment("python =3.11")
    project.write("pyproject.toml", "[tool.himl-container]\ntest = [\"python -c 'import nothing_of_this_name'\"]\n")
    done = run_cli("build", expect=72)
    assert "nothing_of_this_name" in done.stderr
    (kept,) = kit.image_names(client, image_name)
    assert kept.startswith(f"{image_name}:failed-")
    assert kept in done.stderr
    run_cli("build", expect=72)
    assert kit.image_names(client, image_name) == [kept]


def test_locked_refuses_a_stale_lock_and_says_why(run_cli: kit.Cli, project: kit.ProjectFolder) -> None:
    project.environment("python =3.11")
    assert "pylock.himl.toml" in run_cli("build", "--locked", expect=67).stderr
    run_cli("lock")
    project.environment("python =3.11", "tinylib")
    assert "tinylib" in run_cli("build", "--locked", expect=67).stderr


def test_two_builds_at_once_end_with_one_image(run_cli: kit.Cli, project: kit.ProjectFolder, tmp_path: Path) -> None:
    project.environment("python =3.11", "meta")
    run_cli("lock")
    environ = {"HIML_CONTAINER_CACHE_DIR": str(tmp_path / "own")}
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: built(run_cli, environ=environ), range(2)))
    assert sorted(result["built"] for result in results) == [False, True]  # type: ignore[type-var]
    assert results[0]["id"] == results[1]["id"]


@pytest.mark.parametrize("after", [0.1, 0.7, 1.7, 3.7])
def test_interrupt_leaves_no_half_made_image_and_the_next_build_succeeds(
    run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient, tmp_path: Path, after: float
) -> None:
    project.environment(*PACKAGES)
    environ = {**run_cli.environ, "HIML_CONTAINER_CACHE_DIR": str(tmp_path / "own")}
    process = subprocess.Popen(
        [kit.COMMAND, "build"], cwd=project.path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    # Counted from its first sign of life: an interpreter that still imports us ends with a traceback of its own.
    until = time.monotonic() + 120
    while not (tmp_path / "own").exists() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0].decode()
    if process.returncode:
        assert process.returncode == 130, output
        assert "Traceback" not in output
        assert not list((tmp_path / "own" / "tmp").glob("*"))
        assert not list((tmp_path / "own" / "memo" / "candidates").glob("*")), "the untested image's name is left"
    named = {client.images.get(name).id for name in kit.image_names(client, environ["HIML_CONTAINER_IMAGE_NAME"])}
    image = built(run_cli, environ={"HIML_CONTAINER_CACHE_DIR": str(tmp_path / "own")})["id"]
    assert named <= {image}, "only a whole and tested image has the name"


def test_kill_leaves_nothing_that_the_next_build_trips_over(
    run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient, tmp_path: Path
) -> None:
    project.environment(*PACKAGES)
    environ = {**run_cli.environ, "HIML_CONTAINER_CACHE_DIR": str(tmp_path / "own")}
    process = subprocess.Popen([kit.COMMAND, "build"], cwd=project.path, env=environ, stderr=subprocess.DEVNULL)
    blobs = tmp_path / "own" / "blobs" / "sha256"
    deadline = time.monotonic() + 60
    while not list(blobs.glob("*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)  # the moment to meet: a first layer is there, others are not
    process.kill()
    process.wait()
    result = built(run_cli, environ={"HIML_CONTAINER_CACHE_DIR": str(tmp_path / "own")})
    assert client.images.get(str(result["tag"])).id == result["id"]


def test_hostile_variables_reach_the_image_as_they_are(
    run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient
) -> None:
    values = {
        "QUOTES": "'\"`",
        "SHELL_CODE": "$(touch /tmp/hacked) ${HOME} \\",
        "COMMENT": "a # b",
        "WORDS": "größe 模型",
    }
    path = project.environment("python =3.11")
    lines = [f"  {name}: {json.dumps(value)}" for name, value in values.items()]
    path.write_text(path.read_text() + "variables:\n" + "\n".join(lines) + "\n")
    for builder in ("assemble", "docker"):
        tag = str(built(run_cli, "--builder", builder)["tag"])
        script = f"import os, json; print(json.dumps({{k: os.environ[k] for k in {list(values)}}}))"
        assert json.loads(client.containers.run(tag, ["python", "-c", script], remove=True)) == values
        client.images.remove(tag, force=True)


def test_system_part_is_below_the_environment(
    run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient
) -> None:
    project.environment("python =3.11")
    lines = '["ENV FROM_SYSTEM=yes", "RUN echo built > /etc/system-part"]'
    project.write("pyproject.toml", f"[tool.himl-container]\nsystem-lines = {lines}\n")
    tag = str(built(run_cli)["tag"])
    assert (
        client.containers.run(tag, ["sh", "-c", "cat /etc/system-part; echo $FROM_SYSTEM"], remove=True)
        == b"built\nyes\n"
    )


def test_failing_system_line_is_told_and_nothing_is_tagged(
    run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient, image_name: str
) -> None:
    project.environment("python =3.11")
    project.write("pyproject.toml", '[tool.himl-container]\nsystem-lines = ["RUN echo what went wrong; exit 9"]\n')
    assert "what went wrong" in run_cli("build", expect=71).stderr
    assert not kit.image_names(client, image_name)


def test_without_a_daemon_the_error_says_how_to_start_one(
    run_cli: kit.Cli, project: kit.ProjectFolder, tmp_path: Path
) -> None:
    project.environment("python =3.11")
    done = run_cli("build", environ={"DOCKER_HOST": f"unix://{tmp_path / 'none.sock'}"}, expect=69)
    assert "none.sock" in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run_changes_nothing(run_cli: kit.Cli, project: kit.ProjectFolder, client: docker.DockerClient) -> None:
    project.environment("python =3.11", "tinylib")
    done = run_cli("build", "--dry-run")
    assert "tinylib" in done.stdout
    assert not (project.path / "pylock.himl.toml").exists()
    result = json.loads(run_cli("build", "--dry-run", "--json").stdout.splitlines()[-1])
    with pytest.raises(ImageNotFound):
        client.images.get(result["tag"])
