"""The system part: Debian packages and the user's own Dockerfile lines on top of the base, built by Docker, once."""

from __future__ import annotations

import hashlib

from himl_container.cache import Cache
from himl_container.image.engine import Engine
from himl_container.image.model import ImageInfo, SystemPlan
from himl_container.progress import Reporter

REPOSITORY = "himl-system"
"""Images of system parts are named ``himl-system:<hash>``; they hold nothing of the environment."""


def ensure_system(
    plan: SystemPlan, base: ImageInfo, dockerfile: str, *, engine: Engine, cache: Cache, reporter: Reporter
) -> ImageInfo:
    """Return the image of the system part; the base itself where there is none.

    It is found again by its name, so Debian's packages are the same until the base or the lines change: what
    ``apt-get`` would install today is not part of any lock.

    :param dockerfile: the rendered text, which begins with the base.
    :raises BuildError: a line failed.
    """
    if plan.empty:
        return base
    tag = system_tag(base, dockerfile)
    with cache.lock(tag.replace(":", "-")):
        found = engine.inspect(tag)
        if found is not None:
            return found
        with cache.new_folder() as folder:
            (folder / "Dockerfile").write_text(dockerfile, encoding="utf-8", newline="\n")
            return engine.build(folder, tag=tag, reporter=reporter)


def system_tag(base: ImageInfo, dockerfile: str) -> str:
    """Return the name of a system part: a hash of the base's layers and of the text."""
    identity = f"{base.rootfs}\n{base.architecture}\n{dockerfile}"
    return f"{REPOSITORY}:{hashlib.sha256(identity.encode()).hexdigest()[:32]}"
