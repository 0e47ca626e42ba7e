"""Getting the questions of the smoke test into a container and the answers out: one container, nothing mounted.

The sources of :mod:`himl_container.image.inside` travel with the question as an argument of the interpreter, so that it
works where the daemon cannot see our files (the tool in a container itself, a remote daemon).
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from himl_container.errors import BuildError
from himl_container.image.engine import ContainerResult, Engine
from himl_container.image.model import PREFIX

_PACKAGE = "himl_container.image"
# In the order in which they import one another.
_MODULES = ("elf", "inside.installed", "inside.trials", "inside.loader", "inside.check")
_ELF = f"{_PACKAGE}.elf"  # only where the libraries of the image are not known
_PACKAGES = ("himl_container", "himl_container.image", "himl_container.image.inside")

# Makes modules of the sources, as if the package were installed there; then asks, and answers behind the mark.
_START = """
import binascii, json, os, sys, types, zlib
asked = json.loads(zlib.decompress(binascii.a2b_base64(sys.argv[1])).decode())
for name, source in asked["sources"]:
    module = sys.modules[name] = types.ModuleType(name)
    if source is None:
        module.__path__ = []
    else:
        exec(compile(source, name, "exec"), module.__dict__)
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, module)
answer = json.dumps(sys.modules["himl_container.image.inside.check"].check(asked))
sys.stdout.write("\\n" + asked["mark"] + answer + "\\n")
sys.stdout.flush()
os._exit(0)
"""
_MAX_ARGUMENT = 130_000  # Linux: MAX_ARG_STRLEN is 131,072 bytes


def ask(
    image: str,
    question: dict[str, Any],
    engine: Engine,
    *,
    timeout: float,
    bare: bool,
    meanwhile: Callable[[], None],
) -> dict[str, Any] | ContainerResult:
    """Return what :func:`himl_container.image.inside.check.check` finds in the image.

    A ContainerResult instead means that the interpreter did not get that far.

    :param bare: see :meth:`himl_container.image.engine.Engine.run`.
    :param meanwhile: is done in a thread while the container starts.
    :raises EngineError: the daemon does not answer, or the container cannot be started.
    :raises BuildError: the question is too long to be asked.
    """
    mark = f"himl-{secrets.token_hex(16)}:"
    needed = [one for one in sources() if one[0] != _ELF or question["libraries"] is None]
    content = {**question, "mark": mark, "sources": needed, "prefix": PREFIX}
    argument = base64.b64encode(zlib.compress(json.dumps(content).encode(), 6)).decode()
    if len(argument) > _MAX_ARGUMENT:
        raise BuildError(
            "the smoke test is too large for one command line", hint="Shorten the commands of the 'test' setting."
        )
    threading.Thread(target=meanwhile, daemon=True).start()
    result = engine.run(
        image,
        [f"{PREFIX}/bin/python", "-I", "-c", _START, argument],
        # Through the shell, so that an interpreter that is missing is an exit code like any other.
        entrypoint=["/bin/sh", "-c", 'exec "$0" "$@"'],
        network=False,
        timeout=timeout,
        bare=bare,
        answer=mark.encode(),
    )
    _, found, answer = result.output.rpartition(b"\n" + mark.encode())
    if not found:
        return result
    decoded: dict[str, Any] = json.loads(answer)
    return decoded


def sources() -> list[tuple[str, str | None]]:
    """Return the modules to make inside, each after those that it imports; None stands for a package."""
    here = Path(__file__).parent
    texts = [(f"{_PACKAGE}.{name}", (here / (name.replace(".", "/") + ".py")).read_text("utf-8")) for name in _MODULES]
    return [*((name, None) for name in _PACKAGES), *texts]
