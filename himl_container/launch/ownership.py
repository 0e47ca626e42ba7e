"""Files that root wrote inside a container become the calling user's.

Only a container can do that where the user is not root, so a short one of the run's own image does it. Nothing is
started when every file is the user's already: root's own runs, a rootless daemon, a script that wrote nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from himl_container.errors import HimlError
from himl_container.launch.containers import RUN_LABEL, ContainerConfig, Containers, Mount

_CHOWN = "/bin/chown"


def calling_user(environ: Mapping[str, str]) -> tuple[int, int]:
    """Return uid and gid of the user who called: behind ``sudo``, the one who typed it."""
    if os.geteuid() == 0:
        try:
            return int(environ["SUDO_UID"]), int(environ["SUDO_GID"])
        except (KeyError, ValueError):
            pass
    return os.geteuid(), os.getegid()


def hand_over(
    own: Sequence[Path],
    shared: Sequence[Path],
    user: tuple[int, int],
    *,
    containers: Containers,
    image: str,
    name: str,
    warn: Callable[[str], None],
) -> None:
    """Make the user the owner of the files that a run wrote. Never raises: the run is over.

    :param own: folders that belong to the run as a whole: every file changes hands.
    :param shared: folders that the user named, where others may have files: only root's change hands.
    :param name: name for the helping container.
    """
    for folders, only_root in ((own, False), (shared, True)):
        foreign = [folder for folder in folders if _has_foreign(folder, user[0], only_root)]
        if not foreign:
            continue
        if os.geteuid() == 0:
            _directly(foreign, user, only_root)
            continue
        try:
            _in_container(foreign, user, only_root=only_root, containers=containers, image=image, name=name)
        except HimlError as error:
            warn(f"a container that should give files of root to you failed: {error.what}")
        left = [str(folder) for folder in foreign if _has_foreign(folder, user[0], only_root)]
        if left:
            warn("some files are not yours; 'sudo chown -R' changes that: " + ", ".join(left))


def _directly(folders: Sequence[Path], user: tuple[int, int], only_root: bool) -> None:
    for folder in folders:
        for path in _walk(folder):
            with contextlib.suppress(OSError):  # vanished, or a file system without owners
                if not only_root or os.lstat(path).st_uid == 0:
                    os.lchown(path, *user)


def _in_container(
    folders: Sequence[Path],
    user: tuple[int, int],
    *,
    only_root: bool,
    containers: Containers,
    image: str,
    name: str,
) -> None:
    # A rootless daemon maps root inside to the user outside; elsewhere ids are the same on both sides, provided that
    # the container does not get ids of its own (userns-remap).
    rootless = containers.facts().rootless
    owner = "0:0" if rootless else f"{user[0]}:{user[1]}"
    targets = [f"/himl/{index}" for index in range(len(folders))]
    selection = ("--from=0",) if only_root else ()
    containers.remove(name)
    containers.create(
        ContainerConfig(
            name=name,
            image=image,
            command=(_CHOWN, "-R", "-h", *selection, owner, *targets),
            mounts=tuple(Mount(folder, target) for folder, target in zip(folders, targets, strict=True)),
            working_dir="/",
            shm_size=1 << 20,
            host_users=not rootless,
            network="none",
            labels={RUN_LABEL: name},
        )
    )
    try:
        session = containers.open(name)
        try:
            containers.start(name)
            for _ in session.output():
                pass  # what it could not change is seen afterwards
            session.ended()
        finally:
            session.close()
    finally:
        containers.remove(name)


def _has_foreign(folder: Path, uid: int, only_root: bool) -> bool:
    for path in _walk(folder):
        with contextlib.suppress(OSError):
            owner = os.lstat(path).st_uid
            if owner != uid and (owner == 0 or not only_root):
                return True
    return False


def _walk(folder: Path) -> Iterator[str]:
    """Yield a folder and everything below it; links themselves, never what they point at."""
    yield str(folder)
    for current, folders, files in os.walk(folder):
        yield from _joined(current, folders)
        yield from _joined(current, files)


def _joined(folder: str, names: Iterable[str]) -> Iterator[str]:
    return (os.path.join(folder, name) for name in names)  # noqa: PTH118 - there may be many
