"""Faults that need no engine, by the command line: what is told, the exit code, and that nothing half-made is left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import kit
import pytest
from unit.environment.wheelhouse import add_wheel
from unit.environment.wheels import write_wheel

from himl_container.cli import main

HEAD = "channels: [conda-forge]\ndependencies:\n"


@dataclass(frozen=True)
class Here:
    """The command line in this process: the many calls below would otherwise wait for Python to start."""

    cwd: Path
    cache: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path, expect: int | None = None) -> tuple[int, str, str]:
        """Return the exit code, standard output and standard error."""
        code = main.run([str(argument) for argument in arguments])
        out, err = self.capture.readouterr()
        assert expect is None or code == expect, f"exit code {code}, not {expect}: {arguments}\n{out}\n{err}"
        assert "Traceback" not in err
        assert not list((self.cache / "tmp").glob("*")), "work in progress was left"
        return code, out, err

    def fails(self, *arguments: str | Path, code: int, says: tuple[str, ...], option_at: int = 1) -> None:
        """Run what has to fail, for people and for machines, and look at what it tells and leaves."""
        before = state(self.cwd)
        _, _, err = self(*arguments, expect=code)
        for text in says:
            assert text in err
        lines = err[err.index("error: ") :].splitlines()
        assert any(line.startswith("  ") and line.strip() for line in lines[1:]), f"no next step: {err}"
        _, out, _ = self(*arguments[:option_at], "--json", *arguments[option_at:], expect=code)
        event = json.loads(out.splitlines()[-1])
        assert (event["event"], event["exit_code"]) == ("error", code)
        assert event["hint"]
        assert state(self.cwd) == before


@pytest.fixture
def cli(
    project: kit.ProjectFolder,
    channel: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Here:
    """The command in the project, where no engine answers and no package index is reached."""
    cache = tmp_path / "cache"
    variables = {
        "DOCKER_HOST": f"unix://{tmp_path}/no.sock",
        "UV_OFFLINE": "1",
        "HIML_CONTAINER_CACHE_DIR": str(cache),
        "HIML_CONTAINER_CHANNEL_MIRRORS": f"conda-forge={channel.as_uri()}",
        # Pinned by its name, so that a lock needs no engine.
        "HIML_CONTAINER_BASE_IMAGE": f"example.com/base@sha256:{'0' * 64}",
    }
    wanted = kit.clean_environ(**variables)
    for name in set(os.environ) - set(wanted):
        if not name.startswith("PYTEST_"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(project.path)
    return Here(project.path, cache, capsys)


def state(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", ["lock", "build", "render"])
def test_no_environment_file(cli: Here, command: str) -> None:
    cli.fails(command, code=65, says=("environment.yml",))


@pytest.mark.parametrize("command", ["lock", "build", "render"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: x\ndependencies: [python\nchannels: {", "environment.yml:3"),
        ("\tname: x\n", "environment.yml:1"),
        ("- python\n- numpy\n", "environment.yml:1"),
        ("name: x\ndependencies:\n  python: 3.11\n", "environment.yml:3"),
        (f"{HEAD}  - python =3.11\n  - pip:\n      tinylib: 1\n", "environment.yml:"),
        (f"{HEAD}  - python =3.11\nvariables:\n  - A=B\n", "environment.yml:"),
        ("\0\1\2", "environment.yml"),
    ],
)
def test_what_is_not_an_environment(cli: Here, project: kit.ProjectFolder, command: str, text: str, says: str) -> None:
    project.write("environment.yml", text)
    cli.fails(command, code=65, says=(says,))


def test_conda_packages_that_cannot_be_installed_together(cli: Here, project: kit.ProjectFolder) -> None:
    project.environment("python =3.11", "tinyold", "tinynew")
    cli.fails("lock", code=66, says=("environment.yml", "tinyold", "tinynew", "tinylib"))


def test_pip_packages_that_cannot_be_installed_together(cli: Here, project: kit.ProjectFolder, tmp_path: Path) -> None:
    links = tmp_path / "links"
    add_wheel(links, "older", requires=["shared<2"])
    add_wheel(links, "newer", requires=["shared>=2"])
    add_wheel(links, "shared", "1.0")
    add_wheel(links, "shared", "2.0")
    project.environment("python =3.11", pip=[f"--find-links {links.as_uri()}", "older", "newer"])
    cli.fails("lock", code=66, says=("environment.yml", "older", "newer", "shared"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mylib-1.0-cp311-cp311-win_amd64.whl", "win_amd64"),
        ("mylib-1.0-cp311-cp311-macosx_11_0_arm64.whl", "macosx_11_0_arm64"),
        ("mylib-1.0-cp311-cp311-manylinux_2_99_x86_64.whl", "manylinux_2_99"),
        ("mylib-1.0-cp39-cp39-manylinux_2_17_x86_64.whl", "cp39"),
    ],
)
def test_a_wheel_for_another_platform_or_python(cli: Here, project: kit.ProjectFolder, name: str, says: str) -> None:
    project.environment("python =3.11")
    tag = name.removesuffix(".whl").split("-", 2)[2]
    path = add_wheel(project.path, "mylib", tag=tag)
    assert path.name == name
    cli.fails("lock", "--wheel", path, code=65, says=(name, says))


@pytest.mark.parametrize("entry", ["../outside.py", "/etc/outside.py", "mylib/../../outside.py", "..\\outside.py"])
def test_a_wheel_that_reaches_outside(cli: Here, project: kit.ProjectFolder, tmp_path: Path, entry: str) -> None:
    project.environment("python =3.11")
    path = write_wheel(project.path / "mylib-1.0-py3-none-any.whl", entries={entry: b"here\n"})
    cli.fails("lock", "--wheel", path, code=65, says=(path.name, "outside.py"))
    assert not [*tmp_path.rglob("outside.py"), *Path("/etc").glob("outside.py")]


@pytest.mark.parametrize("command", [("lock",), ("build",), ("run", "--local", "main.py")])
def test_no_daemon(
    cli: Here, project: kit.ProjectFolder, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HIML_CONTAINER_BASE_IMAGE", "example.com/base:1")
    project.environment("python =3.11")
    project.write("main.py", "")
    cli.fails(*command, code=69, says=("no.sock", "dockerd"))


def test_a_cache_that_cannot_be_made(cli: Here, project: kit.ProjectFolder, tmp_path: Path) -> None:
    project.environment("python =3.11", pip=["tinylib"])
    (tmp_path / "file").write_text("in the way")
    cache = tmp_path / "file" / "cache"
    cli.fails("lock", "--cache-dir", cache, code=74, says=(str(cache),))


# Each would make the file "canary" in the project folder if any shell, Dockerfile or YAML loader took it at its word.
CODE = [
    "$(touch canary)",
    "`touch canary`",
    "; touch canary #",
    "' ; touch canary ; '",
    '" ; touch canary ; "',
    "x\nRUN touch canary",
    "x\n!touch canary",
    "größe-模型 $(touch canary)",
    "--config-setting=$(touch canary)",
    "| touch canary",
]


def quoted(text: str) -> str:
    """Return a YAML string of any text."""
    return json.dumps(text)


PLACES: dict[str, Callable[[str], str]] = {
    "package": lambda code: f"{HEAD}  - python =3.11\n  - {quoted(code)}\n",
    "version": lambda code: f"{HEAD}  - python =3.11\n  - {quoted('tinylib=' + code)}\n",
    "channel": lambda code: f"channels: [{quoted(code)}]\ndependencies: [python =3.11]\n",
    "channel address": lambda code: f"channels: [{quoted('http://127.0.0.1:9/' + code)}]\ndependencies: [python]\n",
    "pip": lambda code: f"{HEAD}  - python =3.11\n  - pip:\n    - {quoted(code)}\n",
    "pip version": lambda code: f"{HEAD}  - python =3.11\n  - pip:\n    - {quoted('tinylib==' + code)}\n",
    "pip option": lambda code: f"{HEAD}  - python =3.11\n  - pip:\n    - {quoted('--find-links ' + code)}\n",
    "variable": lambda code: f"{HEAD}  - python =3.11\nvariables:\n  {quoted(code)}: x\n",
    "name": lambda code: f"name: {quoted(code)}\n{HEAD}  - python =3.11\n  - no-such-package\n",
}


@pytest.mark.parametrize("place", PLACES)
def test_no_name_in_an_environment_is_executed(cli: Here, project: kit.ProjectFolder, place: str) -> None:
    for code in CODE:
        project.write("environment.yml", PLACES[place](code))
        result, _, err = cli("lock")
        # Wrong (65), unknown (66), or not to be had (68).
        assert result in (65, 66, 68), f"{code!r}: {result}\n{err}"
        assert "error: " in err
        assert list(project.path.rglob("*")) == [project.path / "environment.yml"]


@pytest.mark.parametrize("option", ["--base-image", "--image-name", "--cuda", "--platform", "--pip-index-url",
                                    "--channel-mirror", "--wheel", "--conda-file", "--lock-file"])  # fmt: skip
def test_no_option_is_executed(cli: Here, project: kit.ProjectFolder, option: str) -> None:
    project.environment("python =3.11", "no-such-package")
    for code in CODE[:8:2]:
        result, _, err = cli("lock", option, code)
        assert result in (65, 66, 68), f"{code!r}: {result}\n{err}"
        assert list(project.path.rglob("*")) == [project.path / "environment.yml"]


@pytest.mark.parametrize(
    "name", ["$(touch canary).yml", "`touch canary`.yml", "a'b\"c #.yml", "größe 模型.yml", "a\nb.yml"]
)
def test_an_environment_file_may_have_any_name(cli: Here, project: kit.ProjectFolder, name: str) -> None:
    project.environment("python =3.11", "tinyold", "tinynew", name=name)
    result, _, err = cli("lock", "--conda-file", name)
    assert result in (65, 66), err
    assert not list(project.path.rglob("canary"))


def test_what_a_file_says_forges_no_message(cli: Here, project: kit.ProjectFolder) -> None:
    project.write("environment.yml", f"{HEAD}  - {quoted('x' + chr(10) + 'error: forged' + chr(27) + '[2J')}\n")
    _, _, err = cli("lock", expect=65)
    assert not [line for line in err.splitlines() if line.startswith("error: forged")]
    assert chr(27) not in err
