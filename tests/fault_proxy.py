"""A registry that misbehaves on demand: a proxy in front of a real one, with a list of what goes wrong and when.

::

    with registry(tmp_path) as host, misbehaving(host) as proxy:
        proxy.on("PATCH", cut_request(after=1 << 20))          # the first chunk breaks in its middle
        proxy.on("PUT", "/manifests/", status(500), times=2)   # the manifest is taken at the third try
        proxy.every(3, status(503))                            # whatever it is
        connect(f"{proxy.host}/himl/train")

What is not on the list goes through, byte for byte, and is noted in ``proxy.seen``. The ``Host`` header goes through
too, so that the locations that the registry names lead through the proxy.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import re
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_PIECE = 64 << 10
_NOT_PASSED_ON = ("connection", "keep-alive", "transfer-encoding", "te", "upgrade", "proxy-connection")


@dataclass
class Seen:
    """A request as it came in, and what became of it.

    :param status: that it was answered with; 0 when it was cut.
    :param body: bytes of its body that were taken.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    status: int = 0
    body: int = 0


@dataclass
class Reply:
    """What the registry answered; an action may change it before it goes out."""

    status: int
    headers: list[tuple[str, str]]
    data: bytes

    def header(self, name: str) -> str:
        """Return a header, empty where there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def set(self, name: str, value: str | None) -> None:
        """Replace a header, or remove it."""
        self.headers = [(key, old) for key, old in self.headers if key.lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))


class Exchange:
    """One request under way, in the hands of an action."""

    def __init__(self, handler: _Handler) -> None:
        self.handler = handler
        self.method = handler.command
        self.path = handler.path
        self.length = int(handler.headers.get("Content-Length") or 0)
        self.seen = Seen(self.method, self.path, {key.lower(): value for key, value in handler.headers.items()})

    def body(self) -> bytes:
        """Take the whole body of the request."""
        return b"".join(self.pieces(self.length))

    def pieces(self, length: int) -> Iterator[bytes]:
        """Take up to that many bytes of the request's body."""
        end = min(self.length, self.seen.body + length)
        while self.seen.body < end:
            piece = self.handler.rfile.read1(min(_PIECE, end - self.seen.body))  # type: ignore[union-attr]
            if not piece:
                raise ConnectionError("the client went away")
            self.seen.body += len(piece)
            yield piece

    def forward(self, *, body: bytes | None = None, cut_after: int | None = None) -> Reply | None:
        """Send the request to the registry and return its answer, read to its end.

        :param body: to be sent instead of the client's.
        :param cut_after: bytes of the body after which the connection to the registry ends; None is returned then.
        """
        upstream = http.client.HTTPConnection(self.handler.proxy.upstream, timeout=120)
        try:
            self._send(upstream, body, cut_after)
            if cut_after is not None:
                _hang_up(upstream)
                return None
            answer = upstream.getresponse()
            headers = [(key, value) for key, value in answer.getheaders() if key.lower() not in _NOT_PASSED_ON]
            return Reply(answer.status, headers, answer.read())
        finally:
            upstream.close()

    def _send(self, upstream: http.client.HTTPConnection, body: bytes | None, cut_after: int | None) -> None:
        upstream.putrequest(self.method, self.path, skip_host=True, skip_accept_encoding=True)
        for key, value in self.handler.headers.items():
            if key.lower() not in (*_NOT_PASSED_ON, "content-length", "expect"):
                upstream.putheader(key, value)
        if self.length or self.method in ("POST", "PUT", "PATCH"):
            upstream.putheader("Content-Length", str(self.length if body is None else len(body)))
        upstream.endheaders()
        for piece in [body] if body is not None else self.pieces(self.length if cut_after is None else cut_after):
            if not _taken(upstream, piece):
                break

    def pass_on(self, path: str = "") -> None:
        """Do what happens without any fault; the body of a large answer is not held in memory.

        :param path: what the registry is asked for instead of what the client asked for.
        """
        self.path = path or self.path
        upstream = http.client.HTTPConnection(self.handler.proxy.upstream, timeout=120)
        try:
            self._send(upstream, None, None)
            answer = upstream.getresponse()
            headers = [(key, value) for key, value in answer.getheaders() if key.lower() not in _NOT_PASSED_ON]
            if answer.length is None and self.method != "HEAD":
                self.reply(Reply(answer.status, headers, answer.read()))
                return
            self._start(answer.status, headers)
            while self.method != "HEAD" and (piece := answer.read(_PIECE)):
                self.handler.wfile.write(piece)
        finally:
            upstream.close()

    def reply(self, reply: Reply, *, cut_after: int | None = None) -> None:
        """Answer, and cut the connection after some bytes of the body where that is wanted."""
        head = self.method == "HEAD"
        if not head:
            reply.set("Content-Length", str(len(reply.data)))
        self._start(reply.status, reply.headers)
        if not head:
            self.handler.wfile.write(reply.data[:cut_after])
        if cut_after is not None:
            self.cut()

    def _start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        if (
            self.seen.body < self.length
        ):  # an answer before the end of the request: the rest must not be taken for the next
            self.handler.close_connection = True
        self.seen.status = status
        self.handler.send_response_only(status)
        for key, value in headers:
            self.handler.send_header(key, value)
        self.handler.end_headers()

    def cut(self) -> None:
        """End the client's connection at once."""
        self.handler.close_connection = True
        self.handler.wfile.flush()
        with contextlib.suppress(OSError):
            self.handler.connection.shutdown(socket.SHUT_RDWR)


