"""The ``pip:`` list of an environment file, and the requirements files that it names.

Format: pip's documentation, "Requirements File Format". Options that say where packages come from are taken over; those
that cannot be kept in a lock, and everything that lies on this machine only, are refused with the way to do it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from himl_container.config.sources import Raw
from himl_container.config.values import check_url, expand_variables
from himl_container.environment.model import LockedWheel, Origin, PipRequirement
from himl_container.environment.read import PipLine
from himl_container.environment.textfile import read_text
from himl_container.environment.urls import scrub
from himl_container.errors import ArtifactError, InputError

_COMMENT = re.compile(r"(^|\s+)#.*$")
_HASH = re.compile(r"\s--hash[= ]\s*([a-z0-9]+:[0-9a-fA-F]+)(?=\s|$)")
_HASH_LENGTHS = {"sha256": 64}  # the lock has no other, so no other could be checked
_LOCAL = re.compile(r"(?:\.{0,2}/|~|[A-Za-z]:[\\/]|\.{1,2}$|.*\\)", re.DOTALL)
_ARCHIVE = re.compile(r"\S*\.(?:whl|zip|tar\.gz|tgz|tar\.bz2|tar\.xz|tar)$")
_VERSION_CONTROL = re.compile(r"(?:git|hg|svn|bzr)(?:\+|://)")
_DEEPEST = 20

_BUILD_A_WHEEL = "Build a wheel of it (for example with 'uv build --wheel') and pass that with --wheel."
_REFUSED = {
    "--editable": ("an editable install has no meaning in an image", _BUILD_A_WHEEL),
    "--pre": ("pre-releases cannot be allowed for all packages at once", "Name them: package>=2.0rc1."),
    "--no-index": ("indexes cannot be switched off", "Set --pip-index-url to the index or folder (file://) to use."),
    "--no-binary": ("building from source cannot be forced", "A package without a wheel is built by itself."),
    "--only-binary": ("building from source cannot be forbidden", "A package with a wheel is never built."),
    "--trusted-host": (
        "the check of certificates cannot be switched off",
        "Point SSL_CERT_FILE at a file with the certificate of the authority that your server uses.",
    ),
}
_ALREADY_SO = frozenset({"--require-hashes", "--prefer-binary"})
_LONG = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-i": "--index-url",
    "-f": "--find-links",
    "-e": "--editable",
    "--pypi-url": "--index-url",
}


@dataclass(frozen=True)
class Place:
    """A URL or folder that packages come from, and where that was said."""

    url: str
    origin: Origin = field(compare=False)


@dataclass(frozen=True)
class PipInput:
    """What pip lists declare, in their order.

    :param constraints: versions that hold if something else asks for the package.
    :param index: ``--index-url``, each time it was given.
    :param files: the files that were read.
    """

    requirements: tuple[PipRequirement, ...] = ()
    constraints: tuple[PipRequirement, ...] = ()
    index: tuple[Place, ...] = ()
    extra: tuple[Place, ...] = ()
    find_links: tuple[Place, ...] = ()
    files: tuple[Path, ...] = ()

    def __add__(self, other: PipInput) -> PipInput:
        return PipInput(
            self.requirements + other.requirements,
            self.constraints + other.constraints,
            self.index + other.index,
            self.extra + other.extra,
            self.find_links + other.find_links,
            self.files + other.files,
        )


def read_pip(lines: Iterable[PipLine], *, folder: Path, environ: Mapping[str, str]) -> PipInput:
    """Return what a ``pip:`` list declares, files that it names included.

    :param folder: of the environment file; relative paths start there.
    :param environ: variables for ``${NAME}`` in the URLs of options; nowhere else are they put in.
    :raises InputError: a line that is not understood or cannot be locked; names the line.
    """
    result = PipInput()
    for line in lines:
        for text in _logical(line.text.splitlines()):
            result += _line(text[1], line.origin, folder, environ, chain=(), constraint=False)
    return result


def pip_requirement(text: str, origin: Origin) -> PipRequirement:
    """Return a requirement in one spelling: normalised name, sorted specifiers.

    :raises InputError: it is not a PEP 508 requirement, or its URL is not one of a wheel without credentials.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    if not text.isprintable():
        raise InputError(f"{text!r} has characters that no requirement has", where=str(origin))
    hashes = tuple(sorted(_checked_hash(found, origin) for found in _HASH.findall(text)))
    text = _HASH.sub("", text).strip()
    if text.startswith("--") or " --" in text:
        option = text[text.index("--") :].split("=")[0].split()[0]
        raise InputError(f"the option {option} cannot be used with a requirement", where=str(origin))
    _refuse_local(text, origin)
    try:
        requirement = Requirement(text)
        requirement.name = canonicalize_name(requirement.name)
        # packaging reads some names (a_) that have no spelling of their own after normalisation.
        Requirement(str(requirement))
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise InputError(scrub(f"{text!r} is not a pip requirement: {reason}"), where=str(origin)) from error
    if requirement.url is not None:
        _check_wheel_url(requirement.url, origin)
    spelling = str(requirement)
    if requirement.url is not None:
        # Versions of packaging before 26 write "name@ https://...", and a lock must not depend on that.
        name, _, rest = spelling.partition("@")
        spelling = f"{name.rstrip()} @ {rest.lstrip()}"
    return PipRequirement(text=spelling, name=requirement.name, origin=origin, hashes=hashes)


