from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from himl_container.environment.conda_solve import CondaRequest, solve_conda
from himl_container.environment.model import CondaDependency, EnvironmentSpec, LockedConda, Origin
from himl_container.errors import ArtifactError, InputError, UnsolvableError
from himl_container.progress import SilentReporter

from . import channels

FORGE = "https://conda.anaconda.org/conda-forge"
VIRTUAL = ("__glibc=2.28", "__linux=4.18", "__unix=0", "__archspec=1=x86_64")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "rattler-cache"))


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that stands for conda-forge."""
    channel = tmp_path_factory.mktemp("forge")
    for version in ("3.11.7", "3.12.0"):
        channels.add_package(channel, "python", version, depends=["zlib", "pip"])
    channels.add_package(channel, "pip", "23.0", depends=["python"], noarch="python")
    for version in ("1.2", "1.3"):
        channels.add_package(channel, "zlib", version)
    channels.add_package(channel, "old-zlib", depends=["zlib <1.3"])
    channels.add_package(channel, "new-glibc", depends=["__glibc >=2.34"])
    channels.add_package(channel, "gpu", depends=["__cuda >=12"])
    channels.add_package(channel, "native", depends=["__archspec 1 x86_64"])
    return channels.index(channel)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> str:
    channel = tmp_path_factory.mktemp("second")
    channels.add_package(channel, "zlib", "1.9")
    channels.add_package(channel, "only-second", depends=["zlib"])
    return channels.index(channel)


def solve(
    forge: str,
    *specs: str,
    channel_list: tuple[str, ...] = ("conda-forge",),
    previous: tuple[LockedConda, ...] = (),
    recheck: bool = False,
    virtual: tuple[str, ...] = VIRTUAL,
) -> dict[str, LockedConda]:
    spec = EnvironmentSpec(
        "test",
        channel_list,
        tuple(CondaDependency(text, text, Origin("environment.yml", n)) for n, text in enumerate(specs, 3)),
    )
    request = CondaRequest(spec, "linux-64", virtual, (("conda-forge", forge),), previous, recheck)
    return {record.name: record for record in solve_conda(request, reporter=SilentReporter())}


def versions(locked: dict[str, LockedConda]) -> dict[str, str]:
    return {name: record.version for name, record in locked.items()}


def test_records_carry_canonical_addresses_and_everything_that_a_lock_needs(forge: str) -> None:
    locked = solve(forge, "python=3.11")
    assert list(locked) == ["zlib", "python", "pip"]  # dependencies first
    pip = locked["pip"]
    assert pip.url == f"{FORGE}/noarch/pip-23.0-0.conda"
    assert pip.channel == FORGE
    assert (pip.noarch, pip.subdir, pip.license, pip.timestamp) == ("python", "noarch", "MIT", 1_700_000_000_123)
    assert len(pip.sha256) == 64
    assert len(pip.md5) == 32
    assert pip.size > 0
    assert locked["python"].depends == ("zlib", "pip")


def test_the_first_channel_that_has_a_name_has_all_of_it(forge: str, second: str) -> None:
    both = ("conda-forge", second)
    assert versions(solve(forge, "python", "only-second", channel_list=both))["zlib"] == "1.3"
    assert versions(solve(forge, "python", "only-second", channel_list=both[::-1]))["zlib"] == "1.9"


def test_a_spec_may_name_its_channel(forge: str, second: str) -> None:
    locked = solve(forge, "python", f"{second}::zlib", channel_list=("conda-forge", second))
    assert locked["zlib"].channel == second
    locked = solve(forge, "conda-forge::python=3.11", "zlib", channel_list=(second, "conda-forge"))
    assert locked["python"].channel == FORGE
    assert locked["zlib"].channel == second
    assert "only-second" in solve(forge, "python", f"{second}::only-second")  # a channel that nothing else names
    with pytest.raises(UnsolvableError):
        solve(forge, "python", "conda-forge::only-second", channel_list=("conda-forge", second))


def test_what_was_locked_stays_when_something_is_added(forge: str) -> None:
    before = solve(forge, "python=3.11", "zlib=1.2")
    after = solve(forge, "python", "zlib", "native", previous=tuple(before.values()))
    assert {name: after[name] for name in before} == before
    moved = solve(forge, "python", "zlib", "native", previous=tuple(r for r in before.values() if r.name != "zlib"))
    assert versions(moved) == versions(after) | {"zlib": "1.3"}


def test_what_was_locked_gives_way_to_a_new_need(forge: str) -> None:
    before = solve(forge, "python=3.11")
    after = solve(forge, "python=3.11", "old-zlib", previous=tuple(before.values()))
    assert versions(after)["zlib"] == "1.2"


def test_what_was_locked_from_a_channel_that_lost_its_place_is_not_kept(forge: str, second: str) -> None:
    before = tuple(solve(forge, "python", channel_list=("conda-forge",)).values())
    after = solve(forge, "python", channel_list=(second, "conda-forge"), previous=before, recheck=True)
    assert after["zlib"].channel == second
    assert after["python"].channel == FORGE
    gone = solve(forge, "python", channel_list=("conda-forge",), previous=tuple(after.values()), recheck=True)
    assert gone["zlib"].channel == FORGE


def test_the_solver_s_reason_is_told(forge: str) -> None:
    with pytest.raises(UnsolvableError) as caught:
        solve(forge, "python=3.11", "zlib=1.3", "old-zlib")
    assert "zlib" in caught.value.what
    assert "old-zlib" in caught.value.what
    assert caught.value.where == "environment.yml"
    with pytest.raises(UnsolvableError) as caught:
        solve(forge, "python", "conda-forge::numpie")
    assert "numpie" in caught.value.what
    assert forge not in str(caught.value)
    assert "conda-forge" in caught.value.hint


@pytest.mark.parametrize(("name", "word"), [("new-glibc", "glibc"), ("gpu", "cuda")])
def test_the_machine_that_was_assumed_is_named_when_it_is_the_reason(forge: str, name: str, word: str) -> None:
    with pytest.raises(UnsolvableError) as caught:
        solve(forge, "python", name)
    assert f"'{word}'" in caught.value.hint
    assert name in solve(forge, "python", name, virtual=("__glibc=2.35", "__cuda=12.4"))


def test_an_environment_without_python_is_refused(forge: str) -> None:
    with pytest.raises(InputError, match="no python") as caught:
        solve(forge, "zlib")
    assert "python=3" in caught.value.hint


def test_a_spec_that_cannot_be_parsed_names_its_line(forge: str) -> None:
    with pytest.raises(InputError) as caught:
        solve(forge, "python", "numpy >>=1")
    assert caught.value.where == "environment.yml:4"


def test_a_channel_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = (tmp_path / "missing").as_uri()
    with pytest.raises(ArtifactError) as caught:
        solve(missing, "python")
    assert caught.value.where == FORGE
    assert "channel-mirrors" in caught.value.hint
    with pytest.raises(ArtifactError) as caught:
        solve("http://user:s3cret@127.0.0.1:9/conda-forge", "python")
    assert "s3cret" not in str(caught.value)


def test_a_checksum_that_the_channel_does_not_state_is_computed(tmp_path: Path) -> None:
    import hashlib

    package = channels.add_package(tmp_path / "old", "python", "3.10.0")
    address = channels.index(tmp_path / "old")
    for path in (tmp_path / "old").rglob("repodata*"):
        path.unlink()
    record = {
        "name": "python",
        "version": "3.10.0",
        "build": "0",
        "build_number": 0,
        "depends": [],
        "subdir": "linux-64",
    }
    for subdir, packages in (("linux-64", {package.name: record}), ("noarch", {})):
        text = json.dumps({"info": {"subdir": subdir}, "packages": {}, "packages.conda": packages})
        (tmp_path / "old" / subdir / "repodata.json").write_text(text)
    locked = solve(address, "python")
    assert locked["python"].sha256 == hashlib.sha256(package.read_bytes()).hexdigest()


def test_a_notebook_s_running_event_loop_is_no_obstacle(forge: str) -> None:
    async def cell() -> dict[str, LockedConda]:
        return solve(forge, "python=3.11")

    assert "python" in asyncio.run(cell())