def _taken(upstream: http.client.HTTPConnection, piece: bytes) -> bool:
    """Send a piece of a body, and return whether the registry still listens.

    One that refuses the request (401) reads no body and hangs up soon; its answer can be read all the same.
    """
    try:
        upstream.send(piece)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _hang_up(upstream: http.client.HTTPConnection) -> None:
    """End the connection to the registry, and wait until it has noticed.

    What it makes of the part that it has (it gives the upload up) would else depend on whether the client's next
    request overtakes that.
    """
    with contextlib.suppress(OSError):
        upstream.sock.shutdown(socket.SHUT_WR)
        while upstream.sock.recv(_PIECE):
            pass


Action = Callable[[Exchange], None]


@dataclass
class _Rule:
    method: str
    path: str
    action: Action
    times: int | None
    skip: int
    every: int
    each: int | None = None
    matched: int = 0
    acted: Counter[tuple[str, str]] = field(default_factory=Counter)

    def takes(self, method: str, path: str) -> bool:
        if not re.fullmatch(self.method, method) or not re.search(self.path, path) or self.times == 0:
            return False
        self.matched += 1
        request = method, path.partition("?")[0]
        spared = self.each is not None and self.acted[request] >= self.each
        if spared or (self.matched - self.skip) // self.every <= self.acted.total():
            return False
        self.acted[request] += 1
        self.times = None if self.times is None else self.times - 1
        return True


@dataclass
class FaultProxy:
    """A running proxy; rules may be added at any time.

    :param upstream: host and port of the real registry.
    :param seen: the requests that came in, in their order.
    """

    upstream: str
    host: str = ""
    seen: list[Seen] = field(default_factory=list)
    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _under_way: int = 0

    def __post_init__(self) -> None:
        self._idle = threading.Condition(self._lock)

    def on(self, method: str, *where: Any, times: int | None = 1, skip: int = 0, every: int = 1) -> None:
        """Add a rule: ``on(method, action)`` or ``on(method, path, action)``; the rule added last comes first.

        :param method: regular expression for the whole method.
        :param where: regular expression for some of the path and query, and the action.
        :param times: how often it acts; None for always.
        :param skip: matching requests that pass before.
        :param every: only each such matching request.
        """
        path, action = where if len(where) == 2 else ("", where[0])
        with self._lock:
            self._rules.insert(0, _Rule(method, path, action, times, skip, every))

    def every(self, count: int, action: Action) -> None:
        """Do something with each such request, without end, but with no request (method and path) more than four times.

        Threads that keep in step would else have one of them meet the fault with each of its six tries, now and then.
        It meets the next request instead.
        """
        with self._lock:
            self._rules.insert(0, _Rule(".*", "", action, None, 0, count, each=4))

    def behave(self) -> None:
        """Forget all rules."""
        with self._lock:
            self._rules.clear()

    def rest(self) -> None:
        """Wait until no request is under way any more: one whose client has gone may still be on to the registry."""
        with self._idle:
            assert self._idle.wait_for(lambda: not self._under_way, timeout=130), "a request does not end"

    def paths(self, method: str, path: str = "") -> list[str]:
        """Return the paths that were asked with a method (a regular expression), also those that were cut."""
        return [one.path for one in self.seen if re.fullmatch(method, one.method) and re.search(path, one.path)]

    def handle(self, exchange: Exchange) -> None:
        """Answer a request by the first rule that takes it."""
        with self._lock:
            self.seen.append(exchange.seen)
            self._under_way += 1
            rule = next((rule for rule in self._rules if rule.takes(exchange.method, exchange.path)), None)
        try:
            (rule.action if rule else Exchange.pass_on)(exchange)
        except OSError:
            exchange.cut()
        finally:
            with self._idle:
                self._under_way -= 1
                self._idle.notify_all()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120
    proxy: FaultProxy

    def log_message(self, *arguments: object) -> None:
        """Be silent."""

    def _any(self) -> None:
        self.proxy.handle(Exchange(self))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent: a client that goes away is what many tests are about."""


@contextlib.contextmanager
def misbehaving(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy in front of a registry (``127.0.0.1:40001``) for the length of the context."""
    proxy = FaultProxy(str(upstream))
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    with _Server(("127.0.0.1", 0), handler) as server:
        proxy.host = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


def status(code: int, data: bytes = b"", headers: Mapping[str, str] | None = None) -> Action:
    """Answer without asking the registry."""

    def act(exchange: Exchange) -> None:
        exchange.body()
        exchange.reply(Reply(code, list((headers or {}).items()), data))

    return act


