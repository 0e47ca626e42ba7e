"""The build context as a folder: everything that plain ``docker build`` needs, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from himl_container.errors import InputError, StorageError
from himl_container.image import templates
from himl_container.image.dockerfile import layer_file
from himl_container.image.model import PREFIX, Layer
from himl_container.progress import Reporter
from himl_container.settings import CONTEXT_MARKER

_DOCKERIGNORE = "# The Dockerfile reads nothing else.\n*\n!layers/*.tar\n"
_FICLONE = 0x40049409  # linux/fs.h: share the blocks of another file, copied when one of them is written
_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def write_context(
    folder: Path,
    *,
    dockerfile: str,
    layers: Sequence[Layer],
    reporter: Reporter,
    lock: Path | None = None,
    tag: str = "",
) -> None:
    """Write the build context into ``folder``: Dockerfile, layers, ``.dockerignore``, lock, checksums, a short README.

    Layers share their blocks or their inode with the store where the file system can; nothing is copied without need.

    :param folder: does not exist, is empty, or was written by this function (it is replaced then).
    :param lock: the lock file that goes along.
    :param tag: the image's name, for the README.
    :raises InputError: the folder holds something else.
    :raises StorageError: it cannot be written.
    """
    folder = folder.absolute()
    check_folder(folder)
    with (
        reporter.step("write", f"the build context {folder}", total=len(layers), unit="layers") as task,
        _storage(folder),
    ):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _beside(folder) as new:
            (new / "layers").mkdir()
            for index, layer in enumerate(layers):
                task.note(layer.name)
                _share(layer.path, new / layer_file(index, layer.name))
                task.advance(1)
            for name, text in _texts(dockerfile, layers, lock, tag).items():
                (new / name).write_text(text, encoding="utf-8", newline="\n")
            if lock is not None:
                (new / lock.name).write_bytes(lock.read_bytes())
            _replace(new, folder)


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds what is not ours.

    :raises InputError: it does, or it is a file.
    :raises StorageError: it cannot be read.
    """
    try:
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise InputError("the output is a file, not a folder", where=str(folder)) from None
    except OSError as error:
        raise _cannot_write(folder, error) from error
    if names and CONTEXT_MARKER not in names:
        raise InputError(
            "the folder holds files that are not from himl-container, which writing would remove",
            where=str(folder),
            hint="Choose an empty or a new folder with --output.",
        )


def _texts(dockerfile: str, layers: Sequence[Layer], lock: Path | None, tag: str) -> dict[str, str]:
    files = [(layer_file(index, layer.name), layer) for index, layer in enumerate(layers)]
    contents = [
        {"file": file, "name": layer.name, "digest": layer.digest, "size": layer.size, "entries": layer.entries}
        for file, layer in files
    ]
    values = {"prefix": PREFIX, "tag": tag, "lock": lock.name if lock else ""}
    return {
        "Dockerfile": dockerfile,
        ".dockerignore": _DOCKERIGNORE,
        "layers.sha256": "".join(f"{layer.digest.partition(':')[2]}  {file}\n" for file, layer in files),
        "README.md": templates.render(values, name="context-readme.md.j2"),
        CONTEXT_MARKER: json.dumps({"format": 1, "tag": tag, "layers": contents}, indent=1) + "\n",
    }


def _share(source: Path, target: Path) -> None:
    """Make ``target`` a file with the content of ``source``, as cheaply as the file systems allow."""
    import fcntl

    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            return
        except OSError:
            pass  # another file system, or one that cannot: a link is next
    target.unlink()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yield a new folder on the file system of ``folder``; removed at the end unless it was renamed away."""
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new.chmod(0o755)
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _replace(new: Path, folder: Path) -> None:
    """Give ``new`` the name of ``folder``; what had it stays until then, and again if the renaming fails."""
    with contextlib.suppress(FileNotFoundError, OSError):
        folder.rmdir()  # an empty one needs no keeping
    if not folder.exists():
        new.rename(folder)
        return
    with _beside(folder) as aside:
        old = aside / folder.name
        folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            old.rename(folder)
            raise


@contextlib.contextmanager
def _storage(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _STORAGE:
            raise _cannot_write(folder, error) from error
        raise


def _cannot_write(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write the build context: {error.strerror or error}",
        where=str(folder),
        hint="Free some space, or choose another folder with --output.",
    )
