"""Laying out wheels: by uv, with the environment's own interpreter, in a temporary folder that is read back as entries.

uv fetches (with the user's keyring, netrc, proxies and certificates), checks hashes and unpacks. What it writes about
*this* machine is undone here: the first lines of scripts, and the files that say where a wheel came from.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import posixpath
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment.model import Lock, LockedWheel, PipIndexes
from himl_container.environment.urls import scrub
from himl_container.errors import ArtifactError, StorageError
from himl_container.image.model import PREFIX
from himl_container.image.tar import Entry
from himl_container.image.wheel_checks import check_file, check_tags, is_inside

_DROPPED = ("direct_url.json", "uv_cache.json", "REQUESTED")
_INSTALLER = b"himl-container\n"
_TRAMPOLINE = re.compile(rb"#!/bin/sh\n'''exec' [^\n]*\n' '''\n")
# What may reach uv of the user's own settings for it: credentials, certificates, network; nothing that decides content.
_UV_VARIABLES = re.compile(
    r"UV_(CACHE_DIR|KEYRING_PROVIDER|INDEX_\w+_(USERNAME|PASSWORD)|INDEX|DEFAULT_INDEX|INDEX_URL|EXTRA_INDEX_URL"
    r"|(SYSTEM|NATIVE)_(CERTS|TLS)|INSECURE_HOST|HTTP_TIMEOUT|HTTP_RETRIES|OFFLINE|CONCURRENT_\w+|CREDENTIALS_DIR)"
)
_FOREIGN = re.compile(r"PYTHON\w*|VIRTUAL_ENV|CONDA_\w+|UV_\w+")
_CAUSE = re.compile(r"^\s*(?:error|cause): ", re.MULTILINE)


@dataclass(frozen=True)
class StagedWheel:
    """What a wheel puts into the environment."""

    wheel: LockedWheel
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class WheelSource:
    """Where wheels come from, and for what they are laid out.

    :param interpreter: prefix of the environment's interpreter on this machine.
    :param paths: where private wheels lie, by sha256.
    :param indexes: indexes whose credentials uv may need.
    """

    lock: Lock
    interpreter: Path
    paths: Mapping[str, Path]
    cache: Cache
    indexes: PipIndexes

    def local(self, wheel: LockedWheel) -> Path | None:
        """Return where the wheel lies on this machine, or None where it has to be fetched.

        :raises ArtifactError: it should lie here and does not.
        """
        if wheel.private:
            if wheel.sha256 not in self.paths:
                raise ArtifactError("the private wheel is not among the given ones", where=wheel.filename)
            return self.paths[wheel.sha256]
        built = self.cache.root / "wheels" / wheel.sha256 / wheel.filename
        if built.is_file():
            return built
        if not wheel.url:
            raise ArtifactError(
                "the wheel was built from a source distribution and is no longer in the cache",
                where=wheel.filename,
                hint="Run 'himl-container lock' to build it again.",
            )
        return None


def stage_wheels(
    wheels: Sequence[LockedWheel], folder: Path, source: WheelSource, *, fresh: bool = False
) -> dict[str, StagedWheel]:
    """Lay wheels out in an empty folder as they are to be below the final prefix; return them by name.

    :param fresh: unpack (and fetch) everything anew instead of trusting uv's cache, and take the contents as they are.
    :raises ArtifactError: a wheel cannot be fetched, is another one, does not fit, or is malformed or hostile.
    """
    for wheel in wheels:
        check_tags(wheel, source.lock)
    root = folder / "all"
    _uv_install(wheels, root, source, fresh)
    owners = _owners(root, wheels)
    if owners is not None:
        return {wheel.name: _read(wheel, root, owners[wheel.name], source, fresh) for wheel in wheels}
    # Two wheels have one path, or a wheel has a file that its RECORD does not list: only apart is it known whose it is.
    staged = {}
    for number, wheel in enumerate(wheels):
        root = folder / str(number)
        _uv_install([wheel], root, source, fresh)
        staged[wheel.name] = _read(wheel, root, _walk(root), source, fresh)
    return staged


def _uv_install(wheels: Sequence[LockedWheel], root: Path, source: WheelSource, fresh: bool) -> None:
    from uv import find_uv_bin

    requirements = root.with_suffix(".txt")
    requirements.write_text("".join(_requirement(wheel, source) for wheel in wheels), encoding="utf-8")
    command: list[str | Path] = [find_uv_bin(), "pip", "install", "--no-config", "--no-deps", "--no-build"]
    command += ["--require-hashes", "--no-progress", "--color", "never", "--no-python-downloads"]
    command += ["--python", source.interpreter / "bin" / "python", "--prefix", root, "--requirements", requirements]
    if fresh:
        command += ["--cache-dir", root.with_suffix(".cache")]
    done = subprocess.run(
        command, env=_environ(source.indexes), stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/"
    )
    if done.returncode:
        raise _explained(done.stderr.decode(errors="replace"), wheels)


def _requirement(wheel: LockedWheel, source: WheelSource) -> str:
    """One line of a requirements file. Quoted, because uv replaces ``${NAME}`` in it by the user's variables."""
    path = source.local(wheel)
    if path is not None:
        check_file(wheel, path)
    url = path.absolute().as_uri() if path is not None else wheel.url.partition("#")[0]
    if not re.fullmatch(r"[!-~]+", url) or not re.fullmatch(r"[0-9a-f]{64}", wheel.sha256):
        raise ArtifactError("the lock has an address or a hash that is none", where=wheel.filename)
    return f"{wheel.name} @ {url.replace('$', '%24')} --hash=sha256:{wheel.sha256}\n"