def error(code: int, name: str, message: str = "", headers: Mapping[str, str] | None = None) -> Action:
    """Answer with an error as the distribution specification writes it."""
    data = json.dumps({"errors": [{"code": name, "message": message}]}).encode()
    return status(code, data, {"Content-Type": "application/json", **(headers or {})})


def drop(exchange: Exchange) -> None:
    """Hang up without an answer; the registry does not hear of the request."""
    exchange.cut()


def cut_request(after: int) -> Action:
    """Let some bytes of the body reach the registry, then cut both connections."""

    def act(exchange: Exchange) -> None:
        exchange.forward(cut_after=after)
        exchange.cut()

    return act


def swallow(after: int) -> Action:
    """Take some bytes of the body, then cut the connection; the registry does not hear of the request."""

    def act(exchange: Exchange) -> None:
        for _ in exchange.pieces(after):
            pass
        exchange.cut()

    return act


def cut_and_keep(proxy: FaultProxy, after: int) -> Action:
    """Cut the connection after some bytes of a chunk; these the registry keeps, and says so when it is asked.

    That is what the specification means by resuming. Debian's registry does not do it by itself: it drops an upload
    of whose last chunk it has a part. So it is given this part as a whole chunk here.
    """

    def act(exchange: Exchange) -> None:
        part = b"".join(exchange.pieces(after))
        upload = exchange.path.partition("&digest=")[0]
        answer = _patch(exchange, upload, part)
        kept = answer.removeprefix(f"http://{proxy.host}")
        proxy.on("GET", re.escape(upload), lambda asked: asked.pass_on(kept))
        exchange.cut()

    return act


def _patch(exchange: Exchange, path: str, data: bytes) -> str:
    """Send a chunk and return the location that the registry answers."""
    upstream = http.client.HTTPConnection(exchange.handler.proxy.upstream, timeout=60)
    try:
        headers = {"Host": exchange.handler.headers["Host"], "Content-Type": "application/octet-stream"}
        upstream.request("PATCH", path, data, headers)
        answer = upstream.getresponse()
        answer.read()
        assert answer.status == 202, answer.status
        return answer.headers["Location"]
    finally:
        upstream.close()


def cut_answer(after: int) -> Action:
    """Let the registry answer, and cut the connection after some bytes of the body."""

    def act(exchange: Exchange) -> None:
        reply = exchange.forward()
        assert reply is not None
        exchange.reply(reply, cut_after=after)

    return act


def lose_answer(exchange: Exchange) -> None:
    """Let the registry do what is asked, and hang up instead of telling so."""
    exchange.forward()
    exchange.cut()


def change(how: Callable[[Reply], None]) -> Action:
    """Change what the registry answered."""

    def act(exchange: Exchange) -> None:
        reply = exchange.forward()
        assert reply is not None
        how(reply)
        exchange.reply(reply)

    return act


def damage(exchange: Exchange) -> None:
    """Change a byte of the request's body on its way."""
    data = bytearray(exchange.body())
    data[len(data) // 2] ^= 1
    reply = exchange.forward(body=bytes(data))
    assert reply is not None
    exchange.reply(reply)


def first(what: Callable[[], object], then: Action = Exchange.pass_on) -> Action:
    """Do something of the test's own (push another manifest, wait for an event) before a request goes on."""

    def act(exchange: Exchange) -> None:
        what()
        then(exchange)

    return act


def with_referrers_api(proxy: FaultProxy, *, page: int = 100) -> None:
    """Give the registry the referrers API of the distribution specification 1.1, which Debian's does not have yet.

    :param page: descriptors in an answer; the rest is behind ``Link``.
    """
    known: dict[str, list[dict[str, Any]]] = defaultdict(list)
    lock = threading.Lock()

    def store(exchange: Exchange) -> None:
        data = exchange.body()
        reply = exchange.forward(body=data)
        assert reply is not None
        value = json.loads(data)
        subject = value.get("subject")
        if reply.status == 201 and subject:
            entry = {
                "mediaType": value["mediaType"],
                "digest": reply.header("Docker-Content-Digest"),
                "size": len(data),
            }
            entry["artifactType"] = value.get("artifactType") or value["config"]["mediaType"]
            entry |= {"annotations": value["annotations"]} if value.get("annotations") else {}
            with lock:
                if entry not in known[subject["digest"]]:
                    known[subject["digest"]].append(entry)
            reply.set("OCI-Subject", subject["digest"])
        exchange.reply(reply)

    def answer(exchange: Exchange) -> None:
        path, _, query = exchange.path.partition("?")
        start = int(query.partition("last=")[2] or 0)
        found = known[path.rpartition("/")[2]]
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
        data = json.dumps({**index, "manifests": found[start : start + page]}).encode()
        headers = [("Content-Type", index["mediaType"])]
        if len(found) > start + page:
            headers.append(("Link", f'<{path}?last={start + page}>; rel="next"'))
        exchange.reply(Reply(200, headers, data))  # type: ignore[arg-type]

    proxy.on("PUT", "/manifests/", store, times=None)
    proxy.on("GET", "/referrers/", answer, times=None)
