"""Environments that AzureML builds, and merged Conda files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from himl_container.azureml.conda_environment import content_name, create_python_environment, merge_conda_files
from himl_container.azureml.configuration import environment_to_build
from himl_container.azureml.failures import WrongValue
from himl_container.settings import Settings

CONDA = """\
name: simple
channels:
  - defaults
  - pytorch
dependencies:
  - pip=20.1.1
  - python=3.7.3
  - pytorch=1.4.0
  - pip:
    - azureml-sdk==1.23.0
    - something-else==0.1.5
"""


@pytest.fixture
def conda(tmp_path: Path) -> Path:
    file = tmp_path / "environment.yml"
    file.write_text(CONDA)
    return file


class Storage:
    """The place of private wheels, as the SDK has it: one for each file name, never replaced."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def add(self, _workspace: object, file_path: str, exist_ok: bool) -> str:
        assert exist_ok
        path = Path(file_path)
        self.kept.setdefault(path.name, path.read_bytes())
        return f"https://storage.example/{path.name}"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    from azureml.core import Environment

    made = Storage()
    monkeypatch.setattr(Environment, "add_private_pip_wheel", made.add)
    return made


def test_packages_and_variables(conda: Path) -> None:
    made = create_python_environment(conda, environment_variables={"MKL_SERVICE_FORCE_INTEL": "0", "B": "2"})
    dependencies = made.python.conda_dependencies
    assert list(dependencies.conda_packages) == ["pip=20.1.1", "python=3.7.3", "pytorch=1.4.0"]
    assert list(dependencies.pip_packages) == ["azureml-sdk==1.23.0", "something-else==0.1.5"]
    assert made.environment_variables["AZUREML_RUN_KILL_SIGNAL_TIMEOUT_SEC"] == "900"
    assert made.environment_variables["MKL_SERVICE_FORCE_INTEL"] == "0"
    assert made.environment_variables["B"] == "2"
    assert made.version is None
    assert made.name.startswith("HealthML-")
    assert len(made.name) == len("HealthML-") + 32


def test_a_private_index_comes_before_pypi(conda: Path) -> None:
    made = create_python_environment(conda, pip_extra_index_url="https://private.example/simple")
    options = list(made.python.conda_dependencies.pip_options)
    assert options == ["--index-url https://private.example/simple", "--extra-index-url https://pypi.org/simple"]


def test_the_name_says_all_that_goes_in(conda: Path, tmp_path: Path, storage: Storage) -> None:
    wheel = tmp_path / "pkg-1.0-py3-none-any.whl"
    wheel.write_bytes(b"one")
    workspace: Any = object()

    def name(**more: Any) -> str:
        return str(create_python_environment(conda, workspace=workspace, **more).name)

    names = [
        name(),
        name(docker_base_image="base:1"),
        name(environment_variables={"A": "1"}),
        name(pip_extra_index_url="https://private.example/simple"),
        name(private_pip_wheel_path=wheel),
    ]
    wheel.write_bytes(b"two")
    names.append(name(private_pip_wheel_path=wheel))
    conda.write_text(CONDA.replace("1.4.0", "1.5.0"))
    names.append(name())
    assert len(set(names)) == len(names)
    conda.write_text(CONDA)
    assert name() == names[0]


def test_a_changed_wheel_of_the_same_name_is_uploaded_too(conda: Path, tmp_path: Path, storage: Storage) -> None:
    wheel = tmp_path / "pkg-1.0-py3-none-any.whl"
    urls = []
    workspace: Any = object()
    for content in (b"one", b"two", b"one"):
        wheel.write_bytes(content)
        made = create_python_environment(conda, workspace=workspace, private_pip_wheel_path=wheel)
        urls.append(list(made.python.conda_dependencies.pip_packages)[-1])
    assert urls[0] == urls[2] != urls[1]
    assert sorted(storage.kept.values()) == [b"one", b"two"]
    from packaging.utils import parse_wheel_filename

    assert {str(parse_wheel_filename(Path(url).name)[0]) for url in urls} == {"pkg"}


