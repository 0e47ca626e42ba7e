"""The pip list and requirements files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himl_container.environment.model import LockedWheel, Origin
from himl_container.environment.read import PipLine
from himl_container.environment.requirements import PipInput, check_hashes, read_pip
from himl_container.errors import ArtifactError, InputError

SHA = "0" * 64


def read(folder: Path, *lines: str, environ: dict[str, str] | None = None) -> PipInput:
    items = [PipLine(line, Origin(str(folder / "environment.yml"), number)) for number, line in enumerate(lines, 1)]
    return read_pip(items, folder=folder, environ=environ or {})


def test_requirements_get_one_spelling(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "Torch_Vision [b, a] <2, >=1 ; python_version > '3.8'  # comment",
        "x==1 --hash=sha256:" + SHA + " --hash=sha256:" + SHA.replace("0", "A"),
        "first\nsecond\n",
        "name @ https://host/dir/name-1-py3-none-any.whl#sha256=" + SHA,
    )
    assert [(item.text, item.origin.line) for item in found.requirements] == [
        ('torch-vision[a,b]<2,>=1; python_version > "3.8"', 1),
        ("x==1", 2),
        ("first", 3),
        ("second", 3),
        (f"name @ https://host/dir/name-1-py3-none-any.whl#sha256={SHA}", 4),
    ]
    assert found.requirements[0].name == "torch-vision"
    assert found.requirements[1].hashes == (f"sha256:{SHA}", "sha256:" + "a" * 64)


def test_files_are_relative_to_the_one_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "req" / "deep").mkdir(parents=True)
    (tmp_path / "links").mkdir()
    (tmp_path / "req" / "a.txt").write_text(
        "# comment\n\none == \\\n  1.0  # why\n-rdeep/b.txt\n--constraint=deep/c.txt\n--require-hashes\n"
    )
    (tmp_path / "req" / "deep" / "b.txt").write_text("two\n-i https://${USER}:${GONE}@host/simple\n-f ../../links\n")
    (tmp_path / "req" / "deep" / "c.txt").write_text("three<3\n-r d.txt\n")
    (tmp_path / "req" / "deep" / "d.txt").write_text("four\n")
    found = read(tmp_path, "-r req/a.txt", "--extra-index-url https://extra/simple", environ={"USER": "me"})
    assert [(item.text, Path(item.origin.path).name, item.origin.line) for item in found.requirements] == [
        ("one==1.0", "a.txt", 3),
        ("two", "b.txt", 1),
    ]
    assert [item.text for item in found.constraints] == ["three<3", "four"]
    assert [place.url for place in found.index] == ["https://me:${GONE}@host/simple"]
    assert [place.url for place in found.extra] == ["https://extra/simple"]
    assert [place.url for place in found.find_links] == [str(tmp_path / "links")]
    assert [path.name for path in found.files] == ["a.txt", "b.txt", "c.txt", "d.txt"]


def test_one_file_may_be_named_twice_but_not_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    assert len(read(tmp_path, "-r a.txt", "-r a.txt").requirements) == 2
    (tmp_path / "b.txt").write_text("-r c.txt\n")
    (tmp_path / "c.txt").write_text("y\n-r b.txt\n")
    with pytest.raises(InputError, match=r"circle: b\.txt -> c\.txt -> b\.txt") as caught:
        read(tmp_path, "-r b.txt")
    assert caught.value.where == f"{tmp_path / 'c.txt'}:2"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-e .", "--editable"),
        ("-e git+https://host/x", "--editable"),
        ("git+https://host/x.git@main", "version-control"),
        ("x @ git+ssh://git@host/x", "version-control"),
        (".", "a path on this machine"),
        ("./mylib", "a path on this machine"),
        ("../mylib[extra]", "a path on this machine"),
        ("/abs/mylib-1-py3-none-any.whl", "a path on this machine"),
        ("mylib-1-py3-none-any.whl", "a path on this machine"),
        ("C:\\x\\mylib", "a path on this machine"),
        ("x @ file:///abs/x-1-py3-none-any.whl", "a file on this machine"),
        ("https://host/x-1-py3-none-any.whl", "without a name"),
        ("x @ https://host/x-1.tar.gz", "not one of a wheel"),
        ("x @ https://u:CANARY@host/x-1-py3-none-any.whl", "credentials"),
        ("x @ https://${CANARY}/x-1-py3-none-any.whl", "credentials"),
        ("x @ https://host/x-1-py3-none-any.whl?sig=CANARY", "credentials"),
        ("x @ https://u:CANARY@host/x y", "not a pip requirement"),
        ("--index-url https://u:CANARY@host/a b", "more than one value"),
        ("--index-url 'https://u:CANARY@host/a b'", "is not a URL"),
        ("--index-url", "needs a value"),
        ("--index-url ftp://host", "is not a URL"),
        ("--find-links nowhere", "there is no folder"),
        ("-r gone.txt", "there is no file"),
        ("-r https://host/x.txt", "from a URL"),
        ("--pre", "pre-releases"),
        ("--no-binary :all:", "building from source"),
        ("--trusted-host x", "certificates"),
        ("--nonsense 1", "not supported"),
        ("--index-url 'https://host", "a quote is not closed"),
        ("x==1 --global-option=--foo", "the option --global-option"),
        ("x --hash=sha256:12", "not a whole hash"),
        ("x --hash=md5:" + "0" * 32, "not a whole hash"),
        ("x>>1", "not a pip requirement"),
        ("x; $(id)", "not a pip requirement"),
        ("x\x1b", "has characters"),
    ],
)
def test_what_cannot_be_locked_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, "fine", line)
    assert message in str(caught.value)
    assert caught.value.where.startswith(f"{tmp_path / 'environment.yml'}:2")
    assert "CANARY" not in str(caught.value)


def test_hashes_bind_what_is_locked(tmp_path: Path) -> None:
    requirements = read(tmp_path, f"x==1 --hash=sha256:{SHA}", "y").requirements
    built = LockedWheel("x", "1", "x-1-py3-none-any.whl", "b" * 64, 1, sdist_url="https://h/x.tar.gz", sdist_sha256=SHA)
    check_hashes(requirements, [LockedWheel("x", "1", "x-1-py3-none-any.whl", SHA, 1)])
    check_hashes(requirements, [built])
    with pytest.raises(ArtifactError) as caught:
        check_hashes(requirements, [LockedWheel("x", "1", "x-1-py3-none-any.whl", "b" * 64, 1)])
    assert caught.value.where == f"{tmp_path / 'environment.yml'}:1"


def test_a_broken_requirements_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(InputError) as caught:
        read(tmp_path, "-r a.txt")
    assert caught.value.where == f"{tmp_path / 'a.txt'}:2"


@settings(max_examples=200, deadline=None)
@given(st.text("ab-_.=<>!~,;@[]()'\" 019:/#\n\r$`\\\u2028\x85éhttps", max_size=40))
def test_a_requirement_is_one_line_and_reads_the_same_again(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        found = read(folder, text)
    except InputError:
        return
    for requirement in found.requirements:
        assert requirement.text.isprintable()
        assert read(folder, requirement.text).requirements == (requirement,)
