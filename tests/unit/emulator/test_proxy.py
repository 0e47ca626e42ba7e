"""The proxy's end, while a request is still being answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
from uvicorn import Config

from himl_container.emulator.certificates import Authority
from himl_container.emulator.hosts import Hosts
from himl_container.emulator.installation import open_installation
from himl_container.emulator.proxy import Proxy


class Slow:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.set()
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"page"})


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Authority, Hosts]:
    made = open_installation(tmp_path / "data", workspace_name="ws", resource_group="group")
    return Authority(made.folder), Hosts(made.workspace)


def test_what_is_opened_after_the_door_was_closed_is_served(parts: tuple[Authority, Hosts]) -> None:
    """A new socket gets the door's number, and the loop must not take it for the door."""

    async def carry_out() -> None:
        application = Slow()
        proxy = Proxy(Config(application, lifespan="off", log_config=None), *parts)
        door = socket.create_server(("127.0.0.1", 0))
        address, number = door.getsockname(), door.fileno()
        proxy.listen(door)
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await application.asked.wait()
        closing = asyncio.ensure_future(proxy.close(60))
        with contextlib.ExitStack() as stack:
            while door.fileno() >= 0:
                await asyncio.sleep(0)
            ends: dict[int, tuple[socket.socket, socket.socket]] = {}
            while number not in ends:
                pair = [stack.enter_context(end) for end in socket.socketpair()]
                for here, there in (pair, pair[::-1]):
                    here.setblocking(False)
                    ends[here.fileno()] = here, there
            here, there = ends[number]
            heard = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(here, 10))
            await asyncio.sleep(0)  # it waits for something to come
            there.send(b"heard")
            assert await asyncio.wait_for(heard, 30) == b"heard"
            application.go.set()
            assert (await reader.read()).endswith(b"page")
            await closing
            writer.close()

    asyncio.run(carry_out())


def test_a_request_that_does_not_end_is_given_up_without_a_traceback(
    parts: tuple[Authority, Hosts], caplog: pytest.LogCaptureFixture
) -> None:
    async def carry_out() -> None:
        application = Slow()
        proxy = Proxy(Config(application, lifespan="off", log_config=None), *parts)
        door = socket.create_server(("127.0.0.1", 0))
        address = door.getsockname()
        proxy.listen(door)
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await application.asked.wait()
        await proxy.close(0)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()

    with caplog.at_level(logging.INFO):
        asyncio.run(carry_out())
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []
    assert "a request was given up" in caplog.text
