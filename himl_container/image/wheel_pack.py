"""A wheel as bytes that depend on its content alone.

A build backend writes entries in the order of the file system, with its times and modes, compressed by whatever zlib is
there. Packed anew: sorted, without times, stored uncompressed (so that no zlib decides), RECORD made again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from pathlib import PurePosixPath

from himl_container.errors import BuildError

_EPOCH = (1980, 1, 1, 0, 0, 0)
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")


def repack(content: bytes, *, where: str) -> bytes:
    """Return the wheel packed deterministically.

    :param where: its name, for errors.
    :raises BuildError: it is not a zip file, has no single ``.dist-info``, or has a path that leads out of it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
            files = {name: (archive.read(info), _mode(info)) for name, info in members.items()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise BuildError(f"the backend made no readable wheel: {error}", where=where) from error
    for name in files:
        _check_name(name, where)
    info_folder = _dist_info(files, where)
    record = f"{info_folder}/RECORD"
    files = {name: file for name, file in files.items() if PurePosixPath(name).name not in _SIGNATURES}
    files[record] = (_record({name: data for name, (data, _) in files.items()}, record), 0o644)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # The metadata comes last, as the wheel format recommends; it is found from the end of the file.
        for name in sorted(files, key=lambda name: (name.startswith(f"{info_folder}/"), name == record, name)):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            data, mode = files[name]
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def _mode(info: zipfile.ZipInfo) -> int:
    return 0o755 if (info.external_attr >> 16) & 0o111 else 0o644


def _check_name(name: str, where: str) -> None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ".." in parts or not parts or any(ord(char) < 32 for char in name):
        raise BuildError(f"the built wheel has a path that leads out of it: {name!r}", where=where)


def _dist_info(files: dict[str, tuple[bytes, int]], where: str) -> str:
    found = {PurePosixPath(name).parts[0] for name in files if PurePosixPath(name).parts[0].endswith(".dist-info")}
    if len(found) != 1:
        raise BuildError("the built wheel has no single .dist-info folder", where=where)
    return found.pop()


def _record(files: dict[str, bytes], record: str) -> bytes:
    """Return the list of files with their hashes (the wheel format's RECORD), which may not list its own hash."""
    import csv

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for name in sorted(set(files) - {record}):
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
        writer.writerow([name, f"sha256={digest}", len(files[name])])
    writer.writerow([record, "", ""])
    return text.getvalue().encode()
