"""Which items go to the engine together: one engine request serves many jobs.

The engine pays for every request it gets: HTTP, validation, the response. So only a few requests
are under way at a time, and what arrives meanwhile travels together in the next. There is no timer:
a worker with nothing under way sends at once. While something is, the next request leaves once as
much waits as is under way; otherwise the first of the callers that come back after a large request
would leave alone, and the engine would be busy with crumbs. (Measured with 32 callers, MiniLM on 2
cores: 16 texts a request instead of 11, and 2.0 times what the engine does alone, not 1.6.)

Jobs take turns. Every request carries the small jobs that wait, whole, and a share of the large
ones that takes the engine no longer than a moment, so that a job of 2,048 texts does not hold up a
job of one.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from infinity_worker.infinity_client import (
    MAX_IMAGES_PER_REQUEST,
    MAX_TEXTS_PER_REQUEST,
    EmbeddingBatch,
    InfinityBadResponse,
    InfinityError,
    InfinityRejected,
)
from infinity_worker.turns import Share, Ticket, next_request
from infinity_worker.utils import Modality

log = logging.getLogger(__name__)

# The engine's memory grows with the characters of a request; one text may have 122,880.
MAX_CHARS_PER_REQUEST = 1_000_000
# It decodes all images of a request before it scales the first: 3 bytes a pixel, several times.
MAX_PIXELS_PER_REQUEST = 64_000_000
# How long the large jobs' share of one request may take the engine: while small jobs come in, and
# while none do. The second bounds what the first small job waits, and what a cancelled job wastes.
SHARED_S = 0.015
ALONE_S = 0.5
# Small jobs are expected for so long after the last one.
_EXPECT_SMALL_S = 1.0
_LEAST_SHARE = 8
# Infinity's batch size, unless it is told another: a rest of a batch costs nearly a whole one.
_ENGINE_BATCH = 32
# Where jobs do not travel together, the engine has to gather them: it gets more requests at a time.
_APART_UNDER_WAY = 32
_FIRST_GUESS_PER_S = 1_000.0
# The newest request's weight in the estimate of the engine's rate.
_NEWEST = 0.3


class Embedder(Protocol):
    """The engine, as far as it is needed here: `InfinityClient`."""

    async def get_embeddings(
        self, model: str, inputs: Sequence[str], modality: Modality = "text"
    ) -> EmbeddingBatch:
        """Embed inputs in one engine request."""


class Batcher:
    """Embeds the items of many jobs in few engine requests.

    Args:
        engine: where the requests go.
        requests_under_way: how many requests for one model may be under way at a time.
    """

    def __init__(self, engine: Embedder, *, requests_under_way: int = 2) -> None:
        self._engine = engine
        self._under_way = requests_under_way
        self._lanes: dict[tuple[str, Modality, bool], _Lane] = {}

    async def embed(
        self,
        model: str,
        items: Sequence[str],
        modality: Modality,
        *,
        together: bool,
        alone: bool = False,
    ) -> EmbeddingBatch:
        """Embed one job's items of one modality. Cancelling this takes them out of what waits.

        Args:
            model: a served name.
            items: any number of them.
            modality: what all of them are.
            together: whether jobs of this model share requests. Their `prompt_tokens` are then
                those of whole requests.
            alone: whether this one keeps to requests of its own nevertheless.

        Raises:
            InfinityError: the engine could not answer; `item` says for which one, if that is known.
        """
        return await self._answered(
            self._lane(model, modality, together=together),
            Ticket(items, alone=alone or not together),
        )

    async def embed_image(self, model: str, uri: str, pixels: int) -> EmbeddingBatch:
        """Embed one image, in one request with others that wait, of whichever jobs.

        Args:
            model: a served name.
            uri: the image as a data URI.
            pixels: of the picture; a request carries only so many.

        Raises:
            InfinityError: the engine could not answer.
        """
        return await self._answered(
            self._lane(model, "image", together=True), Ticket([uri], [pixels])
        )

    def _lane(self, model: str, modality: Modality, *, together: bool) -> "_Lane":
        lane = self._lanes.get((model, modality, together))
        if lane is None:
            lane = self._lanes[model, modality, together] = _Lane(
                self._engine,
                model,
                modality,
                most_under_way=self._under_way if together else _APART_UNDER_WAY,
                gathers=together,
            )
        return lane

    async def _answered(self, lane: "_Lane", ticket: Ticket) -> EmbeddingBatch:
        lane.add(ticket)
        try:
            return await ticket.done
        finally:
            lane.drop(ticket)


class _Lane:
    """The line for one model and modality."""

    def __init__(
        self,
        engine: Embedder,
        model: str,
        modality: Modality,
        *,
        most_under_way: int,
        gathers: bool,
    ) -> None:
        self._engine = engine
        self._model = model
        self._modality = modality
        self._most_under_way = most_under_way
        self._gathers = gathers
        self._most_items = MAX_TEXTS_PER_REQUEST if modality == "text" else MAX_IMAGES_PER_REQUEST
        self._most_size = MAX_CHARS_PER_REQUEST if modality == "text" else MAX_PIXELS_PER_REQUEST
        self._waiting: deque[Ticket] = deque()
        self._requests: dict[asyncio.Task[None], Sequence[Share]] = {}
        self._rate = _FIRST_GUESS_PER_S
        self._small_at = -_EXPECT_SMALL_S
        self._is_filling = False

    def add(self, ticket: Ticket) -> None:
        """Put a job at the end of the line."""
        if ticket.is_small:
            self._small_at = time.monotonic()
        self._waiting.append(ticket)
        if not self._is_filling:
            # Jobs that were taken together come here in one turn of the loop, and travel together.
            self._is_filling = True
            asyncio.get_running_loop().call_soon(self._fill)

    def drop(self, ticket: Ticket) -> None:
        """Forget a job that is over; a request that nobody waits for any more is dropped too."""
        ticket.todo.clear()
        for request, shares in self._requests.items():
            if all(share.ticket.done.done() for share in shares):
                request.cancel()

    def _fill(self) -> None:
        """Send what waits, as long as a request may be sent."""
        self._is_filling = False
        while self._waiting and len(self._requests) < self._most_under_way:
            large_share = self._large_share()
            if self._gathers and not self._is_enough(large_share):
                return
            shares = next_request(
                self._waiting,
                most_items=self._most_items,
                most_size=self._most_size,
                large_share=large_share,
            )
            if not shares:
                return
            request = asyncio.create_task(self._send(shares))
            self._requests[request] = shares
            request.add_done_callback(self._ended)

    def _is_enough(self, large_share: int) -> bool:
        """Tell whether as many items of small jobs wait as are under way, or a large job may go."""
        waiting = 0
        for ticket in self._waiting:
            if ticket.is_small:
                waiting += len(ticket.todo)
            elif large_share:
                return True
        under_way = sum(
            len(share.positions)
            for shares in self._requests.values()
            for share in shares
            if share.ticket.is_small_job
        )
        return waiting >= under_way

    def _large_share(self) -> int:
        if time.monotonic() - self._small_at >= _EXPECT_SMALL_S:
            whole_batches = int(self._rate * ALONE_S) // _ENGINE_BATCH
            return max(1, whole_batches) * _ENGINE_BATCH
        # One request stays free for small jobs, so that they never wait behind two large shares.
        large = sum(
            not all(share.ticket.is_small_job for share in shares)
            for shares in self._requests.values()
        )
        if large >= max(1, self._most_under_way - 1):
            return 0
        return max(_LEAST_SHARE, int(self._rate * SHARED_S))

    def _ended(self, request: asyncio.Task[None]) -> None:
        del self._requests[request]
        self._fill()

    async def _send(self, shares: Sequence[Share]) -> None:
        try:
            await self._embed(shares)
        except Exception as error:  # noqa: BLE001  # whatever it is, no job may wait for ever
            for share in shares:
                share.ticket.fail(error)

    async def _embed(self, shares: Sequence[Share]) -> None:
        items = [share.ticket.items[at] for share in shares for at in share.positions]
        began = time.monotonic()
        try:
            batch = await self._engine.get_embeddings(self._model, items, self._modality)
        except InfinityError as error:
            self._failed(shares, error)
            return
        # The engine's time is divided among the requests under way.
        seen = len(items) * len(self._requests) / max(time.monotonic() - began, 1e-6)
        self._rate += _NEWEST * (seen - self._rate)
        start = 0
        for share in shares:
            share.ticket.receive(share.positions, batch, start)
            start += len(share.positions)

    def _failed(self, shares: Sequence[Share], error: InfinityError) -> None:
        """Fail the one job of a request; try several apart where one of them may be at fault."""
        if len(shares) == 1 or not isinstance(error, InfinityRejected | InfinityBadResponse):
            for share in shares:
                share.ticket.fail(error)
            return
        log.info("the engine refused a request for %d jobs: trying them apart", len(shares))
        for share in reversed(shares):
            share.ticket.alone = True
            if share.ticket in self._waiting:
                self._waiting.remove(share.ticket)
            share.ticket.put_back(share.positions)
            self._waiting.appendleft(share.ticket)
