"""Reading a lock's text, with everything in it checked.

A lock is committed, merged by hand and taken from other people: nothing in it is believed. What comes out has names
without separators, addresses of known schemes and without credentials, and hashes of the right length, so that later
stages can build paths and requests from it.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from himl_container.environment.model import BasePin, Declared, Lock, LockedConda, LockedWheel
from himl_container.environment.urls import scrub
from himl_container.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

FORMAT = 1
"""Version of the ``[tool.himl-container]`` part; a new one where an old reader would misunderstand the file."""

_DAMAGED = "Restore the file from version control, or delete it and run 'himl-container lock'."
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ADDRESS = re.compile(
    r"(?:https?|oci)://[^\s/@\x00-\x1f\x7f\"'\\]+(?:/[^\s@\x00-\x1f\x7f\"'\\]*)?|file:///[^\s\x00-\x1f\x7f\"'\\]*"
)
_PATTERNS = {
    "Conda package name": re.compile(r"[a-z0-9_][a-z0-9_.-]*"),
    "version": re.compile(r"[A-Za-z0-9_.+!-]+"),
    "build string": re.compile(r"[A-Za-z0-9_.+-]+"),
    "platform": re.compile(r"[a-z0-9]+-[a-z0-9_]+"),
    "Conda folder": re.compile(r"noarch|[a-z0-9]+-[a-z0-9_]+"),
    "Python version": re.compile(r"3\.[0-9]+(?:\.[0-9]+)?[a-z0-9.+]*"),
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "md5": re.compile(r"[0-9a-f]{32}"),
    "digest": re.compile(r"sha256:[0-9a-f]{64}"),
    "image reference": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]*"),
    "noarch kind": re.compile(r"python|generic"),
    "folder": re.compile(r"(?!/)(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9_./-]+"),
    "archive": re.compile(r"[A-Za-z0-9_.+!%-]+(?:\.conda|\.tar\.bz2)"),
    "file name": re.compile(r"(?!\.)[^/\\\x00-\x1f\x7f]+"),
    "address": _ADDRESS,
}


def read_lock_text(text: str, *, where: str) -> Lock:
    """Return the lock that a text describes.

    :param where: the file, for errors.
    :raises InputError: the text is not a lock, is damaged, or has a newer format; with file and line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        place = f"{where}:{line[1] if line else text.count(chr(10)) + 1}"
        raise InputError(f"the lock is not TOML: {error}", where=place, hint=_DAMAGED) from error
    except RecursionError as error:
        raise InputError("the lock is nested too deeply", where=where, hint=_DAMAGED) from error
    return _Reader(text, where).lock(document)


