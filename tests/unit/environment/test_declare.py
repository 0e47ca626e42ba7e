"""Several files, settings and wheels become one declaration, and contradictions are named with both places."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himl_container.environment.bounds import conda_conflict, pip_conflict
from himl_container.environment.declare import load_environment
from himl_container.environment.model import EnvironmentSpec
from himl_container.errors import InputError
from himl_container.progress import SilentReporter
from himl_container.settings import load_settings

from .wheels import write_wheel


def load(folder: Path, *files: str, **flags: object) -> EnvironmentSpec:
    paths = []
    for number, text in enumerate(files, start=1):
        path = folder / f"{number}.yml"
        path.write_text(text)
        paths.append(path)
    values = load_settings({"conda_files": tuple(paths), **flags}, cwd=folder, environ={})
    return load_environment(values, environ={})


def test_two_files_become_one(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("extra-package\n")
    spec = load(
        tmp_path,
        "name: a\nchannels: [pytorch, conda-forge]\n"
        "dependencies:\n - python=3.11\n - numpy\n - pip:\n   - torch\n   - --extra-index-url https://file/simple\n"
        "variables: {A: '1'}\n",
        "name: b\nchannels: [conda-forge, bioconda]\n"
        "dependencies:\n - numpy>=1.26\n - numpy\n - other::x\n - pip:\n   - torch\n   - -r more.txt\n"
        "variables: {B: '2', A: '1'}\n",
        pip_extra_index_url=("https://flag/simple",),
    )
    assert spec.name == "b"
    assert spec.channels == ("pytorch", "conda-forge", "bioconda", "other")
    assert [item.spec for item in spec.dependencies] == ["numpy", "numpy >=1.26", "other::x", "python 3.11.*"]
    assert [item.text for item in spec.pip] == ["extra-package", "torch"]
    assert spec.indexes.private == ("https://flag/simple", "https://file/simple")
    assert spec.variables == (("A", "1"), ("B", "2"))
    assert [path.name for path in spec.files] == ["1.yml", "2.yml", "more.txt"]
    assert spec.warnings == ()


@pytest.mark.parametrize(
    ("first", "second", "line", "message"),
    [
        ("dependencies:\n - x==1\n", "dependencies:\n - y\n - x==2\n", 3, "'x ==1' and 'x ==2'"),
        ("dependencies:\n - x=1.2\n", "dependencies:\n - x>=1.3\n", 2, "'x 1.2.*' and 'x >=1.3'"),
        ("dependencies:\n - pip:\n   - X==1\n", "dependencies:\n - pip:\n   - x>1\n", 3, "'x==1' and 'x>1'"),
        ("channels: [a, b]\n", "channels:\n - b\n - a\n", 2, "channel b comes before a here"),
        ("variables: {A: '1'}\n", "variables:\n  A: '2'\n", 2, "the variable A has another value"),
        (
            "dependencies:\n - pip:\n   - -i https://u:CANARY@one/s\n",
            "dependencies:\n - pip:\n   - -i https://two/s\n",
            3,
            "another --index-url (https://two/s)",
        ),
    ],
)
def test_contradictions_name_both_places(tmp_path: Path, first: str, second: str, line: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, first, second)
    assert caught.value.where == f"{tmp_path / '2.yml'}:{line}"
    assert message in caught.value.what
    assert str(tmp_path / "1.yml") in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_a_circle_of_three_channel_lists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="form a circle"):
        load(tmp_path, "channels: [a, b]\n", "channels: [b, c]\n", "channels: [c, a]\n")


def test_a_contradiction_inside_one_file(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, "dependencies:\n - x==1\n - x==2\n")
    assert caught.value.where == f"{tmp_path / '1.yml'}:3"


def test_settings_decide_between_indexes(tmp_path: Path) -> None:
    text = "dependencies:\n - pip:\n   - -i https://one/s\n   - -i https://two/s\n"
    assert load(tmp_path, text, pip_index_url="https://three/s").indexes.index == "https://three/s"


def test_without_channels_there_is_a_warning(tmp_path: Path) -> None:
    said: list[str] = []

    class Reporter(SilentReporter):
        def warn(self, text: str) -> None:
            said.append(text)

    (tmp_path / "environment.yml").write_text("dependencies: [x]\nodd: 1\n")
    values = load_settings({}, cwd=tmp_path, environ={})
    spec = load_environment(values, Reporter(), environ={})
    assert spec.channels == ("conda-forge",)
    assert len(said) == 2
    assert tuple(said) == spec.warnings


def test_a_listed_channel_with_a_login_is_the_one_that_a_dependency_names(tmp_path: Path) -> None:
    spec = load(tmp_path, "channels: ['https://u:p@host/c']\ndependencies: ['https://host/c::x']\n")
    assert spec.channels == ("https://u:p@host/c",)


def test_no_environment_file(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_environment(load_settings({}, cwd=tmp_path, environ={"PYTHONPATH": str(tmp_path)}))
    assert "--conda-file" in caught.value.hint
    with pytest.raises(InputError, match="no such file"):
        load_environment(load_settings({"conda_files": (tmp_path / "x.yml",)}, cwd=tmp_path, environ={}))


def test_private_wheels(tmp_path: Path) -> None:
    one = write_wheel(tmp_path / "mylib-1.0-py3-none-any.whl")
    two = write_wheel(tmp_path / "mylib-2.0-py3-none-any.whl", version="2.0")
    spec = load(tmp_path, "dependencies:\n - pip:\n   - mylib\n", wheels=(one, one))
    assert [(wheel.name, wheel.version, wheel.path) for wheel in spec.wheels] == [("mylib", "1.0", one)]
    with pytest.raises(InputError, match="a second wheel of mylib"):
        load(tmp_path, "dependencies: []\n", wheels=(one, two))
    with pytest.raises(InputError) as caught:
        load(tmp_path, "dependencies:\n - pip:\n   - mylib>=2\n", wheels=(one,))
    assert caught.value.where == f"{tmp_path / '1.yml'}:3"


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("x=1.2", "x=1.3", True),
        ("x=1.2", "x=1.2.3", False),
        ("x==1.2", "x=1.2", False),
        ("x==1.2", "x>1.2", True),
        ("x==1.0", "x==1", False),
        ("x>=1.26", "x<1.26", True),
        ("x>=1.26", "x<=1.26", False),
        ("x=1.4", "x<1.3", True),
        ("x=1.2=a", "x=1.2=b", True),
        ("x=1.2=a*", "x=1.2=b", False),
        ("conda-forge::x", "bioconda::x", True),
        ("x~=1.2", "x==2.3", True),
        ("x!=1.2", "x==1.2", True),
        ("x=1|2", "x==3", True),
        ("x=1|2", "x>=2", False),
    ],
)
def test_conda_specs_that_cannot_both_hold(one: str, other: str, conflict: bool) -> None:
    from rattler import MatchSpec

    assert conda_conflict(MatchSpec(one), MatchSpec(other)) is conflict
    assert conda_conflict(MatchSpec(other), MatchSpec(one)) is conflict


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("x==1", "x==1.0", False),
        ("x==1.0", "x==1.0+cpu", False),
        ("x==1", "x==2", True),
        ("x==1.*", "x==2.*", True),
        ("x>=2", "x<2", True),
        ("x>=2,<3", "x<2.5", False),
        ("x==1; python_version < '3'", "x==2", False),
        ("x @ https://h/a.whl", "x", False),
        ("x @ https://h/a.whl", "x @ https://h/b.whl", True),
        ("x~=1.2", "x==2", True),
        ("x!=1", "x==1", True),
    ],
)
def test_pip_requirements_that_cannot_both_hold(one: str, other: str, conflict: bool) -> None:
    from packaging.requirements import Requirement

    assert pip_conflict(Requirement(one), Requirement(other)) is conflict
    assert pip_conflict(Requirement(other), Requirement(one)) is conflict


VERSIONS = st.sampled_from(["0.9", "1", "1.0", "1.1", "1.1.1", "1.2", "1.2a1", "1.10", "2", "2.0rc1", "2.1.post1"])
CLAUSES = st.tuples(st.sampled_from(["==", ">=", "<=", ">", "<", "!=", "~="]), VERSIONS)
RANGES = st.lists(CLAUSES, min_size=1, max_size=2).map(
    lambda parts: ",".join(f"{sign}{version}" for sign, version in parts)
)


@settings(max_examples=300, deadline=None)
@given(RANGES, RANGES, VERSIONS)
def test_a_conflict_is_only_reported_where_no_version_fits(one: str, other: str, version: str) -> None:
    from packaging.requirements import Requirement
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from rattler import MatchSpec, Version, VersionSpec
    from rattler.exceptions import InvalidVersionSpecError

    try:
        fits = all(SpecifierSet(text).contains(version, prereleases=True) for text in (one, other))
    except InvalidSpecifier:  # ~=1 needs two parts
        return
    assert not (fits and pip_conflict(Requirement(f"x{one}"), Requirement(f"x{other}")))
    try:
        fits = all(VersionSpec(text).matches(Version(version)) for text in (one, other))
    except InvalidVersionSpecError:
        return
    assert not (fits and conda_conflict(MatchSpec(f"x {one}"), MatchSpec(f"x {other}")))
