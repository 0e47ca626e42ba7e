"""Outputs for pipelines: what they read is what was meant, whatever the values contain."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.cli.ci import azure_output, emit, github_output, github_table, in_pipeline, tell
from himl_container.errors import StorageError

VALUES = st.text(st.characters(blacklist_categories=["Cs"]), max_size=60)


def read_github(text: str) -> dict[str, str]:
    """Read a GITHUB_OUTPUT file as GitHub's runner does: ``NAME=VALUE``, or ``NAME<<MARK`` up to a line MARK."""
    found, lines = {}, text.split("\n")
    while lines:
        line = lines.pop(0)
        name, heredoc, mark = line.partition("<<")
        if heredoc and "=" not in name:
            value = []
            while (line := lines.pop(0)) != mark:
                value.append(line)
            found[name] = "\n".join(value)
        elif line:
            name, _, found[name] = line.partition("=")
    return found


def read_azure(text: str) -> dict[str, str]:
    """Read the lines that Azure's agent takes for commands."""
    found = {}
    for line in re.split(r"\r\n|\r|\n", text):
        command = re.match(r"##vso\[task\.setvariable variable=([^;\]]*);isOutput=true\](.*)", line)
        if command:
            found[command[1]] = command[2].replace("%0D", "\r").replace("%0A", "\n").replace("%AZP25", "%")
    return found


@given(VALUES)
def test_github_reads_one_output_whatever_its_value(value: str) -> None:
    assert read_github(github_output("image", value)) == {"image": value}


@given(VALUES)
def test_azure_reads_one_output_whatever_its_value(value: str) -> None:
    assert read_azure(azure_output("image", value)) == {"image": value}


@pytest.mark.parametrize(
    "value", ["x\nimage2=y", "x\nEOF\nevil=1", "x\r##vso[task.setvariable variable=PATH]y", "%0Ax"]
)
def test_values_cannot_break_out(value: str) -> None:
    assert set(read_github(github_output("image", value))) == {"image"}
    assert set(read_azure(azure_output("image", value))) == {"image"}


@given(VALUES)
def test_table_holds_values_as_text(value: str) -> None:
    table = github_table("Image", [("image", value)])
    assert table.count("\n") == 6
    cell = table.splitlines()[4]
    assert cell.count("|") == 3
    assert cell.count("<") == 2  # of <code> and </code> alone
    assert "`" not in cell
    assert "[" not in cell


def test_outputs_are_added_to_what_earlier_steps_wrote(tmp_path: Path) -> None:
    file, summary = tmp_path / "output", tmp_path / "summary"
    file.write_text("earlier=1\n")
    environ = {"GITHUB_OUTPUT": str(file), "GITHUB_STEP_SUMMARY": str(summary)}
    stdout = io.StringIO()
    emit({"image": "a/b:c", "built": "true"}, environ, stdout, summary=[("image", "a/b:c")])
    assert read_github(file.read_text()) == {"earlier": "1", "image": "a/b:c", "built": "true"}
    assert "a/b:c" in summary.read_text()
    assert stdout.getvalue() == ""


def test_steps_at_once_do_not_mix_their_lines(tmp_path: Path) -> None:
    environ = {"GITHUB_OUTPUT": str(tmp_path / "output")}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: emit({f"o{n}": str(n) * 500}, environ, None), range(40)))
    found = read_github((tmp_path / "output").read_text())
    assert found == {f"o{n}": str(n) * 500 for n in range(40)}


def test_azure_gets_its_lines_unless_standard_output_is_for_a_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setenv("TF_BUILD", "True")
    value = {"image": "a/b:c", "digest": "sha256:1", "fingerprint": "f", "built": True, "tested": False}
    tell(value, as_json=False)
    expected = {"image": "a/b:c", "digest": "sha256:1", "fingerprint": "f", "built": "true"}
    assert read_azure(capsys.readouterr().out) == expected
    tell(value, as_json=True)
    assert capsys.readouterr().out == ""


def test_nothing_is_written_outside_of_a_pipeline(tmp_path: Path) -> None:
    stdout = io.StringIO()
    emit({"image": "a"}, {"GITHUB_OUTPUT": "", "TF_BUILD": ""}, stdout, summary=[("a", "b")])
    assert stdout.getvalue() == ""
    assert not in_pipeline({"GITHUB_OUTPUT": ""})
    assert in_pipeline({"TF_BUILD": "True"})


@pytest.mark.parametrize("outputs", [{"a b": "x"}, {"a=b": "x"}, {"a": "x\x00"}, {"a": "x\ny"}, {"a": "x" * 10_000}])
def test_what_is_no_output_of_ours_is_refused(outputs: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "output"
    with pytest.raises(ValueError, match="not an output"):
        emit(outputs, {"GITHUB_OUTPUT": str(file)}, None)
    assert not file.exists()


def test_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        emit({"image": "a"}, {"GITHUB_OUTPUT": str(tmp_path / "no" / "output")}, None)
    assert str(tmp_path) in str(caught.value)
