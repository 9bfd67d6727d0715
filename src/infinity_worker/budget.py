"""Room that is lent out: who finds too little waits, first come first served."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """So many bytes, or items, for all who need some of them at a time.

    Args:
        total: how many there are. Who needs more gets all of them, and is then alone.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_short(self) -> bool:
        """Whether somebody waits."""
        return any(not turn.done() for _, turn in self._waiting)

    @property
    def held(self) -> int:
        """How many are lent out."""
        return self._total - self._free

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """Wait for so many, and hold them."""
        await self.take(amount)
        try:
            yield
        finally:
            self.give_back(amount)

    async def take(self, amount: int) -> None:
        """Wait for so many; each of these needs one `give_back` of as many."""
        amount = min(amount, self._total)
        if not self._waiting and amount <= self._free:
            self._free -= amount
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._free += amount
            self._wake()
            raise

    def give_back(self, amount: int) -> None:
        """Hand them to who waits longest."""
        self._free += min(amount, self._total)
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            amount, turn = self._waiting[0]
            # Who was cancelled is still in the line until here.
            if not turn.done():
                if amount > self._free:
                    return
                self._free -= amount
                turn.set_result(None)
            self._waiting.popleft()
