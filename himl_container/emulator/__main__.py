"""An emulator in the background: ``python -m himl_container.emulator FOLDER PORT``.

One line of JSON on standard output says that it answers, or why it does not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from himl_container.emulator.config import load_config
from himl_container.emulator.folder import CONFIG, LOG
from himl_container.emulator.server import Ready, serve
from himl_container.errors import HimlError


def main(folder: Path, port: int) -> int:
    """Run an emulator until it is told to stop, and return an exit code."""
    log_to(folder / LOG)
    try:
        serve(folder, load_config(folder / CONFIG), port, lambda ready: _say(ready=as_json(ready)))
    except HimlError as error:
        logging.getLogger("himl_container.emulator").error("%s", error)
        _say(error={"family": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint})
        return error.exit_code
    return 0


def as_json(ready: Ready) -> dict[str, Any]:
    """Return what a start gave, for machines."""
    return {"folder": str(ready.folder), "port": ready.port, "seconds": round(ready.seconds, 3)}


def log_to(path: Path, *, terminal: bool = False) -> None:
    """Write the log into a file that only its owner may read; to standard error too, where that is a terminal."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    handlers: list[logging.Handler] = [logging.StreamHandler(os.fdopen(descriptor, "a", encoding="utf-8"))]
    if terminal:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, handlers=handlers)
    logging.getLogger("himl_container").setLevel(logging.INFO)


def _say(**value: Any) -> None:
    # Whoever waited may be gone already.
    with contextlib.suppress(OSError):
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
