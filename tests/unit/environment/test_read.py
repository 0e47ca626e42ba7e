"""One environment file: everything that Conda reads is read, everything wrong is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from himl_container.environment.model import Origin
from himl_container.environment.read import EnvironmentFile, conda_dependency, read_environment
from himl_container.environment.selectors import UnknownSelectorError, holds, selector_of
from himl_container.errors import InputError


def read(folder: Path, text: str | bytes, **options: str) -> EnvironmentFile:
    path = folder / "environment.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_environment(path, platform=options.get("platform", "linux-64"), environ={"TOKEN": "secret"})


def test_everything_that_a_file_can_hold(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        """\
name: train
channels:
  - conda-forge
  - nodefaults
  - https://${TOKEN}@host/channel/
  - ./local
dependencies:
  - Python=3.11
  - numpy==1.26.4=py311h64a7726_0
  - "scipy[version='>=1,<2', build=py*]"
  - bioconda::samtools>=1.19   # a comment
  - pip
  - pip:
      - torch==2.1
      - -r more.txt
variables:
  PLAIN: text with "quotes" and $(dollar)
  NUMBER: 010
  EMPTY: ""
prefix: /home/somebody/envs/train
category: main
""",
    )
    assert file.name == "train"
    local = (tmp_path / "local").as_uri()
    assert [channel.name for channel in file.channels] == ["conda-forge", "https://secret@host/channel", local]
    assert [(item.name, item.spec, item.origin.line) for item in file.dependencies] == [
        ("python", "python 3.11.*", 8),
        ("numpy", "numpy ==1.26.4 py311h64a7726_0", 9),
        ("scipy", "scipy >=1,<2 py*", 10),
        ("samtools", "bioconda::samtools >=1.19", 11),
        ("pip", "pip", 12),
    ]
    assert [(line.text, line.origin.line) for line in file.pip] == [("torch==2.1", 14), ("-r more.txt", 15)]
    assert [(item.name, item.value) for item in file.variables] == [
        ("PLAIN", 'text with "quotes" and $(dollar)'),
        ("NUMBER", "010"),
        ("EMPTY", ""),
    ]
    assert file.warnings == (f"{tmp_path / 'environment.yml'}:21: unknown key 'category'; it has no effect",)


def test_empty_sections_and_a_byte_order_mark(tmp_path: Path) -> None:
    file = read(tmp_path, b"\xef\xbb\xbfname:\r\nchannels:\r\ndependencies:\r\n  - pip:\r\nvariables:\r\n")
    assert (file.name, file.channels, file.dependencies, file.pip, file.variables) == ("", (), (), (), ())


@pytest.mark.parametrize(
    ("platform", "kept"),
    [("linux-64", ["a", "d", "e", "f", "h"]), ("linux-aarch64", ["a", "d", "f", "g", "h"])],
)
def test_selectors(tmp_path: Path, platform: str, kept: list[str]) -> None:
    text = """\
dependencies:
  - a  # [linux]
  - b  # [win]
  - c  # note [osx and arm64]
  - "d"  # [not (win or osx)]
  - e  # [x86_64]
  - f  # see [issue 12]
  - g  # [aarch64]
  - pip:  # [linux]
    - h
  - pip:  # [win]
    - i
variables:
  A: x  # [win]
