"""The least HTTP/1.1 that measuring needs: keep-alive, no framework, no copies.

What the measuring processes cost is taken from the machine that the worker runs on, so both sides
are plain protocols; only the parser (httptools, in C) is borrowed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from httptools import HttpRequestParser, HttpResponseParser

HOST = "127.0.0.1"
OK = 200
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

Handle: TypeAlias = "Callable[[Connection, str, list[bytes]], None]"
OnAnswer: TypeAlias = Callable[[int, bytes], None]


class Connection(asyncio.Protocol):
    """One accepted connection; its peer sends one request at a time.

    Args:
        handle: called for each request with the connection, the target and the body's chunks. It
            answers with one of the `answer_…` methods, at once or later.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._parser = HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._target = b""
        self._chunks: list[bytes] = []
        self.data_received = self._parser.feed_data  # type: ignore[method-assign]  # one call less

    @property
    def is_open(self) -> bool:
        """Whether an answer still reaches the peer."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transport has the interface but not the base class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """Drop the transport."""
        self._transport = None

    def on_message_begin(self) -> None:
        """Forget the request before (called by the parser, as the next three)."""
        self._target = b""
        self._chunks = []

    def on_url(self, part: bytes) -> None:
        """Keep a part of the target."""
        self._target += part

    def on_body(self, chunk: bytes) -> None:
        """Keep a chunk of the body; most bodies are only counted, so nothing is joined."""
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        """Have the request answered."""
        self._handle(self, self._target.decode("ascii"), self._chunks)

    def answer_json(self, body: bytes) -> None:
        """Answer 200 with JSON."""
        self._write(_JSON % len(body), body)

    def answer_empty(self) -> None:
        """Answer 200 with nothing."""
        self._write(_EMPTY)

    def answer_nothing(self) -> None:
        """Answer 204: a long poll that ends without news."""
        self._write(_NO_CONTENT)

    def answer_not_found(self) -> None:
        """Answer 404."""
        self._write(_NOT_FOUND)

    def _write(self, *parts: bytes) -> None:
        if self._transport is not None:
            self._transport.writelines(parts)


async def listen(handle: Handle) -> tuple[asyncio.Server, str]:
    """Serve on a port of the system's choice.

    Returns:
        The server and its URL.
    """
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(handle), HOST, 0, backlog=2048)
    return server, f"http://{HOST}:{server.sockets[0].getsockname()[1]}"


class Client(asyncio.Protocol):
    """One kept-alive connection to a server; requests are answered in the order of sending."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[OnAnswer] = deque()
        self._chunks: list[bytes] = []

    @classmethod
    async def connect(cls, url: str) -> "Client":
        """Connect to `http://host:port`."""
        host, _, port = url.removeprefix("http://").partition(":")
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(cls, host, int(port))
        return client

    def send(self, request: Sequence[bytes], on_answer: OnAnswer) -> None:
        """Send a request made by `request_to`; `on_answer` gets status and body."""
        assert self._transport is not None  # noqa: S101  # narrows the type
        self._waiting.append(on_answer)
        self._transport.writelines(request)

    async def ask(self, request: Sequence[bytes]) -> bytes:
        """Send a request and await the body of a 200.

        Raises:
            ConnectionError: another status, or the connection broke.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def on_answer(status: int, body: bytes) -> None:
            if future.done():
                return
            if status == OK:
                future.set_result(body)
            else:
                future.set_exception(ConnectionError(f"answered with {status}: {body[:200]!r}"))

        self.send(request, on_answer)
        return await future

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transport has the interface but not the base class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """Fail what still waits for an answer."""
        while self._waiting:
            self._waiting.popleft()(0, b"the connection broke")

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._parser.feed_data(data)

    def on_body(self, chunk: bytes) -> None:
        """Keep a chunk (called by the parser)."""
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        """Hand out the answer (called by the parser)."""
        body = b"".join(self._chunks)
        self._chunks = []
        self._waiting.popleft()(self._parser.get_status_code(), body)


def request_to(path: str, body: bytes | None = None) -> tuple[bytes, bytes]:
    """The bytes of a GET, or of a POST of JSON."""
    if body is None:
        return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), b""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body