def test_a_wheel_that_is_not_there(conda: Path) -> None:
    workspace: Any = object()
    with pytest.raises(FileNotFoundError, match=r"Cannot add add_private_pip_wheel: .*, it is not a file\."):
        create_python_environment(conda, workspace=workspace, private_pip_wheel_path=Path("missing.whl"))
    with pytest.raises(FileNotFoundError):
        create_python_environment(Path("missing.yml"))
    with pytest.raises(ValueError, match="file name of a wheel"):
        content_name("pkg.whl", "00")


def merged(tmp_path: Path, *texts: str) -> Any:
    files = [tmp_path / f"{number}.yml" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    merge_conda_files(files, tmp_path / "merged.yml")
    return yaml.safe_load((tmp_path / "merged.yml").read_text())


def test_merged_files(tmp_path: Path) -> None:
    found = merged(
        tmp_path,
        "name: a\nchannels: [c, b]\ndependencies: [python=3.7, foo, {pip: [z, --extra-index-url u]}]\nprefix: /x\n",
        "channels: [b, a]\ndependencies: [bar, foo, foo=1, {pip: [a, z]}]\nvariables: {A: 1}\n",
        "name: last\ndependencies: [{pip: null}]\n",
    )
    assert found == {
        "name": "last",
        "channels": ["c", "b", "a"],
        "dependencies": ["bar", "foo", "foo=1", "python=3.7", {"pip": ["--extra-index-url u", "a", "z"]}],
    }
    assert list(found) == ["name", "channels", "dependencies"]
    text = (tmp_path / "merged.yml").read_text()
    assert "\n- bar\n" in text
    assert "\n- pip:\n  - --extra-index-url u\n" in text


def test_orders_that_contradict_each_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import conda_merge

    with pytest.raises(conda_merge.MergeError):
        merged(tmp_path, "channels: [a, b]\ndependencies: [x]\n", "channels: [b, a]\ndependencies: [x]\n")
    assert "Failed to merge channel priorities." in caplog.text


@pytest.mark.parametrize("text", ["name: a\n", "dependencies: []\n", "dependencies: [{pip: []}]\n"])
def test_nothing_to_merge(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"No dependencies found in any of the conda files\."):
        merged(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "- a\n", "a: [\n", "a: \0\n", f"dependencies: {'[' * 1000}{']' * 1000}\n"),
        *(
            "dependencies: 5\n",
            "dependencies: [1]\n",
            "dependencies: [{pip: 5}]\n",
            "dependencies: [{pip: [1, null]}]\n",
        ),
        "channels: 5\ndependencies: [a]\n",
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"0\.yml"):
        merged(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("[1, 2]", "a mapping"),
        ("dependencies: [", "not YAML"),
        ("name: a\n", "no dependencies"),
        ("dependencies: [1]", "a list of texts"),
        ("dependencies: [python]\nnonsense: 1\n", "unknown nonsense key"),
    ],
)
def test_a_file_that_azureml_would_not_take(conda: Path, text: str, said: str) -> None:
    conda.write_text(text)
    with pytest.raises(WrongValue, match=said) as caught:
        create_python_environment(conda)
    assert str(conda) in str(caught.value)


def test_an_empty_section_of_pip_takes_an_index(conda: Path) -> None:
    conda.write_text("dependencies: [python=3.11, {pip: null}]\n")
    made = create_python_environment(conda, pip_extra_index_url="https://private.example/simple")
    assert len(list(made.python.conda_dependencies.pip_options)) == 2


def test_files_that_contradict_each_other(tmp_path: Path) -> None:
    files = []
    for name, channels in (("a", "x, y"), ("b", "y, x")):
        files.append(tmp_path / f"{name}.yml")
        files[-1].write_text(f"channels: [{channels}]\ndependencies: [python]\n")
    with pytest.raises(WrongValue, match="cannot be merged") as caught:
        environment_to_build(Settings(tmp_path, tuple(files), tmp_path / "lock", tmp_path / "cache"), None)
    assert "b.yml" in str(caught.value)
