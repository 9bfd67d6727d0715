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
        self._ordinary = 0
        self._none_ordinary = asyncio.Event()
        self._none_ordinary.set()

    async def enter(self) -> None:
        """Wait until an ordinary request may be sent; each needs one `leave`.

        Raises:
            InfinityUnavailable: the engine will not come back.
        """
        while self._trying is not None or not self._watch.is_ready:
            await self._watch.ready()
            if self._trying is not None:
                await asyncio.wait({self._trying})
        self._ordinary += 1
        self._none_ordinary.clear()

    def leave(self) -> None:
        """Say that an ordinary request has ended."""
        self._ordinary -= 1
        if not self._ordinary:
            self._none_ordinary.set()

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
                await self._none_ordinary.wait()
                await send(share)
        finally:
            self._trying = None