def _environ(indexes: PipIndexes) -> dict[str, str]:
    """The user's environment without what changes the layout. Indexes go by variable: arguments are public."""
    kept = {k: v for k, v in os.environ.items() if _UV_VARIABLES.fullmatch(k) or not _FOREIGN.fullmatch(k)}
    if indexes.index:
        kept["UV_DEFAULT_INDEX"] = indexes.index
    if indexes.private:
        kept["UV_INDEX"] = " ".join(indexes.private)
    return kept


def _explained(text: str, wheels: Sequence[LockedWheel]) -> Exception:
    text = scrub(text)
    found = _CAUSE.search(text)
    reason = " ".join(_CAUSE.sub("", text[found.start() :]).split()) if found else text.strip() or "uv gave no reason"
    if "No space left on device" in text or "os error 28" in text:
        return StorageError("cannot write a wheel: the disk is full", hint="UV_CACHE_DIR says where uv keeps wheels.")
    named = [wheel for wheel in wheels if wheel.filename in text or f"`{wheel.name} @" in text]
    where = named[0].filename if named else ", ".join(wheel.filename for wheel in wheels[:3])
    if "Hash mismatch" in text:
        hint = "Run 'himl-container lock' when the index replaced the file on purpose."
    elif re.search(r"\b40[13]\b", text):  # a whole word: ports and hashes have such digits too
        hint = (
            "Give uv the credentials: netrc, UV_INDEX_NAME_USERNAME and _PASSWORD, or UV_KEYRING_PROVIDER=subprocess."
        )
    elif "tcp connect" in text or "dns error" in text or "Connection refused" in text or "offline" in text.lower():
        hint = "Without internet, let the index in the settings be an internal mirror."
    elif "Failed to download" in text or "Failed to fetch" in text:
        hint = "Try again; when it stays so, the index, or a proxy before it, does not serve the file as a whole."
    else:
        hint = "Is the wheel whole? Download or build it again, and lock again."
    return ArtifactError(f"cannot be laid out: {reason}", where=where, hint=hint)


def _walk(root: Path) -> list[str]:
    """Return the paths of all files below a folder, sorted, without uv's own lock file."""
    found = []
    for folder, _, names in os.walk(root):
        relative = os.path.relpath(folder, root)
        found += [name if relative == "." else f"{relative}/{name}" for name in names]
    return sorted(path for path in found if path != ".lock")


def _owners(root: Path, wheels: Sequence[LockedWheel]) -> dict[str, list[str]] | None:
    """Divide what lies in a folder between the wheels by their RECORDs; None where that leaves a doubt."""
    present = _walk(root)
    owners: dict[str, list[str]] = {}
    infos = _infos(present)
    for wheel in wheels:
        owners[wheel.name] = [path for path, _ in _record(root, _info(infos, wheel), wheel)]
    claimed = sorted(path for paths in owners.values() for path in paths)
    return owners if claimed == present else None


def _infos(paths: Sequence[str]) -> dict[str, str]:
    """Return the ``.dist-info`` folders by the canonical name of their distribution."""
    from packaging.utils import canonicalize_name

    folders = {posixpath.dirname(path) for path in paths if path.endswith(".dist-info/RECORD")}
    return {
        canonicalize_name(posixpath.basename(folder).removesuffix(".dist-info").rpartition("-")[0]): folder
        for folder in folders
    }