@dataclass(frozen=True)
class _Table:
    """A table of the document that knows where it stands."""

    values: Mapping[str, Any]
    place: str

    def fail(self, what: str) -> InputError:
        return InputError(what, where=self.place, hint=_DAMAGED)

    def text(self, name: str, kind: str = "", *, optional: bool = False) -> str:
        """Return a string that has the form of its kind; an optional one may be missing."""
        item = self.values.get(name)
        if item is None:
            if optional:
                return ""
            raise self.fail(f"the lock lacks {name!r}")
        if not isinstance(item, str):
            raise self.fail(f"{name!r} of the lock is not a string")
        if not (_PATTERNS[kind].fullmatch(item) if kind else not _CONTROL.search(item)):
            raise self.fail(f"{name!r} of the lock is no valid {kind or 'text'}: {scrub(item)[:120]!r}")
        return item

    def number(self, name: str) -> int:
        """Return a whole number of zero or more; zero where it is missing."""
        item: object = self.values.get(name, 0)
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise self.fail(f"{name!r} of the lock is not a whole number")
        return item

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings; empty where it is missing."""
        item = self.values.get(name, [])
        if not isinstance(item, list) or not all(isinstance(entry, str) for entry in item):
            raise self.fail(f"{name!r} of the lock is not a list of strings")
        return tuple(item)

    def table(self, name: str) -> _Table:
        """Return a table inside this one; empty where it is missing."""
        item = self.values.get(name, {})
        if not isinstance(item, dict):
            raise self.fail(f"{name!r} of the lock is not a table")
        return _Table(item, self.place)

    def hash(self) -> str:
        return self.table("hashes").text("sha256", "sha256")


class _Reader:
    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where

    def lock(self, document: dict[str, Any]) -> Lock:
        top = _Table(document, self._where)
        own = _Table(top.table("tool").table("himl-container").values, self._place("[tool.himl-container]"))
        self._check_format(top, own)
        conda = tuple(self._each(own, "conda", "[[tool.himl-container.conda]]", _conda))
        wheels = tuple(self._each(top, "packages", "[[packages]]", _wheel))
        self._check_unique("Conda package", [record.name for record in conda])
        self._check_unique("package", [wheel.name for wheel in wheels])
        return Lock(
            platform=own.text("platform", "platform"),
            python_version=own.text("python", "Python version"),
            base=_base(_Table(own.table("base").values, self._place("[tool.himl-container.base]"))),
            virtual_packages=own.texts("virtual-packages"),
            variables=_variables(own.table("variables")),
            declared=_declared(_Table(own.table("declared").values, self._place("[tool.himl-container.declared]"))),
            conda=conda,
            wheels=tuple(sorted(wheels, key=lambda wheel: wheel.name)),
        )

    def _check_format(self, top: _Table, own: _Table) -> None:
        if "lock-version" not in top.values or not own.values:
            raise InputError(
                "the file is not a lock of himl-container",
                where=self._where,
                hint="Make one with 'himl-container lock'; name another file with --lock-file.",
            )
        version = top.text("lock-version")
        number = own.number("format")
        if number > FORMAT or not version.startswith("1."):
            raise InputError(
                f"the lock was written by a newer himl-container (format {number}, pylock {version})",
                where=self._where,
                hint=f"Update himl-container; this one reads format {FORMAT}.",
            )
        if number < 1:
            raise own.fail("the lock does not say its format")

    def _check_unique(self, kind: str, names: list[str]) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise InputError(f"the lock names the {kind} {name!r} twice", where=self._where, hint=_DAMAGED)
            seen.add(name)

    def _each(self, parent: _Table, name: str, header: str, make: Callable[[_Table], Any]) -> list[Any]:
        items = parent.values.get(name, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise parent.fail(f"{name!r} of the lock is not a list of tables")
        result = []
        for number, item in enumerate(items):
            with self._located(header, number):
                result.append(make(_Table(item, self._where)))
        return result

    @contextlib.contextmanager
    def _located(self, header: str, number: int) -> Iterator[None]:
        """Say in errors where the n-th table with a header stands; looked up only then, because it takes a while."""
        try:
            yield
        except InputError as error:
            error.where = self._place(header, number)
            raise

    def _place(self, header: str, number: int = 0) -> str:
        """Return file and line of the n-th table with a header; the file alone where the text is written otherwise."""
        lines = [index for index, line in enumerate(self._text.splitlines(), 1) if line.strip() == header]
        return f"{self._where}:{lines[number]}" if number < len(lines) else self._where


def _conda(table: _Table) -> LockedConda:
    url = table.text("url", "address")
    if not _PATTERNS["archive"].fullmatch(url.rpartition("/")[2]):
        raise table.fail(f"'url' of the lock does not name a Conda archive: {url[:200]!r}")
    return LockedConda(
        name=table.text("name", "Conda package name"),
        version=table.text("version", "version"),
        build=table.text("build", "build string"),
        build_number=table.number("build-number"),
        subdir=table.text("subdir", "Conda folder"),
        url=url,
        channel=table.text("channel", "address"),
        sha256=table.text("sha256", "sha256"),
        size=table.number("size"),
        md5=table.text("md5", "md5", optional=True),
        depends=table.texts("depends"),
        constrains=table.texts("constrains"),
        noarch=table.text("noarch", "noarch kind", optional=True),
        license=table.text("license", optional=True),
        timestamp=table.number("timestamp"),
        python_site_packages_path=table.text("python-site-packages-path", "folder", optional=True),
        track_features=table.texts("track-features"),
    )


def _wheel(table: _Table) -> LockedWheel:
    name, version = table.text("name"), table.text("version", "version")
    own = table.table("tool").table("himl-container")
    if "wheel" in own.values:
        sdist = table.table("sdist")
        wheel = LockedWheel(
            name=name,
            version=version,
            filename=own.text("wheel", "file name"),
            sha256=own.text("sha256", "sha256"),
            size=own.number("size"),
            sdist_url=sdist.text("url", "address"),
            sdist_sha256=sdist.hash(),
            sdist_size=sdist.number("size"),
            build_requires=own.texts("build-requires"),
        )
    else:
        files = table.values.get("wheels")
        if not isinstance(files, list) or len(files) != 1 or not isinstance(files[0], dict):
            raise table.fail(f"the package {name!r} of the lock does not have exactly one wheel")
        file = _Table(files[0], table.place)
        private = own.values.get("private") is True
        wheel = LockedWheel(
            name=name,
            version=version,
            filename=file.text("name", "file name"),
            sha256=file.hash(),
            size=file.number("size"),
            url="" if private else file.text("url", "address"),
            private=private,
        )
    _check_wheel_name(table, wheel)
    return wheel


def _check_wheel_name(table: _Table, wheel: LockedWheel) -> None:
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

    try:
        name, *_ = parse_wheel_filename(wheel.filename)
    except InvalidWheelFilename as error:
        raise table.fail(f"the lock names a file that is no wheel: {wheel.filename[:120]!r}") from error
    if name != canonicalize_name(wheel.name) or wheel.name != name:
        raise table.fail(f"the lock gives {wheel.name!r} the wheel of another package: {wheel.filename[:120]!r}")


def _base(table: _Table) -> BasePin:
    pin = BasePin(
        reference=table.text("reference", "image reference"),
        digest=table.text("digest", "digest", optional=True),
        rootfs=table.text("rootfs", "digest", optional=True),
    )
    if bool(pin.digest) == bool(pin.rootfs):
        raise table.fail("the base image of the lock is not pinned by exactly one of 'digest' and 'rootfs'")
    return pin


def _variables(table: _Table) -> tuple[tuple[str, str], ...]:
    for name, text in table.values.items():
        if not isinstance(text, str) or "\0" in text:
            raise table.fail(f"the variable {name!r} of the lock is not a string")
        if not name or "=" in name or _CONTROL.search(name):
            raise table.fail(f"the lock has a variable with the name {name!r}")
    return tuple(sorted(table.values.items()))


def _declared(table: _Table) -> Declared:
    return Declared(
        channels=table.texts("channels"),
        conda=table.texts("conda"),
        pip=table.texts("pip"),
        indexes=table.texts("indexes"),
        wheels=table.texts("wheels"),
        variables=table.texts("variables"),
        base=table.text("base"),
        platform=table.text("platform"),
        virtual_packages=table.texts("virtual-packages"),
        pypi_names=table.texts("pypi-names"),
        constraints=table.texts("constraints"),
    )
