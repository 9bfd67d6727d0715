"""The local edge behind a layer that misbehaves on demand, and that counts."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from infinity_worker.edge.app import EdgeSettings, create_app
from infinity_worker.edge.server import AppServer

MISCHIEFS = (
    "500",
    "429",  # with Retry-After: 0
    "503",
    "reset",  # the connection breaks before an answer
    "swallow",  # the request is carried out, and then the connection breaks
    "hang",  # no answer until the client gives up
)


# Short, because a worker that is told to end waits for its open poll.
POLL_S = 2.0


class FlakyEdge:
    """An ASGI application around the edge's.

    Attributes:
        job_done: what to do with the next posts to job-done, in turn.
        job_take: what to do with the next questions for jobs, in turn.
        reported: how often the edge took a result, by job id.
        posted: how often a result was posted, by job id.
    """

    def __init__(self, job_done: Iterable[str] = (), job_take: Iterable[str] = ()) -> None:
        self.app = create_app(EdgeSettings(poll_s=POLL_S))
        self.job_done = list(job_done)
        self.job_take = list(job_take)
        self.reported: Counter[str] = Counter()
        self.posted: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or not."""
        path = scope.get("path", "")
        mischief = ""
        if "/job-done/" in path:
            self.posted[path.rpartition("/")[2]] += 1
            mischief = self.job_done.pop(0) if self.job_done else ""
        if "/job-take" in path:
            mischief = self.job_take.pop(0) if self.job_take else ""
        if mischief == "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
        elif mischief == "reset":
            await _break_off(send)
        elif mischief.isdecimal():
            await _answer(send, int(mischief))
        else:
            await self.app(scope, receive, self._counting(path, send, lost=mischief == "swallow"))

    def _counting(self, path: str, send: Any, *, lost: bool) -> Any:
        async def counting(message: Any) -> None:
            if message["type"] == "http.response.start" and "/job-done/" in path:
                self.reported[path.rpartition("/")[2]] += message["status"] == 200
            if lost:
                await _break_off(send)
            await send(message)

        return counting


async def _answer(send: Any, status: int) -> None:
    headers = [(b"retry-after", b"0"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _break_off(send: Any) -> None:
    """Promise a body and fail: uvicorn then closes the connection."""
    headers = [(b"content-length", b"10")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    raise asyncio.CancelledError


@contextmanager
def serving(edge: FlakyEdge) -> Iterator[str]:
    """Serve a flaky edge on a port of the system's choice; yields its URL."""
    closing = edge.app.state.edge.closing
    with AppServer(edge, before_shutdown=closing.set, grace_s=1) as server:
        yield server.url
