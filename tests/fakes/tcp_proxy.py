"""A wire that can be cut: a TCP proxy between workers and the edge that counts their reports."""

import asyncio
import contextlib
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 65_536
# The head of a request begins a chunk: each connection carries one request at a time.
_JOB_DONE = re.compile(rb"POST /v2/[^/ ]+/job-done/[^/ ]+/([^/? ]+)")
_ACCEPTED = re.compile(rb"HTTP/1\.\d 200 ")
# socket(7), SO_LINGER: on, for 0 seconds. A close is then a reset.
_RESET = struct.pack("ii", 1, 0)


class TcpProxy:
    """Passes on bytes, as an async context manager.

    Args:
        target: the URL of the edge.

    Attributes:
        url: where it listens, once entered.
        refuses: whether it resets new connections.
        posted: how often a result was posted, by job id.
        accepted: how often the edge took a result, by job id.
        cuts: connections that were cut.
    """

    def __init__(self, target: str) -> None:
        self.url = ""
        self.refuses = False
        self.posted: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.cuts = 0
        self._target = urlsplit(target)
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection, wherever in a request or an answer it is."""
        for writer in list(self._open):
            self.cuts += 1
            _reset(writer)

    def forget(self) -> None:
        """Count from nothing."""
        self.posted.clear()
        self.accepted.clear()
        self.cuts = 0

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            _reset(writer)
            return
        try:
            there = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            _reset(writer)
            return
        wire = _Wire(self)
        self._open.add(writer)
        asked = asyncio.create_task(_pump(reader, there[1], wire.request))
        answered = asyncio.create_task(_pump(there[0], writer, wire.answer))
        try:
            await asyncio.wait({asked, answered}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(writer)
            for task in (asked, answered):
                task.cancel()
            writer.close()
            there[1].close()


class _Wire:
    """What one connection carries."""

    def __init__(self, proxy: TcpProxy) -> None:
        self._proxy = proxy
        self._job_id = ""

    def request(self, chunk: bytes) -> None:
        if match := _JOB_DONE.match(chunk):
            self._job_id = match[1].decode()
            self._proxy.posted[self._job_id] += 1

    def answer(self, chunk: bytes) -> None:
        if self._job_id and _ACCEPTED.match(chunk):
            self._proxy.accepted[self._job_id] += 1
        self._job_id = ""


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None]
) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            look(chunk)
            writer.write(chunk)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
