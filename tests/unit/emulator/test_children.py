"""Servers in containers, where the daemon is busy with that of an earlier emulator; ``docker`` is a played one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from himl_container.emulator.children import Children
from himl_container.emulator.programs import Program

# It refuses two removals, as a daemon does that is removing already, and the name is taken until one was not refused.
DOCKER = """#!/bin/sh
if [ "$1" = rm ]; then
    echo "$*" >> "$PLAYED/asked"
    [ "$(wc -l < "$PLAYED/asked")" -gt 2 ] && exit 0
    echo "Error response from daemon: removal of container $3 is already in progress" >&2
    exit 1
fi
[ "$(wc -l < "$PLAYED/asked")" -gt 2 ] || { echo "Conflict. The container name is already in use."; exit 125; }
echo "listening on 4711"
exec sleep 600
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o700)
    environ = {"PATH": os.environ["PATH"], "PLAYED": str(tmp_path)}
    command = (str(docker), "run", "--rm", "--name", "c")
    return Program("registry", command, environ, re.compile(r"listening on (\d+)"), container="c")


def test_a_container_that_is_being_removed_is_waited_for(program: Program, tmp_path: Path) -> None:
    children = Children(tmp_path)
    children.start(program)
    try:
        assert children.port("registry") == 4711
        assert (tmp_path / "asked").read_text().splitlines() == ["rm --force c"] * 3
    finally:
        children.close()


def test_a_container_whose_command_had_to_be_killed_is_removed(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("himl_container.emulator.children._SAVING", 0.1)
    docker = tmp_path / "docker"
    docker.write_text(DOCKER.replace("#!/bin/sh\n", "#!/bin/sh\ntrap '' TERM\n"))
    children = Children(tmp_path)
    children.start(program)
    assert children.port("registry") == 4711
    children.close()
    assert (tmp_path / "asked").read_text().splitlines() == ["rm --force c"] * 4
