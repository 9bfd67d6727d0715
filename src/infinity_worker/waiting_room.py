"""Bounds how many items are in the worker: jobs beyond that wait at the door, in turn."""

import asyncio
from collections import deque


class WaitingRoom:
    """Room for a number of items.

    Args:
        most: how many; a job with more than that enters an empty room.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._items = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_full(self) -> bool:
        """Whether somebody waits at the door."""
        return bool(self._line)

    async def enter(self, items: int) -> None:
        """Wait until there is room, and take it; every entry needs one `leave`."""
        if not self._line and self._fits(items):
            self._items += items
            return
        turn = asyncio.get_running_loop().create_future()
        place = (items, turn)
        self._line.append(place)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(items)
            else:
                self._line.remove(place)
                self._admit()
            raise

    def leave(self, items: int) -> None:
        """Give the room back, to who waits longest."""
        self._items -= items
        self._admit()

    def _admit(self) -> None:
        while self._line and self._fits(self._line[0][0]):
            items, turn = self._line.popleft()
            if turn.cancelled():
                continue
            self._items += items
            turn.set_result(None)

    def _fits(self, items: int) -> bool:
        return not self._items or self._items + items <= self._most
