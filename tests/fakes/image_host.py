"""A small web server that serves a picture in many ways, good and bad, and counts who comes."""

import asyncio
import gzip
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Handler


class ImageHost:
    """One server.

    Attributes:
        picture: the bytes of the picture that it serves.
        url: where it listens, once entered.
        connections: how many there were so far.
        requests: the paths asked for so far.
        at_once: the most requests that were answered at a time.
        elsewhere: where `/elsewhere` redirects to.
        headers: those of the last request.
    """

    def __init__(self, picture: bytes) -> None:
        self.picture = picture
        self.url = ""
        self.connections = 0
        self.requests: list[str] = []
        self.at_once = 0
        self.elsewhere = ""
        self.headers: dict[str, str] = {}
        self._now = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._count])
        app.add_routes(
            [
                web.get("/ok{tail:.*}", self._ok),
                web.get("/status/{status}", self._status),
                web.get("/hops/{hops}", self._hop),
                web.get("/elsewhere", self._elsewhere),
                web.get("/nowhere", self._nowhere),
                web.get("/coded/{coding}", self._coded),
                web.get("/bomb", self._bomb),
                web.get("/endless", self._endless),
                web.get("/claims/{size}", self._claims),
                web.get("/slow", self._slow),
                web.get("/cut", self._cut),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None

        def accept() -> asyncio.BaseProtocol:
            self.connections += 1
            return server()

        self._server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(request.path)
        self.headers = dict(request.headers)
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        try:
            return await handler(request)
        finally:
            self._now -= 1

    async def _ok(self, _request: web.Request) -> web.Response:
        await asyncio.sleep(0.01)
        # The wrong type on purpose: what counts is the content.
        return web.Response(body=self.picture, content_type="text/html")

    async def _status(self, request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["status"]), body=self.picture)

    async def _hop(self, request: web.Request) -> web.Response:
        hops = int(request.match_info["hops"])
        return _redirect(f"/hops/{hops - 1}" if hops > 1 else "/ok.png")

    async def _elsewhere(self, _request: web.Request) -> web.Response:
        return _redirect(self.elsewhere)

    async def _nowhere(self, _request: web.Request) -> web.Response:
        return web.Response(status=302)

    async def _coded(self, request: web.Request) -> web.Response:
        coding = request.match_info["coding"]
        body = gzip.compress(self.picture) if coding == "gzip" else self.picture
        return web.Response(body=body, headers={"Content-Encoding": coding})

    async def _bomb(self, _request: web.Request) -> web.Response:
        body = gzip.compress(bytes(50_000_000))
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(bytes(100_000))
        return response

    async def _claims(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": request.match_info["size"]})
        await response.prepare(request)
        return response

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(b"\0")
            await asyncio.sleep(0.02)
        return response

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(self.picture))})
        await response.prepare(request)
        await response.write(self.picture[:100])
        assert request.transport is not None
        request.transport.close()
        return response


def _redirect(target: str) -> web.Response:
    return web.Response(status=302, headers={"Location": target})
