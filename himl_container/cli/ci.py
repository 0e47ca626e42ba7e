"""Outputs for pipelines: GitHub Actions reads files that variables name, Azure Pipelines reads standard output.

Sources: GitHub, "Workflow commands for GitHub Actions" (``GITHUB_OUTPUT``, ``GITHUB_STEP_SUMMARY``); Microsoft,
"Logging commands" of Azure Pipelines (``##vso[task.setvariable]``, with its escapes). A value can contain what an
attacker chose (a branch's settings name the image), so each is checked or escaped: none can set a second output.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from himl_container.errors import StorageError

_NAME = r"[A-Za-z_][A-Za-z0-9_-]*\Z"
_CONTROL = r"[\x00-\x1f\x7f\x85\u2028\u2029]"
_LONGEST = 8192
_AZURE = {"%": "%AZP25", "\r": "%0D", "\n": "%0A"}
_AZURE_PROPERTY = {**_AZURE, ";": "%3B", "]": "%5D"}


def in_pipeline(environ: Mapping[str, str]) -> bool:
    """Whether a pipeline that we know runs this process."""
    return any(environ.get(name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "TF_BUILD"))


def emit(
    outputs: Mapping[str, str],
    environ: Mapping[str, str],
    stdout: TextIO | None,
    *,
    summary: Sequence[tuple[str, str]] = (),
    title: str = "Image",
) -> None:
    """Give the outputs of a step to the pipeline that runs this, in its form; nothing happens outside of one.

    :param outputs: by name, such as ``image`` and ``digest``.
    :param stdout: where Azure Pipelines reads logging commands; None where something else is read there.
    :param summary: rows of the short table that GitHub shows for the run.
    :raises StorageError: a file that GitHub names cannot be written.
    """
    for name, value in outputs.items():
        if not re.match(_NAME, name) or len(value) > _LONGEST or re.search(_CONTROL, value):
            raise ValueError(f"{name!r} is not an output that a pipeline can take")
    if environ.get("GITHUB_OUTPUT"):
        _append(Path(environ["GITHUB_OUTPUT"]), "".join(map(github_output, outputs, outputs.values())))
    if environ.get("GITHUB_STEP_SUMMARY") and summary:
        _append(Path(environ["GITHUB_STEP_SUMMARY"]), github_table(title, summary))
    if stdout is not None and environ.get("TF_BUILD", "").lower() == "true":
        for name, value in outputs.items():
            stdout.write(azure_output(name, value))
        stdout.flush()


def tell(value: Mapping[str, Any], *, as_json: bool) -> None:
    """Give the result of a build or a push to the pipeline that runs this process.

    :param value: ``image`` (the name that everybody can use), ``digest`` (empty where no registry has it),
        ``fingerprint``, ``built``; where known also ``tested`` and ``bytes_sent``.
    :param as_json: standard output is for a program that expects JSON lines.
    """
    outputs = {name: str(value.get(name) or "") for name in ("image", "digest", "fingerprint")}
    outputs["built"] = "true" if value.get("built") else "false"
    rows = [(name, text) for name, text in outputs.items() if text]
    rows += [(name, str(value[name]).lower()) for name in ("tested", "bytes_sent") if value.get(name) is not None]
    emit(outputs, os.environ, None if as_json else sys.stdout, summary=rows)


def github_output(name: str, value: str) -> str:
    """Return the lines that set an output. The delimiter is random, so no value can contain it."""
    import secrets

    mark = f"himl-{secrets.token_hex(16)}"
    return f"{name}<<{mark}\n{value}\n{mark}\n"


def azure_output(name: str, value: str) -> str:
    """Return the line that sets an output variable."""
    return (
        f"##vso[task.setvariable variable={_escaped(name, _AZURE_PROPERTY)};isOutput=true]{_escaped(value, _AZURE)}\n"
    )


def github_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return a table in GitHub's Markdown; what a value contains is text there, never markup."""
    lines = [f"### {_text(title)}", "", "| | |", "| --- | --- |"]
    lines += [f"| {_text(name)} | <code>{_text(value)}</code> |" for name, value in rows]
    return "\n".join(lines) + "\n\n"


def _escaped(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(character, character) for character in text)


def _text(text: str) -> str:
    """Write everything but letters, digits and a few harmless signs as HTML's numbers, which Markdown leaves alone."""
    plain = "".join(text.splitlines())
    return "".join(c if c.isalnum() or c in " .:/@-+,=()" else f"&#{ord(c)};" for c in plain)


def _append(path: Path, text: str) -> None:
    """Append in one write, which the kernel does not mix with those of another process (``O_APPEND``)."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with open(handle, "wb", buffering=0) as file:
            data = text.encode("utf-8", "backslashreplace")
            if file.write(data) != len(data):
                raise OSError(28, "no space left on device")
    except OSError as error:
        hint = "GITHUB_OUTPUT and GITHUB_STEP_SUMMARY name files that the runner makes; unset them elsewhere."
        raise StorageError(f"cannot write: {error.strerror or error}", where=str(path), hint=hint) from error
