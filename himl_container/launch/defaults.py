"""``[tool.himl-container.run]``: the defaults of runs, here and in AzureML, and how a flag replaces one.

The table is one for both places. Each command takes the keys that concern it, and accepts those of the other.
Paths in it are relative to the project's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from himl_container.errors import InputError
from himl_container.launch import parse
from himl_container.launch.data_choice import DataChoice, Kind, choice_of, parse_choice
from himl_container.settings import Settings

TABLES = ("datasets", "outputs", "env", "tags")
VALUES = (
    *("shm-size", "nodes", "max-duration", "source"),
    *("gpus", "memory", "runs-dir"),
    *("cluster", "experiment", "datastore", "search", "workspace-config"),
)
"""Those of both places, those of ``run --local``, those of ``submit``."""
LISTS = ("ignore",)
SWITCHES = ("wait", "show-output", "emulator")
_KEYS = (*TABLES, *VALUES, *LISTS, *SWITCHES)


class RunDefaults:
    """Reads the table, and lets what was given take precedence.

    :raises InputError: a key is unknown, or has a value of a wrong kind.
    """

    def __init__(self, settings: Settings) -> None:
        self._values, self._root = settings.run, settings.root
        self.where = f"{settings.source}: [tool.himl-container.run]" if settings.source else "[tool.himl-container.run]"
        for key, value in self._values.items():
            self._check(key, value)

    def _check(self, key: str, value: object) -> None:
        if key not in _KEYS:
            raise InputError(f"unknown key {key!r}", where=self.where, hint=f"Known keys: {', '.join(sorted(_KEYS))}.")
        if key in TABLES:
            fits, kind = isinstance(value, Mapping), "a table"
        elif key in LISTS:
            fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
            kind = "a list of text"
        elif key in SWITCHES:
            fits, kind = isinstance(value, bool), "true or false"
        else:
            fits, kind = not isinstance(value, (Mapping, list)), "a single value"
        if not fits:
            raise InputError(f"{key!r} must be {kind}", where=self.where)

    def text(self, key: str, given: str | None, flag: str) -> tuple[str, str] | None:
        """Return a value and where it comes from."""
        if given is not None:
            return given, flag
        value = self._values.get(key)
        return None if value is None else (str(value), f"{self.where} {key}")

    def number(self, key: str, given: int | None, default: int) -> int:
        """Return a whole number."""
        value = self._values.get(key, default) if given is None else given
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"{key!r} must be a whole number", where=self.where)
        return value

    def switch(self, key: str, given: bool) -> bool:
        """Return whether something was asked for."""
        return given or bool(self._values.get(key, False))

    def folder(self, key: str, given: Path | None, cwd: Path) -> Path | None:
        """Return a folder or file."""
        if given is not None:
            return cwd / given
        value = self._values.get(key)
        return None if value is None else self._root / parse.path_of(str(value))

    def names(self, key: str, given: tuple[str, ...]) -> tuple[str, ...]:
        """Return a list; what is given comes on top of it."""
        value = self._values.get(key, [])
        return (*(str(item) for item in value), *given) if isinstance(value, list) else given

    def data(self, key: str, given: tuple[str, ...], kind: Kind, cwd: Path) -> tuple[DataChoice, ...]:
        """Return datasets or outputs, in the order of their declaration; a flag replaces a default of the same name."""
        result: dict[str, DataChoice] = {}
        for name, value in self._table(key).items():
            result[name] = choice_of(name, value, kind, where=f"{self.where} {key}", base=self._root)
        seen: set[str] = set()
        for text in given:
            choice = parse_choice(text, kind, where=f"--{kind}", base=cwd)
            if choice.name in seen:
                hint = "Leave one of them out; 'name=' says what it is called in AzureML, should both be meant."
                raise InputError(f"the name {choice.name!r} is given twice", where=f"--{kind}", hint=hint)
            seen.add(choice.name)
            result[choice.name] = choice
        return tuple(result.values())

    def variables(self, given: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str]:
        """Return the user's environment variables."""
        result = {name: str(value) for name, value in self._table("env").items()}
        for text in given:
            if "=" not in text and text not in environ:
                raise InputError(f"{text!r} is not set here, so it has no value to pass on", where="--env")
            name, value = parse.parse_variable(text if "=" in text else f"{text}={environ[text]}", "--env")
            result[name] = value
        return result

    def tags(self, given: tuple[str, ...]) -> dict[str, str]:
        """Return the tags of a run; a flag replaces a default of the same name."""
        result = {name: str(value) for name, value in self._table("tags").items()}
        for text in given:
            name, equals, value = text.partition("=")
            if not equals or not name.strip():
                raise InputError(f"{text!r} is not NAME=VALUE", where="--tag")
            result[name.strip()] = value
        for name, value in result.items():
            if not parse.is_text(name + value):
                raise InputError("a tag holds a NUL byte or is not UTF-8", where="--tag")
        return result

    def _table(self, key: str) -> Mapping[str, object]:
        value = self._values.get(key, {})
        return value if isinstance(value, Mapping) else {}
