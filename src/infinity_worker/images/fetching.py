"""Gets images from the web, for callers who are not to be trusted with this machine's network.

A URL may lead anywhere: to the cloud's metadata service, to the engine on loopback, to a host whose
name means another address by the time of the connection. So the address is checked where the socket
to it is made, for the record that is connected to, with the RunPod SDK's own rule.
"""

import asyncio
import ipaddress
import socket
import zlib
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from http import HTTPStatus

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from infinity_worker.errors import InvalidRequest
from infinity_worker.images.sources import check_size, checked

_MAX_URL = 8_192
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_INFLATED = ("gzip", "x-gzip", "deflate")
# zlib's sign that it is to recognise gzip and zlib by their headers.
_ANY_HEADER = 32 + zlib.MAX_WBITS
_HEADERS = {
    "Accept": "image/*",
    # A picture is compressed already, and what is not inflated cannot be a bomb.
    "Accept-Encoding": "identity",
    "User-Agent": "infinity-worker",
}


class UnsafeAddress(OSError):
    """The address is not public: no connection to it was tried."""


class Fetcher:
    """Fetches URLs: http and https, public addresses only, no proxies, no cookies, no credentials.

    Args:
        max_bytes: the most bytes of one image, inflated.
        timeout_s: for one image, from the look-up to the last byte, redirects included.
        at_once: how many are fetched at a time.
        allowed_hosts: `host` or `host:port`, whose addresses need not be public.
        resolver: looks up names; the system's, unless another is given.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 20_000_000,
        timeout_s: float = 10.0,
        at_once: int = 16,
        allowed_hosts: Collection[str] = (),
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(at_once)
        self._resolver = resolver
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        # One for public addresses; another one, for allowed hosts, only where there are some.
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    @asynccontextmanager
    async def fetched(self, url: str) -> AsyncIterator[bytes]:
        """What is behind a URL; its slot is free again on leaving.

        Raises:
            InvalidRequest: it cannot be fetched; says why, without the URL.
            RequestTooLarge: it has more than `max_bytes` bytes.
        """
        async with self._slots:
            yield await self._fetch(url)

    async def close(self) -> None:
        """End all connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def _fetch(self, url: str) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                return checked(await self._follow(_parsed(url)), self._max_bytes)
        except TimeoutError:
            raise InvalidRequest(
                f"the image could not be fetched within {self._timeout_s:g} s"
            ) from None
        except (aiohttp.ClientError, OSError, zlib.error, UnicodeError, ValueError) as error:
            raise InvalidRequest(f"the image could not be fetched: {_reason(error)}") from None

    async def _follow(self, url: URL) -> bytes:
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._session(url).get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    return await self._body(response)
                location = response.headers.get("Location", "")
            if not location:
                raise InvalidRequest("the image could not be fetched: a redirect leads nowhere")
            url = _checked(url.join(URL(location)))
        raise InvalidRequest(
            f"the image could not be fetched: more than {_MAX_REDIRECTS} redirects"
        )

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status != HTTPStatus.OK:
            raise InvalidRequest(
                f"the image could not be fetched: its server answered HTTP {response.status}"
            )
        check_size(response.content_length or 0, self._max_bytes)
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity", *_INFLATED):
            raise InvalidRequest(
                "the image could not be fetched: its server compresses it in a way that was not "
                "asked for"
            )
        inflater = zlib.decompressobj(_ANY_HEADER) if encoding in _INFLATED else None
        body = bytearray()
        async for chunk in response.content.iter_any():
            # No more is inflated than tells that it is too much.
            room = self._max_bytes + 1 - len(body)
            body += inflater.decompress(chunk, room) if inflater else chunk
            check_size(len(body), self._max_bytes)
        return bytes(body)

    def _session(self, url: URL) -> aiohttp.ClientSession:
        host = (url.host or "").lower()
        is_allowed = not self._allowed_hosts.isdisjoint((host, f"{host}:{url.port}"))
        if is_allowed not in self._sessions:
            self._sessions[is_allowed] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    resolver=self._resolver,
                    socket_factory=None if is_allowed else _socket_to_public,
                ),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
            )
        return self._sessions[is_allowed]


def _parsed(url: str) -> URL:
    if len(url) > _MAX_URL:
        raise InvalidRequest(f"the URL is longer than {_MAX_URL:,} characters")
    return _checked(URL(url.strip()))


def _checked(url: URL) -> URL:
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidRequest("only http and https URLs with a host are fetched")
    if url.user is not None or url.password is not None:
        raise InvalidRequest("the URL holds a user name or password: it is not fetched")
    return url


def _socket_to_public(info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    """The socket for one record of the look-up, if it may be connected to."""
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise UnsafeAddress("not a public address")
    return socket.socket(family, kind, protocol)


def is_public(address: str) -> bool:
    """Tell whether an address is one of the public internet, by the RunPod SDK's rule.

    A 6to4 address (RFC 3056) is as public as the IPv4 address inside it.
    """
    # The SDK takes a second to import, which a worker that gets no URLs need not spend.
    from runpod.serverless.utils.rp_ssrf import is_safe_address  # noqa: PLC0415

    if not is_safe_address(address):
        return False
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return True
    inner = parsed.sixtofour
    return not parsed.is_site_local and (inner is None or is_safe_address(str(inner)))


def _reason(error: Exception) -> str:
    """Say what went wrong, without the texts of the library, which name hosts."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, UnsafeAddress):
        return (
            "its URL does not lead to a public address (the worker's IMAGE_ALLOWED_HOSTS can allow "
            "a host)"
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host is unknown"
    if isinstance(error, aiohttp.ClientSSLError):
        return "its server's certificate is not valid"
    if isinstance(error, zlib.error):
        return "its server sent damaged data"
    if isinstance(error, aiohttp.InvalidURL | UnicodeError | ValueError):
        return "its URL is not valid"
    return "the connection to its server failed"
