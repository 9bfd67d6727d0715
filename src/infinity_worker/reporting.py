"""Reports results to the platform, and does not give up at the first failure."""

import asyncio
import logging
import time
from collections.abc import Callable
from enum import StrEnum
from http import HTTPStatus

import aiohttp

from infinity_worker.backoff import Backoff, retry_after_s
from infinity_worker.results import Report

log = logging.getLogger(__name__)

GIVE_UP_S = 60.0
# The platform reads JSON from a body that claims to be a form, as the SDK sends it.
_HEADERS = {"Content-Type": "application/x-www-form-urlencoded", "charset": "utf-8"}
# A refused report this small was not refused for its size.
_SMALL_BYTES = 100_000
_TOO_MANY = HTTPStatus.TOO_MANY_REQUESTS
_TOO_LARGE = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}


class Delivery(StrEnum):
    """How reporting a result ended."""

    ACCEPTED = "accepted"
    GONE = "gone"
    REFUSED = "refused"
    LOST = "lost"


class Reporter:
    """Posts results, each until the platform has it or says that it wants it no more.

    Args:
        session: carries the platform's key.
        url: where a job's result goes.
        timeout_s: how long one try may take.
        give_up_s: how long to keep trying.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: Callable[[str], str],
        timeout_s: float,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        self._session = session
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._give_up_s = give_up_s

    async def send(self, job_id: str, report: Report) -> Delivery:
        """Post one result.

        Returns:
            `ACCEPTED`; `GONE`, the platform no longer wants it; `REFUSED`, it will not take so many
            bytes; `LOST`, it could not be reached for a minute.
        """
        backoff = Backoff()
        deadline = time.monotonic() + self._give_up_s
        while True:
            status, wish_s = await self._post(job_id, report.body)
            if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
                return Delivery.ACCEPTED
            if status in _TOO_LARGE and len(report.body) > _SMALL_BYTES:
                return Delivery.REFUSED
            if 0 < status < HTTPStatus.INTERNAL_SERVER_ERROR and status != _TOO_MANY:
                log.warning("job %s: the platform no longer wants it (%d)", job_id, status)
                return Delivery.GONE
            pause_s = backoff.next_s(wish_s)
            if time.monotonic() + pause_s > deadline:
                log.error("job %s: its result is lost, the platform was out of reach", job_id)
                return Delivery.LOST
            await asyncio.sleep(pause_s)

    async def _post(self, job_id: str, body: bytes) -> tuple[int, float | None]:
        """Try once: the status, 0 where there is none, and the server's wish for a pause."""
        try:
            async with self._session.post(
                self._url(job_id),
                data=body,
                # Per request: jobs share the session.
                headers=_HEADERS | {"X-Request-ID": job_id},
                timeout=self._timeout,
            ) as response:
                await response.read()
                return response.status, retry_after_s(response.headers)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("job %s: reporting failed (%s)", job_id, type(error).__name__)
            return 0, None
