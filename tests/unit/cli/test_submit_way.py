"""Which workspace ``submit`` goes to, by flags and settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from himl_container.azureml.reach import Way
from himl_container.cli.submit import command
from himl_container.errors import InputError

NAMES = ("a", "b", "c")


class Reached(Exception):  # noqa: N818
    """What a submission would have done. :param way: where it would have gone."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self.way = way


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a script, an environment, and a file that names a workspace."""

    def submit(plan: Any, way: Way, **_: Any) -> None:
        raise Reached(way)

    monkeypatch.setattr("himl_container.azureml.submit.submit", submit)
    monkeypatch.setattr("himl_container.azureml.submit.quieten", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    (tmp_path / "environment.yml").write_text("dependencies: [python=3.11]\n")
    (tmp_path / "ours.json").write_text(
        json.dumps(dict(zip(("subscription_id", "resource_group", "workspace_name"), NAMES, strict=True)))
    )
    return tmp_path


def way(project: Path, settings: str, *flags: str) -> Way:
    (project / "pyproject.toml").write_text(f'[tool.himl-container.run]\ncluster = "c"\n{settings}\n')
    done = CliRunner().invoke(command, ["--azureml", *flags, "train.py"], standalone_mode=False)
    if isinstance(done.exception, Reached):
        return done.exception.way
    assert done.exception is not None
    raise done.exception


FILE, EMULATOR = 'workspace-config = "ours.json"', "emulator = true"


@pytest.mark.parametrize(
    ("settings", "flags", "emulator"),
    [
        (FILE, (), False),
        (EMULATOR, (), True),
        (FILE, ("--emulator",), True),
        (EMULATOR, ("--workspace-config", "ours.json"), False),
        (f"{FILE}\n{EMULATOR}", ("--emulator",), True),
    ],
)
def test_a_flag_replaces_the_settings(project: Path, settings: str, flags: tuple[str, ...], emulator: bool) -> None:
    found = way(project, settings, *flags)
    assert found.emulator is emulator
    assert (tuple(found.names) if found.names else None) == (None if emulator else NAMES)


@pytest.mark.parametrize(
    ("settings", "flags"), [(f"{FILE}\n{EMULATOR}", ()), ("", ("--emulator", "--workspace-config", "ours.json"))]
)
def test_two_workspaces(project: Path, settings: str, flags: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="name two workspaces"):
        way(project, settings, *flags)
