from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from himl_container.environment.channels import canonical, canonical_channels, sources, to_mirror
from himl_container.environment.conda_names import provided
from himl_container.environment.declared import declared, differences
from himl_container.environment.model import (
    CondaDependency,
    Declared,
    EnvironmentSpec,
    Origin,
    PipIndexes,
    PipRequirement,
)
from himl_container.environment.virtual_packages import virtual_packages
from himl_container.environment.wheel_tags import best_wheel
from himl_container.settings import Settings

from . import locks

FORGE = "https://conda.anaconda.org/conda-forge"


def spec(
    *conda: str, pip: tuple[str, ...] = (), channels: tuple[str, ...] = ("conda-forge",), **more: object
) -> EnvironmentSpec:
    def name(text: str) -> str:
        return text.split("=")[0]

    return EnvironmentSpec(
        "test",
        channels,
        tuple(CondaDependency(text, name(text), Origin("environment.yml", n)) for n, text in enumerate(conda)),
        tuple(PipRequirement(text, name(text), Origin("environment.yml", n)) for n, text in enumerate(pip)),
        **more,  # type: ignore[arg-type]
    )


def made(environment: EnvironmentSpec, base: str = "ubuntu:22.04", glibc: str = "2.28") -> Declared:
    return declared(environment, base=base, platform="linux-64", virtual_packages=(f"__glibc={glibc}",))


def test_what_cannot_change_the_result_does_not_count() -> None:
    one = made(
        spec(
            "python=3.11",
            "zlib  >=1",
            pip=("Six >=1", "a.b[x]"),
            channels=("https://u:p@h.example/t/tok/c", "conda-forge"),
        )
    )
    two = made(spec("zlib >=1", "python=3.11", pip=("a-b [x]", "six>=1"), channels=("https://h.example/c/", FORGE)))
    assert one == two
    assert differences(one, two) == ()
    assert "tok" not in str(one)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (spec("python=3.11"), spec("python=3.12"), "Conda package changed: python=3.11 -> python=3.12"),
        (spec("a"), spec("a", "b >=1"), "Conda package added: b >=1"),
        (spec("a", "b"), spec("a"), "Conda package removed: b"),
        (spec(pip=("six",)), spec(pip=("six<2",)), "pip requirement changed: six -> six<2"),
        (spec(channels=("a",)), spec(channels=("a", "b")), "channel added: https://conda.anaconda.org/b"),
        (
            spec(channels=("a", "b")),
            spec(channels=("b", "a")),
            "channel order changed: now https://conda.anaconda.org/b, https://conda.anaconda.org/a",
        ),
        (spec(), spec(variables=(("A", "1"),)), "variable added: A=1"),
        (
            spec(),
            spec(indexes=PipIndexes(index="https://u:p@h.example/s")),
            "package index added: index https://h.example/s",
        ),
        (spec("a >=1", "a <2"), spec("a >=1", "a <3"), "Conda package changed: a <2 -> a <3"),
    ],
)
def test_each_difference_is_a_sentence(old: EnvironmentSpec, new: EnvironmentSpec, reason: str) -> None:
    assert differences(made(old), made(new)) == (reason,)


def test_base_platform_and_machine_are_reasons() -> None:
    old, new = made(spec()), made(spec(), base="debian:12", glibc="2.35")
    new = dataclasses.replace(new, platform="linux-aarch64")
    assert differences(old, new) == (
        "the base image was ubuntu:22.04 and is now debian:12",
        "the platform was linux-64 and is now linux-aarch64",
        "virtual package changed: __glibc=2.28 -> __glibc=2.35",
    )


def test_channels_have_canonical_addresses() -> None:
    assert canonical_channels(["conda-forge", "conda-forge/label/dev", "file:///srv/c", "defaults"]) == (
        FORGE,
        f"{FORGE}/label/dev",
        "file:///srv/c",
        "https://repo.anaconda.com/pkgs/main",
        "https://repo.anaconda.com/pkgs/r",
    )
    assert canonical_channels(["/srv/my channel"]) == ("file:///srv/my%20channel",)