"""
    file = read(tmp_path, text, platform=platform)
    assert [item.name for item in file.dependencies] + [line.text for line in file.pip] == kept
    assert file.variables == ()
    assert [warning.split(": ")[0].rsplit(":")[-1] for warning in file.warnings] == ["7"]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("", None, "is empty"),
        ("# only a comment\n", None, "is empty"),
        ("- a\n- b\n", 1, "a list, not a mapping"),
        ("just text\n", 1, "a string, not a mapping"),
        ("a: [1\nb: 2\n", 2, "is not YAML"),
        ("a: b: c\n", 1, "is not YAML"),
        ("a: \x00\n", 1, "is not YAML"),
        (b"a: b\nc: \xff\n", 2, "not UTF-8"),
        ("name: x".encode("utf-16"), 1, "UTF-16"),
        ("name: x\nname: y\n", 2, "the key 'name' is there twice"),
        ("dependencies:\n  python: 3.11\n", 2, "'dependencies' is a mapping, not a list"),
        ("dependencies: python\n", 1, "'dependencies' is a string, not a list"),
        ("dependencies:\n  - 3.11\n", 2, "a number, not a string"),
        ("dependencies:\n  - yes\n", 2, "a boolean, not a string"),
        ("dependencies:\n  -\n", 2, "nothing, not a string"),
        ("dependencies:\n  - - a\n", 2, "a list, not a string"),
        ("dependencies:\n  - npm:\n      - a\n", 2, "unknown kind of dependency 'npm'"),
        ("dependencies:\n  - pip: torch\n", 2, "'pip' is a string, not a list"),
        ("dependencies:\n  - a\n  - 'x$(id)'\n", 3, "not a Conda package specification"),
        ("dependencies:\n  - 'x >>1'\n", 2, "not a Conda package specification"),
        ("dependencies:\n  - ''\n", 2, "an empty dependency"),
        ("dependencies:\n  - https://host/linux-64/x-1-0.conda\n", 2, "the address of a file"),
        ("dependencies:\n  - /a/x-1-0.tar.bz2\n", 2, "the address of a file"),
        ("dependencies:\n  - \"x[url='http://a/b.conda']\"\n", 2, "can be used here"),
        ('dependencies:\n  - "x\\ny"\n', 2, "has characters"),
        ("dependencies:\n  - 'b*d::x'\n", 2, "not the name or URL of a channel"),
        ("channels: conda-forge\n", 1, "'channels' is a string, not a list"),
        ("channels:\n  - a b\n", 2, "not the name or URL of a channel"),
        ("channels:\n  - https://host/t/abc/channel\n", 2, "has a token in it"),
        ("channels:\n  - ftp://host/channel\n", 2, "is not a URL"),
        ("name: a/b\n", 1, "not a name for an environment"),
        ("variables:\n  A B: x\n", 2, "not a name for an environment variable"),
        ("variables:\n  PATH: x\n", 2, "PATH cannot be set here"),
        ("variables:\n  A: null\n", 2, "nothing, not a string"),
        ("variables:\n  A: true\n", 2, "a boolean, not a string"),
        ("variables:\n  A: [x]\n", 2, "a list, not a string"),
        ('variables:\n  A: "x\\ny"\n', 2, "a line break"),
        ("base: &b {x: 1}\nvariables:\n  <<: *b\n", 3, "merge keys"),
        ("? [a]\n: b\n", 1, "is a list, not a string"),
        ("a: !!python/object/apply:os.system [id]\ndependencies: !!python/name:os.system ''\n", 2, "not a list"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, content: str | bytes, line: int | None, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    path = str(tmp_path / "environment.yml")
    assert caught.value.where == (f"{path}:{line}" if line else path)
    assert message in caught.value.what


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_environment(tmp_path / "gone.yml", platform="linux-64")
    with pytest.raises(InputError, match="not a regular file"):
        read_environment(tmp_path, platform="linux-64")
    with pytest.raises(InputError, match="larger than"):
        read(tmp_path, "#" * 1_000_001)


def test_bombs_end_as_errors(tmp_path: Path) -> None:
    many = "[" + ",".join(["&a {pip: &b [" + ",".join(["x"] * 500) + "]}"] + ["*a"] * 500) + "]"
    with pytest.raises(InputError, match="more than 10000 entries"):
        read(tmp_path, f"dependencies: {many}\n")
    with pytest.raises(InputError, match="nested too deeply"):
        read(tmp_path, "a: " + "[" * 50_000)
    with pytest.raises(InputError, match="a list, not a string"):
        read(tmp_path, "dependencies: &a [*a]\n")


def test_a_message_does_not_repeat_a_password() -> None:
    with pytest.raises(InputError) as caught:
        conda_dependency("https://me:hunter2@host/c::x >>1", Origin("f", 1))
    assert "hunter2" not in str(caught.value)


def test_selectors_are_never_evaluated() -> None:
    for text in ("__import__('os')", "1", "py<39", "linux and", "(linux", "linux)", "not", "", "(" * 61, "linux win"):
        with pytest.raises(UnknownSelectorError):
            holds(text, "linux-64")
    assert holds("not win and (osx or linux)", "linux-64")
    assert selector_of(" # plain comment") is None


TEXT = st.text(st.characters(codec="utf-8"), max_size=25)


@settings(max_examples=150, deadline=None)
@given(
    dependencies=st.lists(TEXT, max_size=2),
    channels=st.lists(TEXT, max_size=2),
    variables=st.dictionaries(st.from_regex(r"[A-Z_\n =]{1,4}"), TEXT, max_size=2),
    name=TEXT,
)
def test_nothing_gets_through_with_a_line_break(
    tmp_path_factory: pytest.TempPathFactory,
    dependencies: list[str],
    channels: list[str],
    variables: dict[str, str],
    name: str,
) -> None:
    content = {"name": name, "channels": channels, "dependencies": dependencies, "variables": variables}
    try:
        # Not in the folder above all others, where tests without an environment file would find it.
        file = read(tmp_path_factory.mktemp("read"), yaml.safe_dump(content, allow_unicode=True))
    except InputError:
        return
    texts = [file.name, *(channel.name for channel in file.channels), *(item.spec for item in file.dependencies)]
    texts += [text for item in file.variables for text in (item.name, item.value)]
    assert not any(set(text) & set("\n\r\0\x0b\x0c\x1b\x85\u2028\u2029") for text in texts)
    assert [(item.name, item.value) for item in file.variables] == sorted(variables.items())


@settings(max_examples=200, deadline=None)
@given(st.text("abx_.-=<>!,|*[]'\" 0123456789:/~()#\n$`", max_size=25))
def test_a_dependency_reads_the_same_again(text: str) -> None:
    try:
        once = conda_dependency(text, Origin("f", 1))
    except InputError:
        return
    assert conda_dependency(once.spec, Origin("f", 1)) == once
