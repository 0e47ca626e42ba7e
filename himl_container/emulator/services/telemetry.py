"""Application Insights: what the SDK reports of its use is taken and thrown away. Nothing leaves the machine."""

from __future__ import annotations

from himl_container.emulator.http import Answer, Request, json_answer
from himl_container.emulator.routes import Route


class Telemetry:
    """Takes reports. Any number of items is said to be accepted, so that nobody sends them again."""

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        test = "tests/emulator/test_network.py::test_telemetry"
        note = "nothing is kept"
        return tuple(
            Route("POST", path, self._track, "Telemetry.Track", test, "telemetry", "approximated", note, public=True)
            for path in ("/v2/track", "/v2.1/track")
        )

    def _track(self, request: Request) -> Answer:
        # Items are lines, or one JSON list; the count matters to the client only where it is less than it sent.
        count = max(1, request.body.count(b"\n"))
        return json_answer({"itemsReceived": count, "itemsAccepted": count, "errors": []})
