"""A headless Chromium, driven through chromedriver (W3C WebDriver), and a server for what it looks at."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit

from himl_container.emulator.http import Refusal, Request
from himl_container.emulator.routes import Router

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of a reference, by the standard

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--window-size=1280,1000",
    "--hide-scrollbars",
)


class Browser:
    """One window."""

    def __init__(self, driver: str, session: str) -> None:
        self._address = f"{driver}/session/{session}"

    def open(self, address: str) -> None:
        self._post("url", url=address)

    @property
    def address(self) -> str:
        return str(self._call("GET", "url"))

    @property
    def title(self) -> str:
        return str(self._call("GET", "title"))

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what the body of a function returns."""
        return self._post("execute/sync", script=script, args=list(arguments))

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def count(self, selector: str) -> int:
        return int(self.run("return document.querySelectorAll(arguments[0]).length", selector))

    def click(self, selector: str) -> None:
        self._post(f"element/{self._find(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        self._post(f"element/{self._find(selector)}/value", text=text)

    def keys(self, *keys: str) -> None:
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def wait(self, script: str, *arguments: Any, seconds: float = 60) -> None:
        """Wait until a function's body returns something true."""
        until = time.monotonic() + seconds
        while not self.run(script, *arguments):
            assert time.monotonic() < until, f"not true: {script} {arguments}"
            time.sleep(0.05)

    def scheme(self, name: str) -> None:
        """Ask for the ``light`` or the ``dark`` colours."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def scripts(self, allowed: bool) -> None:
        self.devtools("Emulation.setScriptExecutionDisabled", value=not allowed)

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._post("goog/cdp/execute", cmd=command, params=parameters)

    def screenshot(self, path: Path) -> None:
        """Store a picture of the whole page."""
        found = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def complaints(self) -> list[str]:
        """What the browser has complained about since the last call: violations of the policy, errors of scripts."""
        return [str(entry["message"]) for entry in self._post("se/log", type="browser")]

    def forget(self) -> None:
        """Delete the cookies."""
        self._call("DELETE", "cookie")

    def close(self) -> None:
        self._call("DELETE", "")

    def _find(self, selector: str) -> str:
        return str(self._post("element", using="css selector", value=selector)[ELEMENT])

    def _post(self, command: str, **parameters: Any) -> Any:
        return self._call("POST", command, parameters)

    def _call(self, method: str, command: str, document: Any = None) -> Any:
        return _call(method, f"{self._address}/{command}".rstrip("/"), document)


def _call(method: str, address: str, document: Any = None) -> Any:
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(address, body, {"content-type": "application/json"}, method=method)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {address}: {error.read().decode()[:2000]}") from None


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser with a fresh profile; skip (in CI: fail) where there is none."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chromium is None:
        kit.lacking("chromium and chromedriver are not installed; scripts/setup.sh installs them")
    log = (folder / "chromedriver.log").open("wb")
    process = subprocess.Popen([str(driver), "--port=0"], stdout=log, stderr=log, cwd=folder)
    try:
        address = f"http://127.0.0.1:{_port_of(process, folder / 'chromedriver.log')}"
        options = {"binary": chromium, "args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        started = _call("POST", f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})
        window = Browser(address, started["sessionId"])
        try:
            yield window
        finally:
            window.close()
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until chromedriver has a port, which it writes into its log.

    Not one that was looked for before: somebody else may take it meanwhile, even who tries to connect to it.
    """
    until = time.monotonic() + 90
    while (found := re.search(r"started successfully on port (\d+)", log.read_text(errors="replace"))) is None:
        assert process.poll() is None and time.monotonic() < until, "chromedriver does not answer"
        time.sleep(0.05)
    return int(found[1])


@contextlib.contextmanager
def serve(router: Router) -> Iterator[str]:
    """Serve the page's routes on the loopback interface, without an emulator; give the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            query = {name: tuple(values) for name, values in urllib.parse.parse_qs(parts.query, True).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request("GET", "127.0.0.1", urllib.parse.unquote(parts.path), query, headers)
            try:
                found = router.find("studio", request)
                answer = found.route.handler(found.request)
            except Refusal as refusal:
                answer = refusal.answer()
            body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
            self.send_response(answer.status)
            for name, value in {**answer.headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
