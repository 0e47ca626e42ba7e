"""What stands in for Docker where jobs cannot run: everything else of the emulator works without."""

from __future__ import annotations

import logging
from typing import Any, NoReturn, cast

from himl_container.errors import EngineError
from himl_container.launch.containers import LabelledContainers, connect

_log = logging.getLogger("himl_container.emulator")


def connect_or_tell() -> LabelledContainers:
    """Return the daemon that ``docker`` itself would use.

    Where that is one on which no job can run (``DOCKER_HOST=ssh://...``: its file system is not this machine's), the
    reason is logged, and each job fails with it.
    """
    try:
        return connect()
    except EngineError as error:
        _log.warning("jobs cannot run: %s", error)
        return cast("LabelledContainers", _NoContainers(error))


class _NoContainers:
    """Raises the reason whatever it is asked for."""

    def __init__(self, reason: EngineError) -> None:
        self._reason = reason

    def __getattr__(self, name: str) -> Any:
        def refuse(*words: object, **options: object) -> NoReturn:
            # A new one each time: an exception that is raised again keeps the frames of all before.
            raise EngineError(self._reason.what, where=self._reason.where, hint=self._reason.hint)

        return refuse