def _info(infos: Mapping[str, str], wheel: LockedWheel) -> str:
    from packaging.utils import canonicalize_name

    info = infos.get(canonicalize_name(wheel.name))
    if info is None:
        raise ArtifactError("the wheel has no metadata folder of its name", where=wheel.filename)
    return info


def _record(root: Path, info: str, wheel: LockedWheel) -> list[tuple[str, str]]:
    """Return (path relative to the prefix, hash field) of each line of a RECORD.

    :raises ArtifactError: a line names a path outside of the prefix, or one that was not laid out.
    """
    text = (root / info / "RECORD").read_text(encoding="utf-8")
    lines = []
    for row in csv.reader(io.StringIO(text, newline="")):
        if not row:
            continue
        path = posixpath.normpath(posixpath.join(posixpath.dirname(info), row[0]))
        if not is_inside(path) or row[0].startswith("/") or not (root / path).is_file():
            # uv leaves out what would land elsewhere, without a word.
            raise ArtifactError(f"the wheel has a path outside of the environment: {row[0]!r}", where=wheel.filename)
        lines.append((path, row[1] if len(row) > 1 else ""))
    return lines


def _read(wheel: LockedWheel, root: Path, paths: Sequence[str], source: WheelSource, fresh: bool) -> StagedWheel:
    info = _info(_infos(paths), wheel)
    hashes = dict(_record(root, info, wheel))
    entries = []
    for path in paths:
        if path.rpartition("/")[0] == info and path.rpartition("/")[2] in (*_DROPPED, "RECORD"):
            continue
        entry = _entry(wheel, root, path, source.interpreter)
        if path == f"{info}/INSTALLER":
            entry = replace(entry, source=None, data=_INSTALLER)
        if entry.source is not None and not fresh:
            entry = replace(entry, sha256=_hex(hashes.get(path, "")))
        entries.append(entry)
    entries.append(Entry(f"{PREFIX[1:]}/{info}/RECORD", data=_new_record(entries, hashes, info)))
    return StagedWheel(wheel, tuple(sorted(entries, key=lambda entry: entry.path)))


def _entry(wheel: LockedWheel, root: Path, path: str, interpreter: Path) -> Entry:
    file = root / path
    executable = bool(file.stat().st_mode & 0o111)
    name = f"{PREFIX[1:]}/{path}"
    if path.startswith("bin/"):
        with file.open("rb") as opened:
            if opened.read(2) == b"#!":
                data = _final_script(file.read_bytes(), interpreter)
                return Entry(name, executable=executable, data=data, owner=wheel.filename)
    return Entry(name, executable=executable, source=file, owner=wheel.filename)


def _final_script(data: bytes, interpreter: Path) -> bytes:
    """Return a script with the final interpreter in its first line (three lines where the path was long or odd)."""
    here = os.fsencode(interpreter / "bin")
    final = f"#!{PREFIX}/bin/python\n".encode()
    long = _TRAMPOLINE.match(data)
    if long and here in long[0]:
        return final + data[long.end() :]
    first, _, rest = data.partition(b"\n")
    return final + rest if first.startswith(b"#!" + here) else data


def _hex(field: str) -> str:
    """Return the hash of a RECORD field (``sha256=<urlsafe base64>``) in hex; empty where it has none of that kind."""
    kind, _, value = field.partition("=")
    try:
        digest = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except ValueError:
        return ""
    return digest.hex() if kind == "sha256" and len(digest) == 32 else ""


def _new_record(entries: Sequence[Entry], hashes: Mapping[str, str], info: str) -> bytes:
    """Return RECORD (binary distribution format, "The .dist-info directory") for the entries as they are now."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    site = posixpath.dirname(info)
    for entry in sorted(entries, key=lambda entry: entry.path):
        path = entry.path.removeprefix(PREFIX[1:] + "/")
        if entry.source is None:
            digest = base64.urlsafe_b64encode(hashlib.sha256(entry.data).digest()).rstrip(b"=").decode()
            writer.writerow([posixpath.relpath(path, site), f"sha256={digest}", len(entry.data)])
        else:
            writer.writerow([posixpath.relpath(path, site), hashes.get(path, ""), entry.source.stat().st_size])
    writer.writerow([posixpath.relpath(f"{info}/RECORD", site), "", ""])
    return out.getvalue().encode("utf-8", "surrogateescape")
