"""The name under which an image is in the daemon until it has passed its test and gets its own.

It is of one build alone: two projects with equal environments make one image, and with caches of their own nothing
keeps them from doing so in the same moment. With a name that both use, who is done first takes it from the other.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from himl_container.cache import Cache
from himl_container.errors import HimlError
from himl_container.image.engine import Engine


@contextlib.contextmanager
def candidate_name(fingerprint: str, *, engine: Engine, cache: Cache) -> Iterator[str]:
    """Yield a new name; it is removed at the end, with what builds that were killed have left of this fingerprint.

    Theirs go last, so that the daemon still has their layers while this image is brought in. Names are noted in the
    cache before they are used, and a build holds a lock as long as it uses its own: what is noted and not ours is left
    over.

    :raises StorageError: the cache cannot be written.
    """
    prefix = f"himl-candidate:{fingerprint[:32]}-"
    note = ("memo", "candidates", f"{fingerprint[:32]}.json")
    with cache.lock(f"candidate-{fingerprint[:32]}"):
        noted = cache.read_json(*note)
        left = [name for name in noted if str(name).startswith(prefix)] if isinstance(noted, list) else []
        name = prefix + os.urandom(6).hex()
        try:
            cache.write_json([*left, name], *note)
            yield name
        finally:
            try:
                _tidy((name, *left), note, engine=engine, cache=cache)
            except KeyboardInterrupt:  # it came in the middle of this
                _tidy((name, *left), note, engine=engine, cache=cache)
                raise


def left_candidates(cache: Cache) -> tuple[str, ...]:
    """Return the names that builds of this cache have noted and nobody uses: those builds were killed.

    The daemon may know some of them no more.
    """
    return tuple(
        name for note in sorted((cache.root / "memo" / "candidates").glob("*.json")) for name in _unused(note, cache)
    )


def _unused(note: Path, cache: Cache) -> tuple[str, ...]:
    import fcntl

    noted = cache.read_json("memo", "candidates", note.name)
    names = tuple(str(name) for name in noted) if isinstance(noted, list) else ()
    with contextlib.suppress(FileNotFoundError), (cache.root / "locks" / f"candidate-{note.stem}").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return ()
    return tuple(name for name in names if re.fullmatch(rf"himl-candidate:{re.escape(note.stem)}-[0-9a-f]+", name))


def _tidy(names: tuple[str, ...], note: tuple[str, str, str], *, engine: Engine, cache: Cache) -> None:
    """Remove names, and the note of them; note those that stay."""
    with contextlib.suppress(Exception):  # the first error is the one to tell; the next build tries again
        stuck = [each for each in names if not _removed(each, engine)]
        if stuck:
            cache.write_json(stuck, *note)
        else:
            cache.root.joinpath(*note).unlink()


def _removed(name: str, engine: Engine) -> bool:
    try:
        engine.remove_image(name)
    except (HimlError, OSError):  # a name that stays is no reason for a build to fail
        return False
    return True