def check_hashes(requirements: Iterable[PipRequirement], wheels: Iterable[LockedWheel]) -> None:
    """Check that what was locked is what ``--hash`` of a requirement allows.

    Of a package that is built from its source distribution, the hash is that of the source distribution.

    :raises ArtifactError: it is not; names the requirement's place.
    """
    locked = {wheel.name: wheel for wheel in wheels}
    for requirement in requirements:
        wheel = locked.get(requirement.name)
        if wheel is None or not requirement.hashes:
            continue
        if f"sha256:{wheel.sdist_sha256 or wheel.sha256}" not in requirement.hashes:
            what = f"the index has {wheel.filename} with another hash than the requirement allows"
            hint = "Someone replaced the file, or the hash of the wheel for this platform is missing in the list."
            raise ArtifactError(what, where=str(requirement.origin), hint=hint)


def _line(
    text: str, origin: Origin, folder: Path, environ: Mapping[str, str], *, chain: tuple[Path, ...], constraint: bool
) -> PipInput:
    if not text.startswith("-"):
        requirement = pip_requirement(text, origin)
        return PipInput(constraints=(requirement,)) if constraint else PipInput(requirements=(requirement,))
    option, value = _option(text, origin)
    if option in _ALREADY_SO:
        return PipInput()
    if option in _REFUSED:
        what, hint = _REFUSED[option]
        raise InputError(f"{option}: {what}", where=str(origin), hint=hint)
    if option in ("--requirement", "--constraint"):
        name = _needed(option, value, origin)
        if "://" in name:
            hint = "Download it and name the file."
            raise InputError("a requirements file cannot be read from a URL", where=str(origin), hint=hint)
        return _file(folder / name, origin, environ, chain=chain, constraint=constraint or option == "--constraint")
    if option in ("--index-url", "--extra-index-url", "--find-links"):
        place = Place(_location(option, _needed(option, value, origin), origin, folder, environ), origin)
        if option == "--index-url":
            return PipInput(index=(place,))
        return PipInput(extra=(place,)) if option == "--extra-index-url" else PipInput(find_links=(place,))
    raise InputError(f"the option {option} is not supported here", where=str(origin))


def _file(
    path: Path, origin: Origin, environ: Mapping[str, str], *, chain: tuple[Path, ...], constraint: bool
) -> PipInput:
    real = path.resolve()
    if real in chain:
        names = " -> ".join(file.name for file in (*chain[chain.index(real) :], real))
        raise InputError(f"requirements files name each other in a circle: {names}", where=str(origin))
    if len(chain) >= _DEEPEST:
        raise InputError("requirements files name each other too deeply", where=str(origin))
    if not path.exists():
        raise InputError(
            f"there is no file {path}", where=str(origin), hint="Paths are relative to the file naming it."
        )
    result = PipInput(files=(path,))
    for number, text in _logical(read_text(path).splitlines()):
        place = Origin(str(path), number)
        result += _line(text, place, path.parent, environ, chain=(*chain, real), constraint=constraint)
    return result


