"""Clients that never stop asking, each answer checked, and what became of their jobs."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp
import numpy as np

LONGEST_S = 120.0
"""A job that takes longer is lost."""

_TEXTS = tuple(f"a text about the number {number}" for number in range(256))
# Jobs of these sizes in turn; engines round differently in batches of different shapes.
_SIZES = (1, 1, 2, 1, 3, 1, 16, 1)
_CLOSE = 1e-5
# What a failed job may say: what the caller can do nothing about, and may try again.
_HONEST = {429, 500, 502, 503, 504}
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
    """Closed-loop clients of one model, at the edge's own address.

    Args:
        session: whose base URL is the endpoint's.
        model: a served name.
        clients: how many ask at a time.
    """

    def __init__(self, session: aiohttp.ClientSession, model: str, clients: int) -> None:
        self.ledger = Ledger()
        self._session = session
        self._model = model
        self._clients = clients
        self._expected: Sequence[Any] = ()
        self._over = asyncio.Event()

    async def learn(self) -> None:
        """Ask for the right answers, while nothing is wrong; waits until the worker is there.

        Raises:
            RuntimeError: there are none.
        """
        envelope = await self._ask(_TEXTS)
        if envelope["status"] != "COMPLETED":
            raise RuntimeError(f"the stack does not answer: {envelope.get('error')}")
        self._expected = [entry["embedding"] for entry in envelope["output"]["data"]]

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
        try:
            verdict = self._judge(await self._ask([_TEXTS[place] for place in chosen]), chosen)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            verdict = Verdict.LOST
        if verdict is Verdict.RIGHT:
            ledger.right.append((began, time.monotonic()))
        ledger.verdicts[verdict] += 1
        return verdict

    async def _client(self) -> None:
        while not self._over.is_set():
            if await self.send() is not Verdict.RIGHT:
                await asyncio.sleep(_AFTER_ERROR_S)

    async def _ask(self, texts: Sequence[str]) -> dict[str, Any]:
        body = {"input": {"model": self._model, "text": list(texts)}}
        async with self._session.post("runsync?wait=300000", json=body) as response:
            envelope: dict[str, Any] = await response.json()
            return envelope

    def _judge(self, envelope: dict[str, Any], chosen: Sequence[int]) -> Verdict:
        if envelope["status"] == "FAILED":
            with contextlib.suppress(ValueError, TypeError, KeyError):
                code = json.loads(envelope["error"])["code"]
                self.ledger.codes[code] += 1
                return Verdict.ERROR if code in _HONEST else Verdict.WRONG
            return Verdict.WRONG
        if envelope["status"] != "COMPLETED":
            return Verdict.LOST
        found = [entry["embedding"] for entry in envelope["output"]["data"]]
        right = [self._expected[place] for place in chosen]
        is_right = np.shape(found) == np.shape(right) and np.allclose(found, right, atol=_CLOSE)
        return Verdict.RIGHT if is_right else Verdict.WRONG


def _places(number: int) -> Iterator[int]:
    size = _SIZES[number % len(_SIZES)]
    return iter(range(number * 7, number * 7 + size))
