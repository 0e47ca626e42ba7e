"""``himl-container lock`` as a user types it, where neither a daemon nor a solver is needed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from environment import locks

from himl_container.cli.lock import command
from himl_container.environment.lockfile import read_lock, write_lock
from himl_container.errors import HimlError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    monkeypatch.setenv("HIML_CONTAINER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def environment(project: Path, *conda: str, pip: tuple[str, ...] = ()) -> None:
    lines = ["name: t", "channels: [conda-forge]", "dependencies:", *(f"  - {text}" for text in conda)]
    lines += ["  - pip:", *(f"      - {text}" for text in pip)] if pip else []
    (project / "environment.yml").write_text("\n".join(lines) + "\n")


def lock_of_today(project: Path, **more: object) -> Path:
    """Write a lock that is current for the project, as if it had been solved."""
    from himl_container.environment.declare import load_environment
    from himl_container.environment.lock import declared_by
    from himl_container.settings import load_settings

    settings = load_settings({}, cwd=project, environ={"HIML_CONTAINER_CACHE_DIR": str(project / "cache")})
    declared = declared_by(load_environment(settings), settings)
    write_lock(locks.lock(declared=declared, **more), settings.lock_file)
    return settings.lock_file


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments), standalone_mode=False)


def test_check_tells_whether_and_why_not(project: Path) -> None:
    environment(project, "python=3.11", "zlib")
    assert run("--check").return_value == 67
    lock_of_today(project)
    current = run("--check")
    assert (current.return_value, current.exception) == (0, None)
    assert "is current" in current.output
    environment(project, "python=3.11", "zlib >=1.3")
    stale = run("--check")
    assert stale.return_value == 67
    assert "Conda package changed: zlib -> zlib >=1.3" in stale.output
    machine = run("--check", "--json")
    result = json.loads(machine.output.splitlines()[-1])
    assert result["current"] is False
    assert len(result["reasons"]) == 1


def test_a_comment_does_not_make_a_lock_stale(project: Path) -> None:
    environment(project, "python=3.11")
    lock_of_today(project)
    path = project / "environment.yml"
    path.write_text("# a remark\n" + path.read_text().replace("python=3.11", "python=3.11  # pinned"))
    assert run("--check").return_value == 0


def test_an_unchanged_lock_is_left_alone_without_a_daemon(project: Path) -> None:
    environment(project, "python=3.11")
    path = lock_of_today(project)
    before = path.stat().st_mtime_ns
    done = run()
    assert (done.return_value, done.exception) == (0, None)
    assert "is current" in done.output
    assert path.stat().st_mtime_ns == before


def test_a_big_environment_is_locked_again_in_two_seconds(project: Path) -> None:
    """The whole command; the process's own start is measured by the benchmarks."""
    environment(project, *(f"pkg{n:03}" for n in range(300)), pip=tuple(f"wheel{n:03}>=1" for n in range(150)))
    lock_of_today(project, conda_count=300, wheel_count=150)
    for arguments, limit in (((), 2.0), (("--check",), 1.0)):
        times = []
        for _ in range(3):
            began = time.perf_counter()
            assert run(*arguments).return_value == 0
            times.append(time.perf_counter() - began)
        assert min(times) < limit


def test_the_conda_part_is_exported(project: Path) -> None:
    environment(project, "python=3.11")
    path = lock_of_today(project)
    assert run("--export", "list.txt").return_value == 0
    lines = (project / "list.txt").read_text().splitlines()
    record = read_lock(path).conda[0]
    assert lines[-2:] == ["@EXPLICIT", f"{record.url}#{record.sha256}"]
    assert run("--export", "-").output.splitlines()[-1] == lines[-1]


def test_a_damaged_lock_is_an_error_with_its_place(project: Path) -> None:
    environment(project, "python=3.11")
    path = lock_of_today(project)
    path.write_text(path.read_text() + "\n[[")
    for arguments in ((), ("--check",)):
        error = run(*arguments).exception
        assert isinstance(error, HimlError)
        assert error.exit_code == 65
        assert error.where.startswith(f"{path}:")


@pytest.mark.parametrize(
    "arguments",
    [
        ("zlib",),
        ("--check", "--upgrade"),
        ("--check", "--diff"),
        ("--check", "--dry-run"),
        ("--dry-run", "--export", "x"),
    ],
)
def test_options_that_do_not_go_together(project: Path, arguments: tuple[str, ...]) -> None:
    environment(project, "python=3.11")
    assert isinstance(run(*arguments).exception, click.UsageError)


def test_upgrading_what_is_not_there_is_an_error(project: Path) -> None:
    environment(project, "python=3.11")
    lock_of_today(project)
    error = run("--upgrade", "nosuch").exception
    assert isinstance(error, HimlError)
    assert "nosuch" in error.what