def test_a_mirror_is_applied_and_undone() -> None:
    mirrors = (
        ("conda-forge", "https://user:pass@mirror.example/cf"),
        ("conda-forge/label/dev", "file:///srv/dev"),
        ("https://other.example/c", "file:///srv/other"),
    )
    package = "/linux-64/zlib-1.0-0.conda"
    for original, mirrored in (
        (FORGE, "https://user:pass@mirror.example/cf"),
        (f"{FORGE}/label/dev", "file:///srv/dev"),
        ("https://other.example/c", "file:///srv/other"),
        ("https://third.example/c", "https://third.example/c"),
        (f"{FORGE}-x", f"{FORGE}-x"),
    ):
        assert to_mirror(original + package, mirrors) == mirrored + package
        assert canonical(mirrored + package, mirrors) == original + package
    assert sources(["conda-forge", "https://u:p@third.example/c"], mirrors) == (
        "https://user:pass@mirror.example/cf",
        "https://u:p@third.example/c",
    )


def test_virtual_packages_come_from_the_settings_alone(tmp_path: Path) -> None:
    settings = Settings(tmp_path, (), tmp_path / "lock", tmp_path)
    assert virtual_packages(settings) == ("__archspec=1=x86_64", "__glibc=2.28", "__linux=4.18", "__unix=0")
    other = dataclasses.replace(settings, platform="linux-aarch64", cuda="12.4", glibc="2.35")
    assert virtual_packages(other) == (
        "__archspec=1=aarch64",
        "__cuda=12.4",
        "__glibc=2.35",
        "__linux=4.18",
        "__unix=0",
    )


def test_what_conda_brings_by_which_name() -> None:
    packages = (
        locks.conda("python", "3.11.7"),
        locks.conda("zlib"),
        locks.conda("Typing_extensions".lower(), "4.9.0", noarch="python"),
        locks.conda("numpy", "1.24.0", depends=("python >=3.11,<3.12.0a0", "python_abi 3.11.* *_cp311")),
        locks.conda("pytorch", "2.1.0", depends=("python >=3.11",)),
        locks.conda("python_abi", "3.11", depends=("python 3.11.*",)),
        locks.conda("odd", "not_a_version!", noarch="python"),
        locks.conda("mine", "1.0", noarch="python"),
        locks.conda("tool", "1.0", depends=("python-dateutil",)),
        locks.conda("matplotlib-base", "3.8.0", depends=("python",)),
        locks.conda("matplotlib", "3.8.0", depends=("python",)),
    )
    assert provided(packages, (("mine", "my-dist"), ("numpy", ""))) == {
        "matplotlib": "3.8.0",
        "my-dist": "1.0",
        "torch": "2.1.0",
        "typing-extensions": "4.9.0",
    }


def test_build_numbers_and_damaged_names_of_wheels() -> None:
    names = ["a-1.0-py3-none-any.whl", "a-1.0-2-py3-none-any.whl", "a-1.0-10-py3-none-any.whl", "a.whl", "x"]
    assert best_wheel(names, python_version="3.11.7", platform="linux-64", glibc="2.28") == names[2]
    assert best_wheel(["a-1.0-cp27-none-any.whl"], python_version="3.11.7", platform="linux-64", glibc="2.28") is None
    old = ["a-1.0-cp311-cp311-manylinux1_x86_64.whl", "a-1.0-cp311-cp311-manylinux2014_x86_64.whl"]
    assert best_wheel(old, python_version="3.11.7", platform="linux-64", glibc="2.28") == old[1]
    arm = ["a-1.0-cp311-cp311-manylinux2014_aarch64.whl"]
    assert best_wheel(arm, python_version="3.11.7", platform="linux-aarch64", glibc="2.28") == arm[0]
