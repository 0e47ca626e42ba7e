"""The user and password of the environment belong to the registry of the project's settings."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from unit.registry.token_answers import place

from himl_container.cli.options import environment_options
from himl_container.registry.credentials import Credentials, LoginChain
from himl_container.settings import Settings


@click.command()
@environment_options
def command(settings: Settings) -> None:
    """Say for which of three registries the environment has a login."""
    for host in ("team.azurecr.io", "other.azurecr.io", "mcr.microsoft.com"):
        chain = LoginChain(Credentials.of(os.environ, workspace=[]), place(host))
        if chain.best() is not None:
            click.echo(host)


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        ([], {}, ["team.azurecr.io"]),
        (["--registry", "other.azurecr.io"], {}, ["other.azurecr.io"]),
        (["--image-name", "mcr.microsoft.com/x"], {}, ["mcr.microsoft.com"]),
        ([], {"HIML_CONTAINER_REGISTRY_HOST": "other.azurecr.io"}, ["other.azurecr.io"]),
        ([], {"HIML_CONTAINER_REGISTRY": "other.azurecr.io/x"}, ["other.azurecr.io"]),
        ([], {"HIML_CONTAINER_REGISTRY_USER": "", "HIML_CONTAINER_REGISTRY_PASSWORD": ""}, []),
    ],
)
def test_whose_login_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    variables: dict[str, str],
    expected: list[str],
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.himl-container]\nregistry = "team.azurecr.io/himl"\n')
    monkeypatch.chdir(tmp_path)
    given = {"HIML_CONTAINER_REGISTRY_USER": "ada", "HIML_CONTAINER_REGISTRY_PASSWORD": "secret", **variables}
    environ = {"HOME": str(tmp_path), "HIML_CONTAINER_REGISTRY_HOST": None, "DOCKER_CONFIG": None, **given}
    done = CliRunner().invoke(command, arguments, env=environ, catch_exceptions=False)
    assert done.output.split() == expected
