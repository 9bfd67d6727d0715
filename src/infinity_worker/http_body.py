"""Reads the body of an HTTP request: bounded while it comes in, inflated within the same bound."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol, TypeAlias

import orjson
from backports import zstd

from infinity_worker.errors import InvalidRequest, RequestTooLarge, RequestTooSlow, UnknownEncoding

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]

# What one request's body may take to come in: half of what the platform grants a whole request.
_READ_S = 150.0
# A decompressor keeps so much of what it wrote: 32 MB, more than any body may have.
_ZSTD: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: 25}
_GZIP_WINDOW = 31  # zlib's largest, in a gzip header
# Both formats allow several parts, one after the other; what follows each is copied.
_MOST_PARTS = 64
ENCODINGS = ("gzip", "zstd")


class ClientGoneError(Exception):
    """The client hung up before its request was complete."""


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


async def read_json(
    headers: Mapping[bytes, bytes], receive: Receive, limit: int, read_s: float = _READ_S
) -> object:
    """The JSON value that a request carries; None for an empty body.

    Args:
        headers: the request's, in lower case.
        receive: ASGI's.
        limit: the most bytes, inflated; no more than these are ever held of what was sent.
        read_s: the seconds in which all of it must come.

    Raises:
        RequestError: it is too large, too slow, compressed in an unknown way, or no JSON.
        ClientGoneError: there is nobody left to answer.
    """
    body = await _read(headers, receive, limit, read_s)
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
    if encoding != "identity" and body:
        body = await asyncio.to_thread(inflate, body, encoding, limit)
    if not body:
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest("the body is not valid JSON") from None


async def _read(
    headers: Mapping[bytes, bytes], receive: Receive, limit: int, read_s: float
) -> bytes:
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(read_s):
            while (message := await receive())["type"] == "http.request":
                body += message["body"]
                if len(body) > limit:
                    raise _too_large(limit)
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise RequestTooSlow(f"the body did not come within {read_s:.0f} s") from None
    raise ClientGoneError


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a body, all of it or nothing.

    Args:
        body: what was sent.
        encoding: `gzip` or `zstd`, as in Content-Encoding.
        limit: the most bytes that come out.

    Raises:
        RequestError: it is larger, damaged, incomplete, or compressed in another way.
    """
    if encoding not in ENCODINGS:
        raise UnknownEncoding("Content-Encoding: gzip and zstd are read, and no others")
    inflated = bytearray()
    try:
        for _ in range(_MOST_PARTS):
            if not body:
                return bytes(inflated)
            part = _decompressor(encoding)
            # Room for one byte too many, to see that there are too many.
            inflated += part.decompress(body, limit + 1 - len(inflated))
            if len(inflated) > limit:
                raise _too_large(limit)
            if not part.eof:
                raise InvalidRequest(f"the body is incomplete, or damaged: it is no {encoding}")
            body = part.unused_data
    except (zlib.error, zstd.ZstdError, MemoryError):
        raise InvalidRequest(f"the body is damaged: it is no {encoding}") from None
    raise InvalidRequest(f"the body is {encoding} in more than {_MOST_PARTS} parts")


def _decompressor(encoding: str) -> _Decompressor:
    if encoding == "zstd":
        return zstd.ZstdDecompressor(options=_ZSTD)
    return zlib.decompressobj(_GZIP_WINDOW)


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body is larger than {limit:,} bytes: send fewer items a request")
