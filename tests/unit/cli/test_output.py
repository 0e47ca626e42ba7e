"""What is printed: for a terminal, for a log, for a machine, and nothing."""

from __future__ import annotations

import io
import json
import re
import threading

import pytest

from himl_container.cli.live import LiveReporter
from himl_container.cli.output import (
    JsonReporter,
    JsonTask,
    PlainReporter,
    QuietReporter,
    make_output,
    size,
    summary,
    write,
)
from himl_container.progress import Reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(reporter: Reporter) -> None:
    with reporter.step("download", "3 packages", total=3_000_000, unit="bytes") as task:
        for name in ("a", "b", "[c]"):
            task.note(name)
            task.advance(1_000_000)
        task.advance(0, total=4_000_000)
    reporter.info("fetched https://u:CANARY@host/x [bold]")
    reporter.warn("odd https://u:CANARY@host/y")
    with pytest.raises(RuntimeError), reporter.step("load", "https://u:CANARY@host"):
        raise RuntimeError


def test_plain_lines() -> None:
    stream = io.StringIO()
    work(PlainReporter(stream))
    lines = stream.getvalue().splitlines()
    assert re.match(r"download 3 packages: 3\.0 MB in \d+\.\d s", lines[0])
    assert lines[1:3] == ["fetched https://host/x [bold]", "warning: odd https://host/y"]
    assert lines[3].startswith("load https://host: failed after ")


@pytest.mark.parametrize(("interval", "told"), [(3600.0, 0), (0.0, 4)])
def test_json_lines(monkeypatch: pytest.MonkeyPatch, interval: float, told: int) -> None:
    monkeypatch.setattr(JsonTask, "_INTERVAL", interval)  # its own is as short as a busy machine stands still
    stream = io.StringIO()
    work(JsonReporter(stream))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds == ["step", *["progress"] * told, "end", "info", "warning", "step", "end"]
    assert [event["done"] for event in events if event["event"] == "progress"] == [1e6, 2e6, 3e6, 3e6][:told]
    assert events[0] == {
        "event": "step",
        "id": 1,
        "verb": "download",
        "subject": "3 packages",
        "total": 3_000_000,
        "unit": "bytes",
    }
    ends = [event for event in events if event["event"] == "end"]
    assert (ends[0]["ok"], ends[0]["done"], ends[1]["ok"]) == (True, 3_000_000, False)
    assert "CANARY" not in stream.getvalue()


def test_quiet_says_warnings_only() -> None:
    stream = io.StringIO()
    work(QuietReporter(stream))
    assert stream.getvalue() == "warning: odd https://host/y\n"


def test_a_terminal_shows_bars_and_keeps_a_line_for_each_step() -> None:
    stream = Terminal()
    work(LiveReporter(stream))
    text = stream.getvalue()
    assert "download 3 packages: 3.0 MB" in text
    assert "[bold]" in text
    assert "failed after" in text
    assert "CANARY" not in text


def test_steps_of_several_threads_end_the_display_once() -> None:
    stream = Terminal()
    reporter = LiveReporter(stream)

    def run(number: int) -> None:
        with reporter.step("lay out", f"package-{number}", total=10) as task:
            for _ in range(10):
                task.advance(1)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"package-{number}: 10 items" in stream.getvalue() for number in range(8))
    # A new step after the last one has a display of its own.
    run(99)
    assert "package-99: 10 items" in stream.getvalue()


def test_the_form_follows_the_flags_and_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(make_output(as_json=True, quiet=True).reporter, JsonReporter)
    assert isinstance(make_output(quiet=True).reporter, QuietReporter)
    assert isinstance(make_output().reporter, PlainReporter)
    assert isinstance(make_output(progress="none").reporter, QuietReporter)
    assert isinstance(make_output(progress="rich").reporter, LiveReporter)
    monkeypatch.setattr("sys.stderr", Terminal())
    assert isinstance(make_output().reporter, LiveReporter)
    make_output().result({"a": 1}, "for people")
    make_output(as_json=True).result({"a": 1}, "for people")
    assert capsys.readouterr().out == 'for people\n{"event": "result", "a": 1}\n'


def test_a_stream_that_cannot_hold_the_text() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    write(stream, "é \udcff")
    assert stream.buffer.getvalue() == b"\\xe9 \\udcff\n"  # type: ignore[attr-defined]


def test_amounts() -> None:
    assert [size(number) for number in (0, 999, 1000, 2_500_000_000, 3e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.5 GB",
        "3000.0 TB",
    ]
    assert summary(0, "items", 1.25) == "1.2 s"
    assert summary(3, "layers", 1) == "3 layers in 1.0 s"
    assert summary(10_000_000, "bytes", 2) == "10.0 MB in 2.0 s, 5.0 MB/s"
