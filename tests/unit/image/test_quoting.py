"""No value becomes a part of the Dockerfile's language; what cannot be quoted is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from himl_container.errors import InputError
from himl_container.image import quoting
from image import dockerfile_reader as reader

# Text as users and packages write it, and text as an attacker would.
HOSTILE = st.text(alphabet=st.sampled_from("\\\"'`$(){}#=<>&|;!* \t\n\r\0aZ0é\u2028\U0001f40d"), max_size=40)
TEXT = st.one_of(HOSTILE, st.text(max_size=60))


@given(TEXT, TEXT)
@example("trailing\\", 'quote" \\')
@example("$HOME ${PATH:-x} $(id) `id`", "# syntax=docker/dockerfile:1")
@example("<<EOF", "\\\\$\\")
def test_values_come_back_as_they_were(first: str, second: str) -> None:
    try:
        text = "FROM x\n" + quoting.assignments([("A", first), ("B", second)], "ENV") + "\nCMD []\n"
    except InputError:
        assert quoting.UNWRITABLE.search(first + second)
        return
    found = reader.instructions(text)
    assert [name for name, _ in found] == ["FROM", "ENV", "CMD"]
    assert reader.pairs(found[1][1], {"HOME": "/root", "PATH": "/bin"}) == {"A": first, "B": second}


@given(TEXT)
def test_labels_come_back_as_they_were(value: str) -> None:
    try:
        text = quoting.assignments([("org.example/a-b", value)], "LABEL")
    except InputError:
        assert quoting.UNWRITABLE.search(value)
        return
    ((name, rest),) = reader.instructions(text)
    assert name == "LABEL"
    assert reader.pairs(rest, {}) == {"org.example/a-b": value}


@given(st.lists(st.text(), max_size=4))
def test_exec_form_is_one_line_of_the_same_words(words: list[str]) -> None:
    text = quoting.exec_form(words)
    assert text.isascii()
    ((_, rest),) = reader.instructions(f"CMD {text}")
    assert reader.words(rest) == words


@given(TEXT)
def test_a_comment_stays_a_comment(text: str) -> None:
    lines = f"# {quoting.comment(text)}".splitlines()
    assert len(lines) == 1
    assert reader.instructions("# first\n" + lines[0] + "\nFROM x") == [("FROM", "x")]


@pytest.mark.parametrize(
    ("value", "why"),
    [("a\nRUN id", r"'\\n'"), ("a\rb", r"'\\r'"), ("a\0b", "x00"), ("a\u2028b", "u2028"), ("x" * 60_001, "longer")],
)
def test_what_no_dockerfile_can_hold_is_refused(value: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        quoting.quoted(value)


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A\n", "Ä", "A-B", "$A"])
def test_names_of_variables(name: str) -> None:
    with pytest.raises(InputError, match="not the name of an environment variable"):
        quoting.check_variable_name(name)


@pytest.mark.parametrize(
    "name", ["libgl1", "g++-12", "libc6:amd64", "curl=7.88.1-10+deb12u5", "a2ps=1:4.14~rc1-2", "vim/stable"]
)
def test_debian_packages(name: str) -> None:
    assert quoting.apt_package(name) == name


@given(TEXT)
@example("-oAPT::Update::Pre-Invoke::=id")
@example("curl wget")
@example("curl\nwget")
@example("curl;id")
@example("./local.deb")
def test_what_is_no_debian_package_is_refused(name: str) -> None:
    try:
        accepted = quoting.apt_package(name)
    except InputError:
        return
    assert not accepted.startswith(("-", ".", "/"))
    assert set(accepted) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.:~=/_")


@pytest.mark.parametrize(
    "reference",
    ["debian", "debian:12", "localhost:5000/a/b:1", "mcr.microsoft.com/azureml/x@sha256:" + "0" * 64, "a_b/c-d:T.1"],
)
def test_image_references(reference: str) -> None:
    assert quoting.image_reference(reference) == reference


@pytest.mark.parametrize(
    "reference", ["", "a b", "a\nRUN id", "$BASE", "--platform=x y", "a AS b", "a@sha256:00", "a:b:c"]
)
def test_what_is_no_image_reference_is_refused(reference: str) -> None:
    with pytest.raises(InputError, match="not an image reference"):
        quoting.image_reference(reference)


@pytest.mark.parametrize(
    "lines",
    [
        ["RUN echo a \\", "  b"],
        ["RUN echo a \\", "# comment", "", "  b"],
        ["RUN <<EOF", "FROM inside", "EOF", "ENV A=1"],
        ["COPY <<-'END' /file", "text \\", "\tEND"],
        ["RUN echo '<<' && cat <<< x"],
        ["# FROM commented"],
        ["RUN echo one\nRUN echo two"],
    ],
)
def test_lines_of_the_user_stay_as_they_are(lines: list[str]) -> None:
    assert quoting.user_lines(lines) == "\n".join(lines)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["FROM other"], "FROM"),
        (["  from other AS x"], "FROM"),
        (["FR\\", "OM other"], "FROM"),
        (["RUN a \\"], "backslash"),
        (["RUN a \\  ", "# only a comment"], "backslash"),
        (["RUN <<EOF", "echo"], "no end"),
        (["RUN a\0b"], "x00"),
    ],
)
def test_lines_that_would_reach_beyond_themselves_are_refused(lines: list[str], why: str) -> None:
    with pytest.raises(InputError, match=why):
        quoting.user_lines(lines)
