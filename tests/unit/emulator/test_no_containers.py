"""An emulator on a machine whose Docker is elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from unit.emulator.compute_fakes import Plant

from himl_container.emulator.compute.no_containers import connect_or_tell
from himl_container.emulator.compute.scheduler import LocalCompute
from himl_container.emulator.state.runs import Status
from himl_container.errors import EngineError


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("DOCKER_HOST", "ssh://somebody@nowhere.example", "runs cannot go through ssh"),
        ("DOCKER_CONTEXT", "no-such-context", "no-such-context"),
    ],
)
def test_each_job_fails_with_the_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str,
    why: str,
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv(name, value)
    plant = Plant(tmp_path)
    with caplog.at_level(logging.WARNING):
        containers = connect_or_tell()
    assert why in caplog.text
    for _ in range(2):
        with pytest.raises(EngineError, match=why):
            containers.facts()
    plant.daemon = containers  # type: ignore[assignment]
    compute = plant.new_compute()
    assert isinstance(compute, LocalCompute)
    compute.start()
    plant.create("job")
    compute.submit("job")
    run = plant.wait("job", Status.FAILED)
    assert why in str(run.error)
    assert "image: found" not in str(plant.files("job"))
    compute.stop()
