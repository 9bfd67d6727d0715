"""The fake engine with a known service time: it answers one request after the other."""

import asyncio

from aiohttp import web

from fakes.fake_engine import FakeEngine
from infinity_worker.sizing.costs import ServiceTime


class SlowEngine(FakeEngine):
    """A fake engine that works `service.of(items)` seconds on each request.

    Attributes:
        busy_s: seconds worked so far.
    """

    def __init__(self, service: ServiceTime) -> None:
        super().__init__()
        self.busy_s = 0.0
        self._service = service
        self._working = asyncio.Lock()

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        answer = await super()._embeddings(request)
        body = await request.json()
        # Documents, where the request is to rank them.
        seconds = self._service.of(len(body.get("input") or body["documents"]))
        async with self._working:
            await asyncio.sleep(seconds)
        self.busy_s += seconds
        return answer