def _logical(lines: Iterable[str]) -> Iterable[tuple[int, str]]:
    """Yield number and text of each line that says something: a backslash at the end joins, ``#`` begins a comment."""
    pending = ""
    began = 0
    for number, line in enumerate(lines, start=1):
        began = began if pending else number
        if line.endswith("\\") and not _COMMENT.match(line):
            pending += line[:-1]
            continue
        text = _COMMENT.sub("", pending + line).strip()
        pending = ""
        if text:
            yield began, text
    if _COMMENT.sub("", pending).strip():
        yield began, _COMMENT.sub("", pending).strip()


def _option(text: str, origin: Origin) -> tuple[str, str]:
    """Return an option's long name and its value, in each of the spellings that pip takes."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"a quote is not closed in {text.split(maxsplit=1)[0]!r}", where=str(origin)) from error
    first = words[0]
    if first.startswith("--"):
        name, equals, value = first.partition("=")
        rest = words[1:]
        words = [name, value, *rest] if equals else [name, *rest]
    elif len(first) > 2:  # -rfile
        words = [first[:2], first[2:], *words[1:]]
    if len(words) > 2:
        hint = "Put each option on a line of its own."
        raise InputError(f"there is more than one value after {words[0]}", where=str(origin), hint=hint)
    return _LONG.get(words[0], words[0]), words[1] if len(words) > 1 else ""


def _needed(option: str, value: str, origin: Origin) -> str:
    if not value or not value.isprintable():
        raise InputError(f"{option} needs a value", where=str(origin))
    return value


def _location(option: str, value: str, origin: Origin, folder: Path, environ: Mapping[str, str]) -> str:
    """Return the URL of an index or the URL or absolute path of a place of wheels."""
    if "://" in value:
        value = expand_variables(value, environ)
        check_url(value, Raw(value, f"{origin}: {option}", folder))
        return value
    path = (folder / value).resolve()
    if not path.is_dir():
        raise InputError(f"{option}: there is no folder {path}", where=str(origin))
    return str(path) if option == "--find-links" else path.as_uri()


def _refuse_local(text: str, origin: Origin) -> None:
    if _VERSION_CONTROL.search(text):
        raise InputError("a version-control address names no fixed wheel", where=str(origin), hint=_BUILD_A_WHEEL)
    bare = re.split(r"[;\[]", text, maxsplit=1)[0].strip()
    if "://" not in bare and "@" not in bare and (_LOCAL.match(bare) or _ARCHIVE.fullmatch(bare)):
        hint = "Pass it with --wheel." if bare.endswith(".whl") else _BUILD_A_WHEEL
        raise InputError(f"{bare!r} is a path on this machine", where=str(origin), hint=hint)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", bare):
        raise InputError("a URL without a name", where=str(origin), hint="Write it as: name @ https://....whl")


def _check_wheel_url(url: str, origin: Origin) -> None:
    check_url(url, Raw(url, str(origin), Path()))
    parts = urlsplit(url)
    if parts.scheme == "file":
        raise InputError("a file on this machine", where=str(origin), hint="Pass the wheel with --wheel.")
    if parts.username is not None or parts.query or "$" in url:
        hint = "Leave them out and put them into ~/.netrc, or use an index with --pip-extra-index-url."
        raise InputError(
            "the requirement's URL has credentials, a query or a variable in it", where=str(origin), hint=hint
        )
    if not parts.path.endswith(".whl"):
        raise InputError("the requirement's URL is not one of a wheel", where=str(origin), hint=_BUILD_A_WHEEL)


def _checked_hash(text: str, origin: Origin) -> str:
    algorithm, _, value = text.partition(":")
    if len(value) != _HASH_LENGTHS.get(algorithm):
        known = ", ".join(_HASH_LENGTHS)
        raise InputError(f"--hash={algorithm}: not a whole hash of a kind that is known ({known})", where=str(origin))
    return f"{algorithm}:{value.lower()}"
