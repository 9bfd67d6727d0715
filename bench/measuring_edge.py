"""A bare edge: the worker API and nothing else, so that it costs next to nothing itself.

Each worker has a lane of its own, by its pod id: two workers can be connected and measured in turn.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias
from urllib.parse import parse_qs

from bench.http1 import Connection, listen

POLL_S = 20.0
ENDPOINT = "bench"

OnResult: TypeAlias = Callable[[str, Sequence[bytes]], None]


@dataclass(slots=True, eq=False)
class _Poll:
    """An open long poll."""

    connection: Connection
    limit: int
    is_batch: bool
    timeout: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class Lane:
    """One worker's queue.

    Attributes:
        on_result: called with a job's id and the chunks of what was posted for it.
        asked: set once the worker has asked for a job, which it does when it is ready.
        takes: polls that were answered with jobs.
        pings: heartbeats so far.
    """

    on_result: OnResult = lambda _id, _chunks: None
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    takes: int = 0
    pings: int = 0
    _waiting: deque[tuple[str, bytes]] = field(default_factory=deque)
    _polls: deque[_Poll] = field(default_factory=deque)
    _matching: bool = False

    def submit(self, job_id: str, job_input: bytes) -> None:
        """Make a job available; `job_input` is serialised."""
        self._waiting.append((job_id, job_input))
        if self._polls and not self._matching:
            # Jobs made in the same turn of the event loop are there for the same poll.
            self._matching = True
            asyncio.get_running_loop().call_soon(self._match)

    def take(self, poll: _Poll) -> None:
        """Answer a poll, now or as soon as there is a job."""
        self.asked.set()
        self._polls.append(poll)
        if self._waiting:
            self._match()
        else:
            loop = asyncio.get_running_loop()
            poll.timeout = loop.call_later(POLL_S, self._expire, poll)

    def _expire(self, poll: _Poll) -> None:
        if poll in self._polls:
            self._polls.remove(poll)
            poll.connection.answer_nothing()

    def _match(self) -> None:
        self._matching = False
        while self._waiting and self._polls:
            poll = self._polls.popleft()
            if poll.timeout is not None:
                poll.timeout.cancel()
            if not poll.connection.is_open:
                continue
            count = min(poll.limit, len(self._waiting))
            jobs = [
                b'{"id":"%b","input":%b}' % (job_id.encode(), job_input)
                for job_id, job_input in (self._waiting.popleft() for _ in range(count))
            ]
            self.takes += 1
            poll.connection.answer_json(b"[%b]" % b",".join(jobs) if poll.is_batch else jobs[0])


class MeasuringEdge:
    """Speaks the worker API for any number of lanes; an async context manager.

    Attributes:
        url: where it listens, once entered.
    """

    def __init__(self) -> None:
        self.url = ""
        self._lanes: dict[str, Lane] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server, self.url = await listen(self._handle)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()

    def open_lane(self, worker_id: str) -> Lane:
        """Expect a worker of this id."""
        lane = self._lanes[worker_id] = Lane()
        return lane

    def close_lane(self, worker_id: str) -> None:
        """Forget a worker; what it still asks is answered with 404."""
        self._lanes.pop(worker_id, None)

    def _handle(self, connection: Connection, target: str, chunks: list[bytes]) -> None:
        path, _, query = target.partition("?")
        _, _, _, operation, worker_id, *rest = path.split("/")
        lane = self._lanes.get(worker_id)
        if lane is None:
            connection.answer_not_found()
        elif operation == "job-done":
            connection.answer_empty()
            lane.on_result(rest[0], chunks)
        elif operation == "job-take-batch":
            limit = int(parse_qs(query)["batch_size"][0])
            lane.take(_Poll(connection, limit, is_batch=True))
        elif operation == "job-take":
            lane.take(_Poll(connection, 1, is_batch=False))
        elif operation == "job-stop":
            # Nothing is ever stopped here; the poll is held as the platform holds it.
            asyncio.get_running_loop().call_later(POLL_S, connection.answer_nothing)
        elif operation == "ping":
            lane.pings += 1
            connection.answer_empty()
        else:
            connection.answer_not_found()
