"""``emulator.toml``."""

from __future__ import annotations

from pathlib import Path

import pytest

from himl_container.emulator.config import EmulatorConfig, load_config
from himl_container.errors import InputError


def test_nothing_decided(tmp_path: Path) -> None:
    config = load_config(tmp_path / "emulator.toml")
    assert config == EmulatorConfig()
    assert {cluster.priority for cluster in config.clusters} == {"dedicated", "lowpriority"}


def test_all_fields(tmp_path: Path) -> None:
    path = tmp_path / "emulator.toml"
    path.write_text(
        'workspace = "ours"\nresource-group = "a.group"\ntoken-lifetime = 60\njob-token-lifetime = 90.5\n'
        'allow-hosts = ["PyPI.org", "*.example.com"]\nazurite = "/opt/azurite"\nregistry = "registry"\n'
        '[clusters.big]\nmax-nodes = 7\nvm-size = "STANDARD_NC6"\n'
    )
    config = load_config(path)
    assert (config.workspace, config.resource_group) == ("ours", "a.group")
    assert (config.token_lifetime, config.job_token_lifetime) == (60, 90.5)
    assert config.allow_hosts == ("pypi.org", "*.example.com")
    assert (config.azurite, config.registry) == ("/opt/azurite", "registry")
    assert [(cluster.name, cluster.max_nodes) for cluster in config.clusters] == [("big", 7)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workspace = ", "not TOML"),
        ('workspace = "a b"', "workspace"),
        ("workspace = 3", "workspace"),
        ('resource-group = "ends."', "resource-group"),
        ("token-lifetime = 0", "token-lifetime"),
        ("token-lifetime = true", "token-lifetime"),
        ("token-lifetime = nan", "token-lifetime"),
        ('allow-hosts = "pypi.org"', "allow-hosts"),
        ('allow-hosts = ["http://pypi.org"]', "allow-hosts"),
        ('allow-hosts = ["*"]', "allow-hosts"),
        ("colour = 1", "there is no such field"),
        ("clusters = []", "clusters"),
        ("[clusters.x]\nmax-nodes = 0", "clusters"),
    ],
)
def test_wrong_values(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "emulator.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert said in str(caught.value)
    assert "emulator.toml" in str(caught.value)


def test_not_readable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        load_config(tmp_path)


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "emulator.toml"
    path.write_bytes(b'workspace = "\xff"')
    with pytest.raises(InputError, match="not TOML"):
        load_config(path)
