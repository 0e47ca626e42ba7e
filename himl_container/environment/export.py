"""The Conda part of a lock as an explicit list, which ``conda create --file``, mamba, micromamba and pixi read."""

from __future__ import annotations

from himl_container.environment.model import Lock


def explicit(lock: Lock) -> str:
    """Return the list: one address with its hash for each package, dependencies first.

    The hash is sha256, which conda checks since 24.9 and mamba since 2.1 (CEP 23); wheels are not in the list, and a
    comment says so.
    """
    lines = [
        "# The Conda packages of a lock that 'himl-container lock' made.",
        f"# platform: {lock.platform}",
        *(["# Wheels of pip are not in this list; they are in the lock, a PEP 751 pylock."] if lock.wheels else []),
        "@EXPLICIT",
        *(f"{record.url}#{record.sha256}" for record in lock.conda),
    ]
    return "\n".join(lines) + "\n"
