"""A dataset or an output as a user writes it: one notation for a flag, the same words as a table in the settings.

::

    --dataset iris=./iris                                    a folder on this machine
    --dataset iris=datastore=blobs,version=2                 a dataset of the workspace
    --dataset iris=./iris,mode=download,target=/data/iris    both: each place takes what it needs

    [tool.himl-container.run.datasets]
    iris = { local = "iris", datastore = "blobs", version = 2 }

What follows ``NAME=`` is a folder, words ``KEY=VALUE``, or a folder and such words, divided by commas. A comma that no
known key follows belongs to what stands before it, so every folder's name can be written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from himl_container.errors import InputError
from himl_container.launch.parse import check_name, is_text, path_of

Kind = Literal["dataset", "output"]

_KEYS = {
    "dataset": ("local", "name", "datastore", "version", "mode", "target"),
    "output": ("local", "name", "datastore", "mode"),
}
_MODES = {"dataset": ("mount", "download"), "output": ("mount", "upload")}
_MAX_NAME = 255


@dataclass(frozen=True)
class DataChoice:
    """What a user says of a dataset or an output.

    :param name: by which it is spoken of here; also its name in AzureML, unless ``registered`` says otherwise.
    :param local: its folder on this machine; None where none was given.
    :param registered: its name in AzureML; may have slashes.
    :param datastore: empty for the default one.
    :param version: of a dataset; None for the latest.
    :param mode: ``mount``, ``download`` (datasets) or ``upload`` (outputs).
    :param target: absolute path inside of the container; empty for one that the platform chooses.
    :param where: the flag or setting, for messages.
    """

    name: str
    local: Path | None
    registered: str
    datastore: str = ""
    version: int | None = None
    mode: str = "mount"
    target: str = ""
    where: str = ""


def parse_choice(text: str, kind: Kind, *, where: str, base: Path) -> DataChoice:
    """Read the text of a flag.

    :param base: the folder that a relative folder is relative to.
    :raises InputError: it does not follow the notation.
    """
    name, equals, rest = text.partition("=")
    if equals and not rest:
        raise InputError(f"{text!r} has nothing after '='", where=where, hint=_hint(kind))
    check_name(name, where)
    return choice_of(name, _words(rest, kind, where) if rest else {}, kind, where=where, base=base)


def choice_of(name: str, value: object, kind: Kind, *, where: str, base: Path) -> DataChoice:
    """Read what settings say of a dataset or output: the text that a flag has after ``NAME=``, or a table.

    :raises InputError: an unknown key, or a value that cannot be.
    """
    check_name(name, where)
    words = _words(value, kind, where) if isinstance(value, str) else value
    if not isinstance(words, Mapping):
        raise InputError(f"{name!r} is neither text nor a table", where=where, hint=_hint(kind))
    for key in words:
        if key not in _KEYS[kind]:
            known = ", ".join(_KEYS[kind])
            raise InputError(f"{name!r} has an unknown key {key!r}", where=where, hint=f"Known keys: {known}.")
    text = {key: _text(name, key, item, where) for key, item in words.items()}
    local = text.get("local", "")
    return DataChoice(
        name,
        base / path_of(local) if local else None,
        _registered(text.get("name", name), where),
        datastore=text.get("datastore", ""),
        version=_version(text.get("version", ""), where),
        mode=_mode(text.get("mode", "mount"), kind, where),
        target=text.get("target", ""),
        where=where,
    )


def _words(text: str, kind: Kind, where: str) -> dict[str, str]:
    """Take the text after ``NAME=`` apart."""
    known = "|".join(_KEYS[kind])
    found: dict[str, str] = {}
    for index, part in enumerate(re.split(rf",(?=(?:{known})=)", text)):
        match = re.fullmatch(rf"({known})=(.*)", part, re.DOTALL)
        key, value = (match[1], match[2]) if match else ("local", part)
        if not match and index:
            raise InputError(f"{part!r} is not KEY=VALUE", where=where, hint=_hint(kind))
        if key in found:
            what = "a folder" if key == "local" else repr(key)
            raise InputError(f"{text!r} says {what} twice", where=where)
        found[key] = value
    return found


def _text(name: str, key: str, value: object, where: str) -> str:
    if key == "version" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip() or not is_text(value):
        raise InputError(f"{key!r} of {name!r} is empty, or no text", where=where)
    return value


def _registered(name: str, where: str) -> str:
    stripped = name.strip()
    parts = stripped.rstrip("/").split("/")
    if not stripped.strip("/") or ".." in parts or len(name) > _MAX_NAME or not name.isprintable():
        raise InputError(f"{name!r} cannot be the name of a dataset in AzureML", where=where)
    return stripped


def _version(text: str, where: str) -> int | None:
    if text in ("", "latest"):
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise InputError(f"{text!r} is not a version", where=where, hint="Write 1, 2, ... or 'latest'.")
    return int(text)


def _mode(text: str, kind: Kind, where: str) -> str:
    if text not in _MODES[kind]:
        raise InputError(f"{text!r} is not a mode here", where=where, hint=f"Choose {' or '.join(_MODES[kind])}.")
    return text


def _hint(kind: Kind) -> str:
    return f"Write NAME, NAME=FOLDER or NAME=KEY=VALUE,...; keys: {', '.join(_KEYS[kind])}."
