"""Tells callers of the jobs that have finished, where they asked for it."""

import asyncio
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson

from infinity_worker.edge.wire import encode

log = logging.getLogger(__name__)

TRIES = 3
MAX_PENDING = 1000
"""The most webhooks that wait to be delivered: beyond it new ones are dropped."""
MAX_AT_ONCE = 20


class Webhooks:
    """Posts finished jobs, each up to three times.

    Args:
        pause_s: Seconds between two tries.
        timeout_s: How long one try may take.
    """

    def __init__(self, pause_s: float = 10.0, timeout_s: float = 10.0) -> None:
        self._pause_s = pause_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._pending: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    def send(self, url: str, told: Mapping[str, Any], job_input: Any) -> None:
        """Has a job posted, without waiting for it.

        Args:
            url: Where to.
            told: The job's envelope.
            job_input: What was asked, as `Job.input`.
        """
        if len(self._pending) >= MAX_PENDING:
            log.warning("job %s: its webhook is dropped, too many wait", told["id"])
            return
        task = asyncio.create_task(self._deliver(url, told, job_input))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def close(self) -> None:
        """Gives up what has not been delivered."""
        for task in self._pending:
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _deliver(self, url: str, told: Mapping[str, Any], job_input: Any) -> None:
        body = _body(url, told, job_input)
        outcome = ""
        for number in range(TRIES):
            if number:
                await asyncio.sleep(self._pause_s)
            async with self._slots:
                outcome = await self._post(url, body)
            if not outcome:
                return
        log.warning("job %s: its webhook was not delivered: %s", told["id"], outcome)

    async def _post(self, url: str, body: bytes) -> str:
        """Tries once; says what was wrong, in a word."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        headers = {"Content-Type": "application/json"}
        try:
            # What is posted has a caller's input in it: it goes where it was sent, nowhere else.
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                ok = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
                return "" if ok else f"HTTP {answer.status}"
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return type(error).__name__


def _body(url: str, told: Mapping[str, Any], job_input: Any) -> bytes:
    # Apart: what a result may need, the standard library's writer, knows no fragments.
    rest = orjson.dumps({"input": job_input, "webhook": url})
    return encode(told)[:-1] + b"," + rest[1:]
