"""Clients that never stop asking, each answer checked, and what became of their jobs."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import aiohttp
import numpy as np

from chaos.callers import Caller, NonsenseError, RefusalError, Vectors

_TEXTS = tuple(f"a text about the number {number}" for number in range(256))
# Jobs of these sizes in turn; engines round differently in batches of different shapes.
_SIZES = (1, 1, 2, 1, 3, 1, 16, 1)
_CLOSE = 1e-5
# Clients wait a moment before they try again.
_AFTER_ERROR_S = 0.05


class Verdict(StrEnum):
    """What became of a job."""

    RIGHT = "right"
    ERROR = "error"
    WRONG = "wrong"
    LOST = "lost"


@dataclass
class Ledger:
    """What became of the jobs.

    Attributes:
        sent: how many were sent.
        verdicts: how many ended how.
        codes: the codes of the errors.
        right: when those with right answers were sent, and answered.
    """

    sent: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    right: list[tuple[float, float]] = field(default_factory=list)

    def right_since(self, moment: float) -> int:
        """How many of the jobs that were sent after a moment have been answered rightly."""
        return sum(sent >= moment for sent, _ in self.right)

    def recovery_s(self, moment: float) -> float | None:
        """Seconds from a moment to the first right answer of a job that was sent after it."""
        answered = [done - moment for sent, done in self.right if sent >= moment]
        return min(answered, default=None)


class Load:
    """Closed-loop clients.

    Args:
        ask: how they ask, and whom.
        clients: how many ask at a time.
    """

    def __init__(self, ask: Caller, clients: int) -> None:
        self.ledger = Ledger()
        self._ask = ask
        self._clients = clients
        self._expected: Vectors = ()
        self._over = asyncio.Event()

    async def learn(self) -> None:
        """Ask for the right answers, while nothing is wrong; waits until the worker is there.

        Raises:
            RefusalError: there are none.
        """
        self._expected = await self._ask(_TEXTS)

    async def run(self) -> None:
        """Ask until `end`; then wait for what is under way."""
        await asyncio.gather(*(self._client() for _ in range(self._clients)))

    def begin_anew(self) -> None:
        """Count from nothing."""
        self.ledger = Ledger()
        self._over.clear()

    def end(self) -> None:
        """Send nothing more."""
        self._over.set()

    async def send(self) -> Verdict:
        """Send the next job and wait for what becomes of it."""
        ledger = self.ledger
        chosen = [place % len(_TEXTS) for place in _places(ledger.sent)]
        ledger.sent += 1
        began = time.monotonic()
        verdict = await self._verdict(chosen)
        if verdict is Verdict.RIGHT:
            ledger.right.append((began, time.monotonic()))
        ledger.verdicts[verdict] += 1
        return verdict

    async def _client(self) -> None:
        while not self._over.is_set():
            if await self.send() is not Verdict.RIGHT:
                await asyncio.sleep(_AFTER_ERROR_S)

    async def _verdict(self, chosen: Sequence[int]) -> Verdict:
        try:
            found = await self._ask([_TEXTS[place] for place in chosen])
        except RefusalError as refusal:
            self.ledger.codes[refusal.code] += 1
            return Verdict.ERROR
        except NonsenseError:
            return Verdict.WRONG
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return Verdict.LOST
        right = [self._expected[place] for place in chosen]
        is_right = np.shape(found) == np.shape(right) and np.allclose(found, right, atol=_CLOSE)
        return Verdict.RIGHT if is_right else Verdict.WRONG


def _places(number: int) -> Iterator[int]:
    size = _SIZES[number % len(_SIZES)]
    return iter(range(number * 7, number * 7 + size))
