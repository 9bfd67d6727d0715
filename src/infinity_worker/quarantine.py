"""Tries again what was under way when the engine ended, without harm to the innocent.

One of those jobs may be what the engine cannot survive. So they are tried one after the other, with
nothing else under way: if the engine ends again, it is clear at whose input, and no other job has
been with it at both of its ends. Until all are tried, other requests wait.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from infinity_worker.infinity_client import InfinityError
from infinity_worker.recovery import Watch
from infinity_worker.turns import Share


class Quarantine:
    """The line of the suspects, for all models of one engine.

    Args:
        watch: knows when the engine is back.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._suspects: deque[tuple[Share, Callable[[Share], Awaitable[None]]]] = deque()
        self._trying: asyncio.Task[None] | None = None

    @property
    def is_clear(self) -> bool:
        """Whether ordinary requests may be sent."""
        return self._trying is None and self._watch.is_ready

    async def clear(self) -> None:
        """Wait until ordinary requests may be sent.

        Raises:
            InfinityUnavailable: the engine will not come back.
        """
        while not self.is_clear:
            await self._watch.ready()
            if self._trying is not None:
                await asyncio.wait({self._trying})

    def add(self, share: Share, send: Callable[[Share], Awaitable[None]]) -> None:
        """Put a share at the end of the line.

        Args:
            share: what one job had in a request that is lost.
            send: sends it alone, and returns when that has ended in one way or another.
        """
        self._suspects.append((share, send))
        if self._trying is None:
            self._trying = asyncio.create_task(self._try_all())

    async def _try_all(self) -> None:
        try:
            while self._suspects:
                share, send = self._suspects.popleft()
                if share.ticket.done.done():
                    continue
                try:
                    await self._watch.ready()
                except InfinityError as error:
                    share.ticket.fail(error)
                    continue
                await send(share)
        finally:
            self._trying = None
