"""Checks for what runs and builds that were killed have left in the daemon, and removes it when asked to.

Only what bears our label or our name, and is long past its time: another process may be at work right now.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from himl_container.cache import Cache
from himl_container.doctor.model import Finding
from himl_container.errors import HimlError
from himl_container.launch.containers import RUN_LABEL

GRACE = 3600.0
"""Seconds for which something that has ended may still belong to a run that is about to look at it."""


class Daemon(Protocol):
    """What is asked of a daemon (:class:`himl_container.image.engine_client.Client`)."""

    def json(self, doing: str, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Return the JSON answer to a GET."""

    def delete(self, doing: str, path: str, params: Mapping[str, str] | None = None) -> None:
        """DELETE something; nothing happens when there is no such thing."""


def checks(
    cache_dir: Path,
    environ: Mapping[str, str],
    *,
    connect: Callable[[], Daemon] | None = None,
    now: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Yield what is left over; nothing where there is no daemon, which is told elsewhere."""
    from himl_container.image.endpoint import resolve_endpoint
    from himl_container.image.engine_client import Client

    try:
        daemon = connect() if connect else Client.connect(resolve_endpoint(environ))
        found = find_left(daemon, Cache(cache_dir), now())
    except HimlError:
        return
    if not found:
        yield Finding("leftovers", "ok", "none of killed runs or builds")
        return

    def repair() -> str:
        for _, remove in found:
            remove()
        return f"removed {_counted(len(found))}"

    names = [name for name, _ in found]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    yield Finding(
        "leftovers",
        "warning",
        f"{_counted(len(found))} of runs or builds that were killed: {shown}",
        "They take space, and nothing else.",
        "himl-container doctor --fix",
        repair,
    )


Left = tuple[str, Callable[[], None]]
"""What it is, in words, and what removes it."""


def find_left(daemon: Daemon, cache: Cache, now: float) -> tuple[Left, ...]:
    """Return what is left over.

    :param now: seconds since 1970.
    :raises EngineError: the daemon goes away.
    """
    return (*_containers(daemon, now), *_networks(daemon, now), *_candidates(daemon, cache))


def _containers(daemon: Daemon, now: float) -> Iterator[Left]:
    wanted = {"all": "1", "filters": _filters(label=RUN_LABEL, status=("created", "exited", "dead"))}
    for container in daemon.json("list containers", "/containers/json", wanted) or ():
        number = str(container.get("Id", ""))
        if not re.fullmatch(r"[0-9a-f]{64}", number) or now - float(container.get("Created", now)) < GRACE:
            continue
        looked = daemon.json("look at a container", f"/containers/{number}/json")
        if looked is None:  # somebody else has removed it meanwhile
            continue
        state = looked.get("State") or {}
        ended = _seconds(str(state.get("FinishedAt", "")))
        if state.get("Running") or (ended and now - ended < GRACE):
            continue
        name = str((container.get("Names") or [number[:12]])[0]).lstrip("/")
        yield f"container {name}", _deleter(daemon, f"/containers/{number}", {"v": "1"})


def _networks(daemon: Daemon, now: float) -> Iterator[Left]:
    wanted = {"filters": _filters(label=RUN_LABEL)}
    for network in daemon.json("list networks", "/networks", wanted) or ():
        number = str(network.get("Id", ""))
        made = _seconds(str(network.get("Created", "")))
        if not re.fullmatch(r"[0-9a-f]{64}", number) or not made or now - made < GRACE:
            continue
        looked = daemon.json("look at a network", f"/networks/{number}")
        if looked is not None and not looked.get("Containers"):
            yield f"network {network.get('Name', number[:12])}", _deleter(daemon, f"/networks/{number}")


def _candidates(daemon: Daemon, cache: Cache) -> Iterator[Left]:
    from himl_container.image.candidate import left_candidates
    from himl_container.image.docker_http import segment

    for name in left_candidates(cache):
        if daemon.json("look up an image", f"/images/{segment(name)}/json") is not None:
            yield f"image {name}", _deleter(daemon, f"/images/{segment(name)}", {"noprune": "0"})


def _deleter(daemon: Daemon, path: str, params: Mapping[str, str] | None = None) -> Callable[[], None]:
    return lambda: daemon.delete("remove what is left over", path, params)


def _filters(*, label: str, status: tuple[str, ...] = ()) -> str:
    import json

    return json.dumps({"label": [label], **({"status": list(status)} if status else {})})


def _seconds(text: str) -> float:
    """Return a time of the daemon's (RFC 3339 with nanoseconds) as seconds since 1970; 0 for none."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if not found or text.startswith("0001"):
        return 0.0
    zone = "+00:00" if found[2] == "Z" else found[2]
    return datetime.fromisoformat(found[1] + zone).astimezone(timezone.utc).timestamp()


def _counted(number: int) -> str:
    return "1 thing" if number == 1 else f"{number} things"
