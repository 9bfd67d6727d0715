"""The line for one model and modality: what is sent when, and what becomes of a failed request."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import NamedTuple, Protocol

from infinity_worker.backoff import Backoff
from infinity_worker.gathering import Gathering, LargeShares
from infinity_worker.infinity_client import (
    MAX_IMAGES_PER_REQUEST,
    MAX_TEXTS_PER_REQUEST,
    EmbeddingBatch,
    InfinityCrashed,
    InfinityError,
    InfinityOverloaded,
)
from infinity_worker.quarantine import Quarantine
from infinity_worker.recovery import (
    MAX_CRASHES,
    Finding,
    Step,
    Watch,
    needs_a_look,
    next_step,
)
from infinity_worker.turns import Share, Ticket, next_request
from infinity_worker.utils import Modality

log = logging.getLogger(__name__)

# The engine's memory grows with the characters of a request; one text may have 122,880.
MAX_CHARS_PER_REQUEST = 1_000_000
# Pixels of images, bytes of recordings. It decodes all images of a request before it scales the
# first: 3 bytes a pixel, several times.
MAX_SIZE_PER_REQUEST = 64_000_000


class Embedder(Protocol):
    """The engine, as far as it is needed here: `InfinityClient`."""

    async def get_embeddings(
        self, model: str, inputs: Sequence[str], modality: Modality = "text"
    ) -> EmbeddingBatch:
        """Embed inputs in one engine request."""


class Meter(Protocol):
    """Who is told of each engine request that was answered."""

    def engine_request(self, items: int, seconds: float, waits: Sequence[float]) -> None:
        """Take note.

        Args:
            items: how many it carried.
            seconds: how long it took.
            waits: how long each job whose first items it carried had waited, in seconds.
        """


class Kind(NamedTuple):
    """What the jobs of one lane have in common.

    Attributes:
        model: a served name.
        modality: what all of their items are.
        together: whether they share requests.
    """

    model: str
    modality: Modality
    together: bool


class Lane:
    """The line for one kind of jobs.

    Args:
        engine: where the requests go.
        watch: knows how the engine is.
        quarantine: tries again what was under way when the engine ended.
        kind: the jobs'.
        most_under_way: how many requests may be under way at a time.
        meter: told of the requests; None for nobody.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # each is another part
        self,
        engine: Embedder,
        watch: Watch,
        quarantine: Quarantine,
        kind: Kind,
        most_under_way: int,
        meter: Meter | None = None,
    ) -> None:
        self._engine = engine
        self._watch = watch
        self._quarantine = quarantine
        self._model, modality, self._gathers = kind
        self._modality: Modality = modality
        self._most_under_way = most_under_way
        self._meter = meter
        self._most_items = MAX_TEXTS_PER_REQUEST if modality == "text" else MAX_IMAGES_PER_REQUEST
        self._most_size = MAX_CHARS_PER_REQUEST if modality == "text" else MAX_SIZE_PER_REQUEST
        self._waiting: deque[Ticket] = deque()
        self._requests: dict[asyncio.Task[None], Sequence[Share]] = {}
        self._is_filling = False
        self._backoff = Backoff()
        self._gathering = Gathering(most_under_way)
        self._large_shares = LargeShares(most_under_way)
        self._resuming: asyncio.TimerHandle | None = None

    @property
    def is_overloaded(self) -> bool:
        """Whether the engine's last answer was that its queue is full."""
        return self._backoff.failures > 0

    def add(self, ticket: Ticket) -> None:
        """Put a job at the end of the line."""
        if ticket.is_small:
            self._large_shares.small_came(time.monotonic())
        if self._meter is not None:
            ticket.since = time.monotonic()
        self._waiting.append(ticket)
        if not self._is_filling:
            # Jobs that were taken together come here in one turn of the loop, and travel together.
            self._is_filling = True
            asyncio.get_running_loop().call_soon(self._fill)

    def drop(self, ticket: Ticket) -> None:
        """Forget a job that is over; a request that nobody waits for any more is dropped too."""
        ticket.todo.clear()
        if self._resuming is not None and all(other.done.done() for other in self._waiting):
            self._resume()
        for request, shares in self._requests.items():
            if all(share.ticket.done.done() for share in shares):
                request.cancel()

    def _fill(self) -> None:
        """Send what waits, as long as a request may be sent."""
        self._is_filling = False
        if self._resuming is not None:
            return
        while self._waiting and len(self._requests) < self._most_under_way:
            large_share = self._large_share()
            if self._gathers and not self._may_leave(large_share):
                return
            shares = next_request(
                self._waiting,
                most_items=self._most_items,
                most_size=self._most_size,
                large_share=large_share,
                enough=self._gathering.enough,
            )
            if not shares:
                return
            self._begin(self._send_ordinary(shares), shares)

    def _begin(
        self, sending: Coroutine[object, object, None], shares: Sequence[Share]
    ) -> asyncio.Task[None]:
        request = asyncio.create_task(sending)
        self._requests[request] = shares
        request.add_done_callback(self._ended)
        return request

    def _may_leave(self, large_share: int) -> bool:
        """Tell whether the small jobs that wait should leave now, or a large job may go."""
        small = self._small_waiting()
        fills = small >= self._most_items or self._size_waiting() >= self._most_size
        may_leave = self._gathering.may_leave(small, self._small_under_way(), fills=fills)
        return may_leave or bool(large_share and any(not each.is_small for each in self._waiting))

    def _small_waiting(self) -> int:
        return sum(len(ticket.todo) for ticket in self._waiting if ticket.is_small)

    def _size_waiting(self) -> int:
        """What the images or recordings that wait count towards a request's limit.

        Texts are not added up each time that one comes: they hardly ever fill a request so.
        """
        if self._modality == "text":
            return 0
        return sum(ticket.size(at) for ticket in self._waiting for at in ticket.todo)

    def _small_under_way(self) -> int:
        return sum(
            len(share.positions)
            for shares in self._requests.values()
            for share in shares
            if share.ticket.is_small_job
        )

    def _large_share(self) -> int:
        with_large = sum(
            not all(share.ticket.is_small_job for share in shares)
            for shares in self._requests.values()
        )
        return self._large_shares.most(time.monotonic(), with_large)

    def _ended(self, request: asyncio.Task[None]) -> None:
        if self._gathers:
            self._gathering.request_ended(self._small_waiting(), self._small_under_way())
        del self._requests[request]
        self._fill()

    async def _send_ordinary(self, shares: Sequence[Share]) -> None:
        """Send a request once the engine is there and no suspect is being tried."""
        try:
            await self._quarantine.enter()
        except InfinityError as error:
            _fail(shares, error)
            return
        try:
            await self._send(shares)
        finally:
            self._quarantine.leave()

    async def _send_alone(self, share: Share) -> None:
        """Send what one job lost when the engine ended, and wait for how that ends."""
        await asyncio.wait({self._begin(self._send([share]), [share])})

    async def _send(self, shares: Sequence[Share]) -> None:
        life = self._watch.life
        try:
            try:
                await self._embed(shares)
            except InfinityError as error:
                await self._recover(shares, error, life)
        except Exception as error:  # noqa: BLE001  # whatever it is, no job may wait for ever
            _fail(shares, error)

    async def _embed(self, shares: Sequence[Share]) -> None:
        items = [share.ticket.items[at] for share in shares for at in share.positions]
        began = time.monotonic()
        batch = await self._engine.get_embeddings(self._model, items, self._modality)
        took_s = time.monotonic() - began
        self._backoff.reset()
        self._large_shares.request_took(len(items), took_s, len(self._requests))
        if self._meter is not None:
            self._meter.engine_request(len(items), took_s, _waits(shares, began))
        start = 0
        for share in shares:
            share.ticket.receive(share.positions, batch, start)
            start += len(share.positions)

    async def _recover(self, shares: Sequence[Share], error: InfinityError, life: int) -> None:
        """Do what the policy says with the jobs of a request that failed."""
        if not isinstance(error, InfinityOverloaded):
            self._backoff.reset()
        finding = Finding.ANSWERS
        if needs_a_look(error):
            finding = await self._watch.diagnose(self._model, life)
        tries = max(share.ticket.tries for share in shares)
        step = next_step(error, finding, jobs=len(shares), tries=tries)
        if step is Step.FAIL:
            _fail(shares, error)
            return
        log.info("%s, %d jobs in the request: %s", type(error).__name__, len(shares), step)
        if step is Step.QUARANTINE:
            for share in shares:
                self._suspect(share, life)
            return
        if step is Step.PAUSE:
            await self._pause(shares)
        for share in shares:
            share.ticket.tries += step is Step.AGAIN
            share.ticket.alone |= step is Step.APART
        self._put_back(shares)

    async def _pause(self, shares: Sequence[Share]) -> None:
        """Have the line wait a while; a suspect does so in its own turn, which others await."""
        if any(share.ticket.crashes for share in shares):
            await asyncio.sleep(self._backoff.next_s())
        elif self._resuming is None:
            loop = asyncio.get_running_loop()
            self._resuming = loop.call_later(self._backoff.next_s(), self._resume)

    def _resume(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
            self._fill()

    def _suspect(self, share: Share, life: int) -> None:
        """Try what a job lost again, unless it was there too often when the engine ended."""
        ticket = share.ticket
        if ticket.note_crash(life) < MAX_CRASHES:
            self._quarantine.add(share, self._send_alone)
            return
        ticket.fail(
            InfinityCrashed(
                f"the engine ended or hung {MAX_CRASHES} times while it embedded this job of "
                f"{len(ticket.items)} items: it is not tried again"
            )
        )

    def _put_back(self, shares: Sequence[Share]) -> None:
        """Put jobs back to the front of the line, in their order."""
        for share in reversed(shares):
            ticket = share.ticket
            if ticket.crashes:
                self._quarantine.add(share, self._send_alone)
                continue
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            ticket.put_back(share.positions)
            self._waiting.appendleft(ticket)


def _fail(shares: Sequence[Share], error: Exception) -> None:
    for share in shares:
        share.ticket.fail(error)


def _waits(shares: Sequence[Share], until: float) -> list[float]:
    """How long jobs waited that were sent now for the first time; each is asked once."""
    waits = []
    for share in shares:
        if share.ticket.since is not None:
            waits.append(until - share.ticket.since)
            share.ticket.since = None
    return waits
