"""Running a container to its end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tiny_images import Place

from himl_container.errors import EngineError
from himl_container.image.engine_run import finish_removals

pytestmark = pytest.mark.docker


def containers(place: Place, mark: str) -> list[object]:
    """Return the containers, running or not, whose command has a mark in it."""
    listed = place.engine._client.json("list", "/containers/json", {"all": "1"}) or []
    return [one for one in listed if mark in one["Command"]]


def test_both_outputs_and_the_exit_code(machine: Place, base_image: str) -> None:
    result = machine.engine.run(base_image, ["sh", "-c", "echo one; echo two >&2; exit 3"])
    assert (result.exit_code, sorted(result.output.split()), result.oom_killed) == (3, [b"one", b"two"], False)


def test_mounts_environment_folder_and_user(machine: Place, base_image: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("given")
    result = machine.engine.run(
        base_image,
        ["-c", 'cat /in; echo " $A"; pwd; id -u; touch /in 2>&1'],
        mounts=[(tmp_path / "in", "/in", True)],
        environment={"A": "$(b) 'c'"},
        entrypoint=["sh"],
        workdir="/usr",
        user="1234:5",
    )
    lines = result.output.decode().splitlines()
    assert lines[:3] == ["given $(b) 'c'", "/usr", "1234"]
    assert result.exit_code != 0


def test_there_is_no_network_unless_asked_for(machine: Place, base_image: str) -> None:
    interfaces = ["sh", "-c", "ls /sys/class/net"]
    assert machine.engine.run(base_image, interfaces).output.split() == [b"lo"]
    assert b"eth0" in machine.engine.run(base_image, interfaces, network=True).output


def test_a_container_that_does_not_end_is_ended(machine: Place, base_image: str) -> None:
    start = time.monotonic()
    # Counted from the daemon's word that it runs, when it may not have come to its first word yet.
    result = machine.engine.run(base_image, ["sh", "-c", "echo begun; sleep 600"], timeout=5.0)
    assert result.exit_code == 124
    assert result.output == b"begun\n"
    assert time.monotonic() - start < 120


@pytest.mark.parametrize("command", [["no-such-program"], ["/etc"]])
def test_what_cannot_start_is_an_error_and_leaves_no_container(
    machine: Place, base_image: str, command: list[str]
) -> None:
    with pytest.raises(EngineError, match="run a container"):
        machine.engine.run(base_image, [*command, machine.name])
    assert containers(machine, machine.name) == []


def test_an_image_that_is_not_there(machine: Place) -> None:
    with pytest.raises(EngineError, match="No such image"):
        machine.engine.run(machine.tag("none"), ["true"])


def test_a_bare_container_has_no_network_and_can_talk_to_itself(machine: Place, base_image: str) -> None:
    script = ["sh", "-c", "ls /sys/class/net; cat /sys/class/net/lo/operstate; readlink /proc/self/ns/net"]
    interfaces, state, namespace = machine.engine.run(base_image, script, bare=True).output.split()
    assert (interfaces, state) == (b"lo", b"unknown"), "which Linux says of a loopback interface that is up"
    assert namespace.decode() != str(Path("/proc/self/ns/net").readlink())


def test_a_container_that_has_answered_is_ended_and_removed(machine: Place, base_image: str) -> None:
    script = (
        f"echo before; echo {machine.name}; sleep 1; echo; printf {machine.name}:y; echo else >&2; echo es; "
        "echo after; exec sleep 600"
    )
    result = machine.engine.run(base_image, ["sh", "-c", script], answer=f"{machine.name}:".encode())
    assert (result.exit_code, result.output.split()[:3]) == (
        0,
        [b"before", machine.name.encode(), f"{machine.name}:yes".encode()],
    )
    finish_removals()
    assert containers(machine, machine.name) == []


def test_a_container_that_ends_without_its_answer_says_how(machine: Place, base_image: str) -> None:
    result = machine.engine.run(
        base_image, ["sh", "-c", f"printf '\n{machine.name}:half'; exit 4"], answer=b"himl-test"
    )
    assert (result.exit_code, result.output) == (4, f"\n{machine.name}:half".encode())
    assert containers(machine, machine.name) == []
