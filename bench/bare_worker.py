"""What the harness itself allows: a worker without a handler, an SDK, checks or logs.

It passes the engine's answer on as it came, over pipelined raw connections. No worker in Python
does more between this edge and this engine, so its figures bound everyone's.
"""

import asyncio
import sys
from collections.abc import Sequence
from functools import partial

import orjson
import uvloop

from bench.allocator import keep_freed_memory
from bench.http1 import OK, Client, request_to
from bench.measuring_edge import ENDPOINT

_SLOTS = 512
_CONNECTIONS = 8
_ID = "bare"


class BareWorker:
    """Takes jobs, asks, posts."""

    def __init__(self, poller: Client, edge: Sequence[Client], engine: Sequence[Client]) -> None:
        self._poller = poller
        self._edge = edge
        self._engine = engine
        self._turn = 0

    def take(self) -> None:
        """Keep one poll open."""
        path = f"/v2/{ENDPOINT}/job-take-batch/{_ID}?gpu=cpu&batch_size={_SLOTS}"
        self._poller.send(request_to(path), self._on_jobs)

    def _on_jobs(self, status: int, body: bytes) -> None:
        self.take()
        for job in orjson.loads(body) if status == OK else ():
            self._turn += 1
            request = orjson.dumps({**job["input"]["openai_input"], "encoding_format": "base64"})
            client = self._engine[self._turn % _CONNECTIONS]
            client.send(request_to("/embeddings", request), partial(self._post, job["id"]))

    def _post(self, job_id: str, _status: int, answer: bytes) -> None:
        self._turn += 1
        path = f"/v2/{ENDPOINT}/job-done/{_ID}/{job_id}?gpu=cpu&isStream=false"
        request = request_to(path, b'{"output":[%b]}' % answer)
        self._edge[self._turn % _CONNECTIONS].send(request, lambda _status, _answer: None)


async def _run(edge_url: str, engine_url: str) -> None:
    keep_freed_memory()
    poller = await Client.connect(edge_url)
    edge = [await Client.connect(edge_url) for _ in range(_CONNECTIONS)]
    engine = [await Client.connect(engine_url) for _ in range(_CONNECTIONS)]
    BareWorker(poller, edge, engine).take()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_run(*sys.argv[1:3]))
