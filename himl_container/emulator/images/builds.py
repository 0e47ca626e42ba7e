"""Builds that a client asks for and looks after (``Environment.build`` of the SDK): in the background, with a log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from himl_container.emulator.blobs import RUNS_CONTAINER, Blobs
from himl_container.emulator.http import Refusal
from himl_container.emulator.images.ready import Images
from himl_container.emulator.state.environments import Environment, Environments, ImageBuild
from himl_container.errors import HimlError, StorageError

_SECONDS = 1.0
"""Between two pieces of a log; an append blob takes 50,000, and a client looks every five seconds."""

log = logging.getLogger("himl_container.emulator")


_AT_ONCE = 2
_ENDED = "The emulator ended while the image was being built."


class Builds:
    """Carries builds out, two at a time, in threads that keep nobody from ending."""

    def __init__(
        self, environments: Environments, images: Images, blobs: Blobs, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._environments, self._images, self._blobs, self._clock = environments, images, blobs, clock
        self._places, self._lock, self._closed = threading.Semaphore(_AT_ONCE), threading.Lock(), False
        environments.fail_unfinished_builds(_ENDED)

    def begin(self, environment: Environment) -> ImageBuild:
        """Begin a build and return at once."""
        build = self._environments.begin_build(environment.name, environment.version)
        self._blobs.append(RUNS_CONTAINER, log_name(build.build_id), b"")
        threading.Thread(target=self._work, args=(build, environment), name="image build", daemon=True).start()
        return build

    def log_url(self, build: ImageBuild) -> str:
        """Return the address of a build's log."""
        return self._blobs.signed_url(RUNS_CONTAINER, log_name(build.build_id))

    def close(self) -> None:
        """Give the builds up that have not ended: one may take as long as its downloads do."""
        with self._lock:
            self._closed = True
            self._environments.fail_unfinished_builds(_ENDED)

    def _work(self, build: ImageBuild, environment: Environment) -> None:
        with self._places:
            if not self._closed:
                self._carry_out(build, environment)

    def _carry_out(self, build: ImageBuild, environment: Environment) -> None:
        lines = _Log(self._blobs, log_name(build.build_id), self._clock)
        status, error = "Failed", "An internal error of the emulator."
        try:
            self._images.bring(environment.definition, lines.say)
            status, error = "Succeeded", ""
        except (HimlError, Refusal) as wrong:
            error = str(wrong)
        except Exception:
            if not self._closed:
                log.exception("build %s", build.build_id)
        try:
            lines.say(error or "Succeeded.")
            lines.flush()
        except (HimlError, OSError):
            log.warning("the log of build %s is not complete", build.build_id)
        with self._lock:
            if not self._closed:  # else the state is closed, or will be
                self._environments.end_build(build.build_id, status, error)


class _Log:
    def __init__(self, blobs: Blobs, name: str, clock: Callable[[], float]) -> None:
        self._blobs, self._name, self._clock = blobs, name, clock
        self._pending, self._sent, self._lock = bytearray(), clock(), threading.Lock()

    def say(self, line: str) -> None:
        with self._lock:
            self._pending += line.encode(errors="replace") + b"\n"
            due = self._clock() - self._sent >= _SECONDS
        if due:
            self.flush()

    def flush(self) -> None:
        with self._lock:
            data, self._pending, self._sent = bytes(self._pending), bytearray(), self._clock()
            if not data:
                return
            try:
                self._blobs.append(RUNS_CONTAINER, self._name, data)
            except StorageError as error:
                log.warning("a part of %s is lost: %s", self._name, error)


def log_name(build_id: str) -> str:
    """Return the blob of a build's log, where Azure has it."""
    return f"ImageLogs/{build_id}/build.log"
