"""Jobs that wait for the engine, and what its next request carries: planning, and nothing else."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infinity_worker.infinity_client import EmbeddingBatch, InfinityBadResponse

# A job of so few items travels whole.
SMALL_ITEMS = 16


class Ticket:
    """Items of one job that wait for their embeddings.

    Args:
        items: texts, or images, of one model.
        sizes: what each counts towards a request's limit; the characters where it is not given.
        alone: never send them together with another job's.

    Attributes:
        done: its embeddings, or how it failed.
        todo: positions of the items that are still to be sent.
        tries: how often a broken connection had some of them sent again.
        crashes: at how many ends of the engine some of them were with it.
        since: the monotonic time since when it waits; None once some of them were sent.
    """

    __slots__ = (
        *("alone", "crashes", "done", "items", "since", "sizes", "todo", "tries"),
        *("_crashed_in", "_encoded", "_in_order", "_missing", "_tokens", "_vectors"),
    )

    def __init__(
        self, items: Sequence[str], sizes: Sequence[int] | None = None, *, alone: bool = False
    ) -> None:
        self.items = items
        self.sizes = sizes
        self.alone = alone
        self.done: asyncio.Future[EmbeddingBatch] = asyncio.get_running_loop().create_future()
        self.todo = deque(range(len(items)))
        self.tries = 0
        self.crashes = 0
        self.since: float | None = None
        self._crashed_in = -1
        self._in_order = True
        self._encoded: list[str] = []
        self._vectors: NDArray[np.float32] | None = None
        self._missing = len(items)
        self._tokens = 0

    @property
    def is_small_job(self) -> bool:
        """Whether the whole job travels in one request."""
        return len(self.items) <= SMALL_ITEMS

    @property
    def is_small(self) -> bool:
        """Whether what is left travels in one request."""
        return len(self.todo) <= SMALL_ITEMS

    def size(self, at: int) -> int:
        """What an item counts towards a request's limit."""
        return len(self.items[at]) if self.sizes is None else self.sizes[at]

    def take(self, most: int, size: int, *, at_least_one: bool) -> list[int]:
        """Take positions of items to send, within a number of items and their size in all."""
        if self._in_order and len(self.todo) > most:
            # Several requests: texts of similar length together, as the engine pads to the longest.
            self.todo = deque(sorted(self.todo, key=self.size))
            self._in_order = False
        taken: list[int] = []
        while self.todo and len(taken) < most:
            at = self.todo[0]
            size -= len(self.items[at]) if self.sizes is None else self.sizes[at]
            if size < 0 and (taken or not at_least_one):
                break
            taken.append(self.todo.popleft())
        return taken

    def put_back(self, positions: Sequence[int]) -> None:
        """Return positions that were taken and not embedded."""
        self.todo.extendleft(reversed(positions))

    def note_crash(self, life: int) -> int:
        """Note that the engine ended with items of this job; the number of such lives so far."""
        if life != self._crashed_in:
            self._crashed_in = life
            self.crashes += 1
        return self.crashes

    def receive(self, positions: Sequence[int], batch: EmbeddingBatch, start: int) -> None:
        """Take this job's rows, from `start` on, out of the engine's answer."""
        stop = start + len(positions)
        vectors = batch.vectors[start:stop]
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            at = positions[int(np.argmin(finite))]
            self.fail(InfinityBadResponse("the engine answered NaN or infinite numbers", item=at))
            return
        self._missing -= len(positions)
        self._tokens += batch.prompt_tokens
        if self._in_order and len(positions) == len(self.items):
            self._resolve(EmbeddingBatch(batch.encoded[start:stop], vectors, self._tokens))
            return
        if self._vectors is None:
            self._encoded = [""] * len(self.items)
            self._vectors = np.empty((len(self.items), vectors.shape[1]), np.float32)
        elif self._vectors.shape[1] != vectors.shape[1]:
            self.fail(InfinityBadResponse("the engine's embeddings differ in their dimensions"))
            return
        self._vectors[positions] = vectors
        for at, encoded in zip(positions, batch.encoded[start:stop], strict=True):
            self._encoded[at] = encoded
        if self._missing == 0:
            self._resolve(EmbeddingBatch(self._encoded, self._vectors, self._tokens))

    def fail(self, error: Exception) -> None:
        """End the job's wait with an error."""
        if not self.done.done():
            self.done.set_exception(error)

    def _resolve(self, batch: EmbeddingBatch) -> None:
        if not self.done.done():
            self.done.set_result(batch)


@dataclass(frozen=True, slots=True)
class Share:
    """What one job has in one engine request."""

    ticket: Ticket
    positions: Sequence[int]


def next_request(
    waiting: deque[Ticket],
    *,
    most_items: int,
    most_size: int,
    large_share: int,
    enough: int,
) -> list[Share]:
    """Choose what the next engine request carries, and move those jobs to the end of the line.

    Args:
        waiting: the line; jobs that are over are dropped from it.
        most_items: the most items in one request.
        most_size: the most that they count in all, unless a single one counts more.
        large_share: the most items of large jobs, all together; 0 leaves them waiting.
        enough: with so many items of small jobs no further small job is taken along.
    """
    shares: list[Share] = []
    for _ in range(len(waiting)):
        ticket = waiting.popleft()
        if ticket.done.done() or not ticket.todo:
            continue
        small = ticket.is_small
        most = min(most_items, large_share)
        if small:
            most = most_items if enough > 0 else 0
        if most == 0 or (ticket.alone and shares):
            waiting.append(ticket)
            continue
        positions = ticket.take(most, most_size, at_least_one=not shares)
        if ticket.todo:
            # First in the line if the request is full, so that it is not passed over twice.
            (waiting.append if positions else waiting.appendleft)(ticket)
        if not positions:
            break
        shares.append(Share(ticket, positions))
        most_items -= len(positions)
        most_size -= sum(map(ticket.size, positions))
        if small:
            enough -= len(positions)
        else:
            large_share -= len(positions)
        if ticket.alone or most_items <= 0:
            break
    return shares
